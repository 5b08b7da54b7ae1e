use super::*;
use crate::domain::trust::testing::{envelope, payload, sign_payload, sign_statement, signer, statement};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

fn digest() -> Digest {
    Digest::of(b"one")
}

fn fault(evidence: &Evidence) -> Option<Fault> {
    evidence.claim(&digest()).err()
}

#[rstest]
#[case::todays_type("/critical/type", json!(SIGN_PREDICATE), None)]
#[case::other_type("/critical/type", json!("atomic container signature"), Some(Fault::Format))]
#[case::other_name("/critical/identity/docker-reference", json!("mirror.example/policy"), None)]
#[case::other_digest("/critical/image/docker-manifest-digest", json!(Digest::of(b"two")), Some(Fault::OtherDigest))]
#[case::upper_case("/critical/image/docker-manifest-digest", json!(digest().to_string().to_uppercase()), Some(Fault::OtherDigest))]
#[case::bare_hex("/critical/image/docker-manifest-digest", json!(digest().hex()), Some(Fault::OtherDigest))]
#[case::no_image("/critical/image", Value::Null, Some(Fault::Unreadable))]
#[case::no_critical("/critical", json!([]), Some(Fault::Unreadable))]
fn payloads_are_held_to_what_cosign_writes(#[case] field: &str, #[case] value: Value, #[case] expected: Option<Fault>) {
    let mut payload = payload(&digest());
    *payload.pointer_mut(field).unwrap() = value;
    assert_eq!(
        fault(&sign_payload(&signer(), payload.to_string().as_bytes())),
        expected
    );
}

#[test]
fn ambiguous_or_large_payloads_are_refused() {
    let pair = signer();
    let text = payload(&digest()).to_string();
    let twice = text.replacen('{', r#"{"critical":{"type":"x"},"#, 1);
    assert_eq!(fault(&sign_payload(&pair, twice.as_bytes())), Some(Fault::Unreadable));
    let large = format!("{text}{}", " ".repeat(MAX_PAYLOAD_BYTES));
    assert_eq!(fault(&sign_payload(&pair, large.as_bytes())), Some(Fault::TooLarge));
    for (signature, expected) in [("!", Fault::Unreadable), (&*"A".repeat(5000), Fault::TooLarge)] {
        let evidence = Evidence::SimpleSigning {
            payload: text.clone().into(),
            signature: signature.to_owned(),
        };
        assert_eq!(fault(&evidence), Some(expected));
    }
}

#[rstest]
#[case::other_spelling("/mediaType", json!("application/vnd.dev.sigstore.bundle+json;version=0.3"), None)]
#[case::version_2("/mediaType", json!("application/vnd.dev.sigstore.bundle+json;version=0.2"), Some(Fault::Format))]
#[case::certificate("/verificationMaterial", json!({"certificate": {"rawBytes": ""}}), Some(Fault::Certificate))]
#[case::both("/verificationMaterial", json!({"publicKey": {}, "certificate": {}}), Some(Fault::Certificate))]
#[case::chain("/verificationMaterial", json!({"x509CertificateChain": {}}), Some(Fault::Certificate))]
#[case::no_material("/verificationMaterial", json!({}), Some(Fault::Format))]
#[case::no_envelope("/dsseEnvelope", Value::Null, Some(Fault::Format))]
#[case::unsigned("/dsseEnvelope/signatures", json!([]), Some(Fault::Format))]
#[case::two_signatures("/dsseEnvelope/signatures", json!([{"sig": "AA=="}, {"sig": "AA=="}]), Some(Fault::Format))]
#[case::other_payload_type("/dsseEnvelope/payloadType", json!("application/json"), Some(Fault::Format))]
#[case::payload("/dsseEnvelope/payload", json!("!"), Some(Fault::Unreadable))]
#[case::signature("/dsseEnvelope/signatures/0/sig", json!("!"), Some(Fault::Unreadable))]
fn bundles_are_held_to_what_cosign_writes(#[case] field: &str, #[case] value: Value, #[case] expected: Option<Fault>) {
    let mut bundle = envelope(&signer(), statement(&digest()).to_string().as_bytes());
    *bundle.pointer_mut(field).unwrap() = value;
    assert_eq!(fault(&Evidence::SigstoreBundle(bundle.to_string().into())), expected);
}

#[rstest]
#[case::attestation("/predicateType", json!("https://spdx.dev/Document"), Some(Fault::Attestation))]
#[case::statement_type("/_type", json!("https://in-toto.io/Statement/v0.1"), Some(Fault::Format))]
#[case::no_subject("/subject", json!([]), Some(Fault::OtherDigest))]
#[case::other_subject("/subject/0/digest/sha256", json!(Digest::of(b"two").hex()), Some(Fault::OtherDigest))]
#[case::one_of_two("/subject", json!([{"digest": {"sha256": "00"}}, {"digest": {"sha256": digest().hex()}}]), None)]
#[case::other_algorithm("/subject/0/digest", json!({"sha512": digest().hex()}), Some(Fault::OtherDigest))]
fn statements_are_signatures_of_this_digest(
    #[case] field: &str,
    #[case] value: Value,
    #[case] expected: Option<Fault>,
) {
    let mut statement = statement(&digest());
    *statement.pointer_mut(field).unwrap() = value;
    assert_eq!(fault(&sign_statement(&signer(), &statement)), expected);
}

#[test]
fn bundles_with_entries_of_a_transparency_log_are_still_the_keys() {
    let mut bundle = envelope(&signer(), statement(&digest()).to_string().as_bytes());
    bundle["verificationMaterial"]["tlogEntries"] = json!([{"logIndex": "1"}]);
    assert_eq!(fault(&Evidence::SigstoreBundle(bundle.to_string().into())), None);
    bundle["messageSignature"] = json!({});
    bundle["dsseEnvelope"].take();
    assert_eq!(
        fault(&Evidence::SigstoreBundle(bundle.to_string().into())),
        Some(Fault::Format)
    );
}

proptest! {
    #[test]
    fn never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400), signature in "\\PC{0,40}") {
        let _ = fault(&Evidence::SigstoreBundle(bytes.clone()));
        let _ = fault(&Evidence::SimpleSigning { payload: bytes, signature });
    }

    /// Whatever single byte changes, the evidence no longer makes a claim, or makes exactly the same one.
    #[test]
    fn never_panics_on_damaged_evidence(position in 0usize..600, byte in any::<u8>()) {
        let mut json = envelope(&signer(), statement(&digest()).to_string().as_bytes()).to_string().into_bytes();
        let position = position % json.len();
        json[position] = byte;
        let _ = fault(&Evidence::SigstoreBundle(json));
    }
}
