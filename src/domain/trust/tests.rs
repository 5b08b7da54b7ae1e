use super::testing::{authority, bundle, legacy, revision, signer, trusting};
use super::*;
use crate::domain::trust::PublicKey;
use insta::assert_snapshot;
use rstest::rstest;

#[rstest]
#[case::legacy(legacy)]
#[case::bundle(bundle)]
fn a_signature_by_the_key_verifies_the_digest(
    #[case] sign: fn(&sigstore_verify::crypto::KeyPair, &Digest) -> Evidence,
) {
    let pair = signer();
    let revision = revision(b"one");
    let policy = trusting(&pair);
    let verified = policy.decide(&revision, &[sign(&pair, &revision.digest)]).unwrap();
    assert_eq!(verified.value(), &revision);
    let Verification::Signed {
        authorities,
        trust_digest,
    } = verified.verification()
    else {
        panic!("not verified")
    };
    assert_eq!(authorities, &["release"]);
    assert_eq!(Some(trust_digest), policy.digest());
}

#[rstest]
#[case::legacy(legacy)]
#[case::bundle(bundle)]
fn a_signature_for_another_digest_or_by_another_key_does_not_count(
    #[case] sign: fn(&sigstore_verify::crypto::KeyPair, &Digest) -> Evidence,
) {
    let (pair, stranger) = (signer(), signer());
    let (one, two) = (revision(b"one"), revision(b"two"));
    let evidence = [sign(&pair, &two.digest), sign(&stranger, &one.digest)];
    let Err(TrustError::Mismatch {
        found, matched, faults, ..
    }) = trusting(&pair).decide(&one, &evidence)
    else {
        panic!("accepted")
    };
    assert_eq!((found, matched.len()), (2, 0));
    assert_eq!(faults, [Fault::OtherDigest, Fault::OtherKey]);
}

#[test]
fn no_evidence_is_unsigned_and_no_policy_needs_none() {
    let revision = revision(b"one");
    let error = trusting(&signer()).decide(&revision, &[]).unwrap_err();
    assert!(matches!(error, TrustError::Unsigned { .. }));
    let verified = TrustPolicy::NotConfigured.decide(&revision, &[]).unwrap();
    assert_eq!(verified.verification(), &Verification::NotConfigured);
}

#[test]
fn m_of_n_counts_authorities_not_signatures() {
    let (one, two, three) = (signer(), signer(), signer());
    let authorities = || vec![authority("a", &[&one, &two]), authority("b", &[&three])];
    let policy = TrustPolicy::signed_by(authorities(), 2).unwrap();
    let revision = revision(b"one");
    let digest = &revision.digest;
    let twice = [
        legacy(&one, digest),
        bundle(&one, digest),
        legacy(&two, digest),
        legacy(&two, digest),
    ];
    assert!(matches!(policy.decide(&revision, &twice), Err(TrustError::Mismatch { matched, .. }) if matched == ["a"]));
    let verified = policy
        .decide(&revision, &[legacy(&three, digest), bundle(&two, digest)])
        .unwrap();
    assert!(matches!(verified.verification(), Verification::Signed { authorities, .. } if authorities == &["a", "b"]));
}

#[test]
fn bad_evidence_does_not_hide_good_evidence() {
    let pair = signer();
    let revision = revision(b"one");
    let junk = Evidence::SigstoreBundle(b"{".to_vec());
    let evidence = [junk.clone(), legacy(&pair, &revision.digest), junk];
    assert!(trusting(&pair).decide(&revision, &evidence).is_ok());
}

#[test]
fn policies_that_demand_nothing_or_the_impossible_are_refused() {
    let pair = signer();
    let one = || authority("a", &[&pair]);
    let refused = |authorities, minimum| TrustPolicy::signed_by(authorities, minimum).unwrap_err();
    assert_eq!(refused(vec![], 0), TrustPolicyError::CountAuthorities { found: 0 });
    assert!(matches!(
        refused(vec![one(); 17], 1),
        TrustPolicyError::CountAuthorities { found: 17 }
    ));
    assert!(matches!(
        refused(vec![one()], 0),
        TrustPolicyError::MinimumMatches { .. }
    ));
    assert!(matches!(
        refused(vec![one()], 2),
        TrustPolicyError::MinimumMatches { .. }
    ));
    assert!(matches!(
        refused(vec![authority("", &[&pair])], 1),
        TrustPolicyError::Name { .. }
    ));
    assert!(matches!(
        refused(vec![authority(&"a".repeat(64), &[&pair])], 1),
        TrustPolicyError::Name { .. }
    ));
    assert!(matches!(
        refused(vec![authority("a", &[])], 1),
        TrustPolicyError::CountKeys { found: 0, .. }
    ));
    assert!(matches!(
        refused(vec![one(), authority("a", &[&signer()])], 1),
        TrustPolicyError::DuplicateName { .. }
    ));
    assert!(matches!(
        refused(vec![one(), authority("b", &[&pair])], 2),
        TrustPolicyError::SharedKey { .. }
    ));
}

