//! Signers for tests, which sign as cosign does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sigstore_verify::crypto::KeyPair;
use sigstore_verify::types::pae;

use super::{Authority, Evidence, PublicKey, SIGN_PREDICATE, TrustPolicy};
use crate::domain::digest::Digest;
use crate::domain::reference::ImageReference;
use crate::domain::revision::ImageRevision;

pub(crate) fn signer() -> KeyPair {
    KeyPair::generate_ecdsa_p256().unwrap()
}

pub(crate) fn pem(pair: &KeyPair) -> String {
    pair.public_key_der().unwrap().to_pem()
}

pub(crate) fn authority(name: &str, pairs: &[&KeyPair]) -> Authority {
    let keys = pairs
        .iter()
        .flat_map(|pair| PublicKey::from_pem(&pem(pair)).unwrap())
        .collect();
    Authority {
        name: name.to_owned(),
        keys,
    }
}

pub(crate) fn trusting(pair: &KeyPair) -> TrustPolicy {
    TrustPolicy::signed_by(vec![authority("release", &[pair])], 1).unwrap()
}

pub(crate) fn revision(content: &[u8]) -> ImageRevision {
    let reference: ImageReference = "registry.example/acme/policy:1.0".parse().unwrap();
    ImageRevision {
        repository: reference.repository().clone(),
        digest: Digest::of(content),
        tag: reference.tag().cloned(),
    }
}

pub(crate) fn payload(digest: &Digest) -> Value {
    json!({
        "critical": {
            "identity": { "docker-reference": "registry.example/acme/policy:1.0" },
            "image": { "docker-manifest-digest": digest.to_string() },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
}

pub(crate) fn sign_payload(pair: &KeyPair, payload: &[u8]) -> Evidence {
    Evidence::SimpleSigning {
        payload: payload.to_vec(),
        signature: pair.sign(payload).unwrap().to_base64(),
    }
}

pub(crate) fn legacy(pair: &KeyPair, digest: &Digest) -> Evidence {
    sign_payload(pair, payload(digest).to_string().as_bytes())
}

pub(crate) fn statement(digest: &Digest) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": digest.hex() } }],
        "predicateType": SIGN_PREDICATE,
        "predicate": {},
    })
}

pub(crate) fn envelope(pair: &KeyPair, statement: &[u8]) -> Value {
    let signature = pair.sign(&pae("application/vnd.in-toto+json", statement)).unwrap();
    json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "publicKey": { "hint": "aGludA==" } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(statement),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{ "sig": signature.to_base64() }],
        },
    })
}

pub(crate) fn sign_statement(pair: &KeyPair, statement: &Value) -> Evidence {
    Evidence::SigstoreBundle(
        envelope(pair, statement.to_string().as_bytes())
            .to_string()
            .into_bytes(),
    )
}

pub(crate) fn bundle(pair: &KeyPair, digest: &Digest) -> Evidence {
    sign_statement(pair, &statement(digest))
}