/// An RSA key with and without the NULL of its algorithm has two fingerprints and is still one key.
#[test]
fn one_key_in_two_wrappings_does_not_make_two_authorities() {
    let with_null = include_str!("testing/rsa.pub");
    let without_null = include_str!("testing/rsa-without-null.pub");
    let [one, other] = [with_null, without_null].map(|text| PublicKey::from_pem(text).unwrap());
    assert_ne!(one[0].fingerprint(), other[0].fingerprint());
    let authorities = [("a", one), ("b", other)].map(|(name, keys)| Authority {
        name: name.into(),
        keys,
    });
    let error = TrustPolicy::signed_by(authorities.into(), 2).unwrap_err();
    assert!(matches!(error, TrustPolicyError::SharedKey { .. }), "{error}");
}

#[test]
fn the_digest_changes_with_what_is_demanded_and_only_then() {
    let (one, two) = (signer(), signer());
    let digest = |authorities, minimum| *TrustPolicy::signed_by(authorities, minimum).unwrap().digest().unwrap();
    let (a, b) = (authority("a", &[&one]), authority("b", &[&two]));
    let base = digest(vec![a.clone(), b.clone()], 1);
    assert_eq!(base, digest(vec![b.clone(), a.clone()], 1));
    assert_ne!(base, digest(vec![a.clone(), b.clone()], 2));
    assert_ne!(base, digest(vec![a.clone()], 1));
    assert_ne!(base, digest(vec![a, authority("b", &[&signer()])], 1));
    assert_eq!(
        digest(vec![authority("a", &[&one, &two])], 1),
        digest(vec![authority("a", &[&two, &one])], 1)
    );
}

#[test]
fn messages_name_the_image_first_and_stay_short() {
    let revision = revision(b"one");
    let error = trusting(&signer()).decide(&revision, &[]).unwrap_err();
    assert_snapshot!(error, @"image 7692c3ad3540 of 'registry.example/acme/policy' carries no signature");
    let (one, two) = (signer(), signer());
    let policy = TrustPolicy::signed_by(vec![authority("ci", &[&one]), authority("release", &[&two])], 2).unwrap();
    let evidence = [legacy(&one, &revision.digest), legacy(&one, &Digest::of(b"two"))];
    assert_snapshot!(policy.decide(&revision, &evidence).unwrap_err(), @"image 7692c3ad3540 of 'registry.example/acme/policy' carries 2 signatures, by 1 of the 2 authorities needed ('ci'); missing: 'release'; not counted: for another digest");
    let pairs: Vec<_> = (0..16).map(|_| signer()).collect();
    let authorities = pairs.iter().enumerate();
    let authorities = authorities
        .map(|(index, pair)| authority(&format!("{index:a>63}"), &[pair]))
        .collect();
    let policy = TrustPolicy::signed_by(authorities, 16).unwrap();
    assert!(policy.decide(&revision, &evidence).unwrap_err().to_string().len() < 1024);
}

/// Whoever can push can list fifty signatures, and a policy can name 256 keys.
#[test]
fn the_checks_of_one_decision_are_counted() {
    let (pair, revision) = (signer(), revision(b"one"));
    let others: Vec<_> = (0..MAX_KEYS * 4).map(|_| signer()).collect();
    let mut authorities: Vec<Authority> = (0..)
        .zip(others.chunks(MAX_KEYS))
        .map(|(number, pairs): (usize, _)| authority(&format!("other-{number}"), &pairs.iter().collect::<Vec<_>>()))
        .collect();
    authorities.push(authority("release", &[&pair]));
    let policy = TrustPolicy::signed_by(authorities, 1).unwrap();
    let checks = MAX_KEYS * 4 + 1;
    let decide = |strangers: usize| {
        let mut evidence = vec![bundle(&signer(), &revision.digest); strangers];
        evidence.push(bundle(&pair, &revision.digest));
        policy.decide(&revision, &evidence)
    };
    let most = MAX_SIGNATURE_CHECKS / checks - 1;
    assert!(decide(most).is_ok());
    let Err(TrustError::Mismatch { faults, .. }) = decide(most + 1) else {
        panic!("every pair was checked")
    };
    assert_eq!(faults, [Fault::Unchecked, Fault::OtherKey]);
}

#[test]
fn a_decision_that_nobody_waits_for_is_not_made() {
    let (pair, revision) = (signer(), revision(b"one"));
    let token = CancellationToken::default();
    let decide = || {
        let evidence = [bundle(&pair, &revision.digest)];
        trusting(&pair).decide_unless_cancelled(&revision, &evidence, &token)
    };
    assert!(decide().is_ok());
    drop(token.drop_guard());
    assert_eq!(decide(), Err(TrustError::Cancelled));
}
