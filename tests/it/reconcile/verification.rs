//! What is delivered is signed as the spec asks, whatever the registry does.

use kube::api::{Patch, PatchParams};
use policy_operator_harness::cosign::{Format, Keys, Kind, sign};
use policy_operator_harness::registry::{Distribution, DistributionOptions, Endpoint};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::metrics::until_runs;
use super::{Arena, REPOSITORY, bytes, condition, push, spec, text, with};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The key that most tests trust.
async fn release() -> &'static Keys {
    static KEYS: OnceCell<Keys> = OnceCell::const_new();
    KEYS.get_or_init(generate).await
}

/// Another one.
async fn other() -> &'static Keys {
    static KEYS: OnceCell<Keys> = OnceCell::const_new();
    KEYS.get_or_init(generate).await
}

async fn generate() -> Keys {
    Keys::generate(Kind::P256).await.expect("keys")
}

async fn sign_as(keys: &Keys, registry: &Endpoint, pinned: &str, format: Format) {
    sign(keys, registry, pinned, format).await.expect("signed");
}

/// `spec.verify` for authorities of these names and keys.
fn verify(minimum: u32, authorities: &[(&str, Value)]) -> Value {
    let authorities = authorities
        .iter()
        .map(|(name, key)| json!({ "name": name, "key": key }));
    json!({ "verify": { "minimumMatches": minimum, "authorities": authorities.collect::<Vec<_>>() } })
}

fn inline(keys: &Keys) -> Value {
    json!({ "data": keys.public_pem })
}

#[rstest]
#[case::bundle_by_referrers(Format::Bundle, false)]
#[case::bundle_by_fallback_tag(Format::Bundle, true)]
#[case::legacy(Format::Legacy, false)]
#[case::legacy_on_distribution(Format::Legacy, true)]
#[tokio::test]
async fn a_signed_image_is_delivered(#[case] format: Format, #[case] by_distribution: bool) {
    let arena = Arena::open("verification-signed").await;
    let distribution = Distribution::start(DistributionOptions::default())
        .await
        .expect("registry");
    let registry = if by_distribution {
        distribution.endpoint()
    } else {
        arena.registry()
    };
    let pushed = push(registry, "1.0.0", "one").await;
    sign_as(release().await, registry, &pushed.pinned, format).await;
    let trust = verify(1, &[("release", inline(release().await))]);
    let object = arena.deliver("app", with(spec(&pushed.reference), &trust)).await;
    let verified = condition(&object, "Verified");
    assert_eq!(
        (verified.status.as_str(), verified.message.as_str()),
        ("True", "signed by 'release'")
    );
    assert_eq!(
        object.data.pointer("/status/verification/authorities"),
        Some(&json!(["release"]))
    );
    assert_eq!(arena.bundle("app").await, bytes("one"));
}

#[tokio::test]
async fn without_the_right_signature_nothing_is_delivered() {
    let arena = Arena::open("verification-refused").await;
    let trust = verify(1, &[("release", inline(release().await))]);
    arena.push("unsigned", "one").await;
    let pushed = arena.push("mismatch", "two").await;
    sign_as(other().await, arena.registry(), &pushed.pinned, Format::Bundle).await;
    for (name, reason, disposition) in [
        ("unsigned", "Unsigned", "Reconciling"),
        ("mismatch", "SignatureMismatch", "Stalled"),
    ] {
        arena.create(name, with(arena.spec(name), &trust)).await;
        let object = arena.not_ready(name, reason).await;
        let verified = condition(&object, "Verified");
        assert_eq!((verified.status.as_str(), verified.reason.as_str()), ("False", reason));
        assert_eq!(condition(&object, disposition).status, "True");
        assert_eq!(
            arena
                .config_maps()
                .get_opt(&format!("{name}-bundle"))
                .await
                .expect("answer"),
            None
        );
    }
}

#[tokio::test]
async fn as_many_authorities_must_sign_as_the_spec_asks() {
    let arena = Arena::open("verification-m-of-n").await;
    let (first, second) = (release().await, other().await);
    let both = [("release", inline(first)), ("audit", inline(second))];
    let pushed = arena.push("1.0.0", "one").await;
    sign_as(first, arena.registry(), &pushed.pinned, Format::Bundle).await;
    arena
        .deliver("one-of-two", with(arena.spec("1.0.0"), &verify(1, &both)))
        .await;
    arena
        .create("two-of-two", with(arena.spec("1.0.0"), &verify(2, &both)))
        .await;
    arena.not_ready("two-of-two", "SignatureMismatch").await;
    sign_as(second, arena.registry(), &pushed.pinned, Format::Legacy).await;
    arena.run_again("two-of-two").await;
    let object = arena.ready("two-of-two").await;
    assert_eq!(
        object.data.pointer("/status/verification/authorities"),
        Some(&json!(["release", "audit"]))
    );
}

#[tokio::test]
async fn a_key_is_read_from_a_config_map() {
    let arena = Arena::open("verification-map").await;
    let keys = release().await;
    arena
        .create_config_map(json!({ "metadata": { "name": "keys" }, "data": { "pem": keys.public_pem } }))
        .await;
    let pushed = arena.push("1.0.0", "one").await;
    sign_as(keys, arena.registry(), &pushed.pinned, Format::Bundle).await;
    let trust = verify(
        1,
        &[("release", json!({ "configMapRef": { "name": "keys", "key": "pem" } }))],
    );
    let object = arena.deliver("app", with(arena.spec("1.0.0"), &trust)).await;
    assert_eq!(condition(&object, "Verified").status, "True");
}

#[tokio::test]
async fn a_key_that_is_rotated_is_asked_for_within_an_interval_and_the_old_bundle_stays() {
    let arena = Arena::open("verification-rotated").await;
    let (old, new) = (release().await, other().await);
    arena.create_secret("keys", "pem", &old.public_pem).await;
    let pushed = arena.push("1.0.0", "one").await;
    sign_as(old, arena.registry(), &pushed.pinned, Format::Bundle).await;
    let trust = verify(
        1,
        &[("release", json!({ "secretRef": { "name": "keys", "key": "pem" } }))],
    );
    let spec = with(with(arena.spec("1.0.0"), &trust), &json!({ "interval": "5s" }));
    let before = arena.deliver("app", spec).await;
    rotate(&arena, &new.public_pem).await;
    let object = arena.not_ready("app", "SignatureMismatch").await;
    assert_eq!(condition(&object, "Verified").status, "False");
    assert_eq!(condition(&object, "Delivered").status, "True");
    assert_eq!(arena.bundle("app").await, bytes("one"));
    let trusted = |object: &kube::api::DynamicObject| text(object, "/status/verification/trustDigest").to_owned();
    assert_eq!(
        trusted(&object),
        trusted(&before),
        "what is delivered was verified by the old key"
    );
    sign_as(new, arena.registry(), &pushed.pinned, Format::Bundle).await;
    let object = arena.ready("app").await;
    assert_ne!(trusted(&object), trusted(&before));
    rotate(&arena, &format!("{}{}", old.public_pem, new.public_pem)).await;
    let both = arena
        .until("app", "verified by either key", |object| {
            trusted(object) != trusted(&before)
        })
        .await;
    assert_eq!(condition(&both, "Verified").status, "True");
}

/// Whoever holds the old key and may push could otherwise have its policy put back by removing the tag.
#[tokio::test]
async fn what_only_a_removed_key_verified_is_not_restored() {
    let arena = Arena::open("verification-removed-key").await;
    let pushed = arena.push("1.0.0", "one").await;
    sign_as(release().await, arena.registry(), &pushed.pinned, Format::Bundle).await;
    let trust = verify(1, &[("release", inline(release().await))]);
    arena.deliver("app", with(arena.spec("1.0.0"), &trust)).await;
    let trust = verify(1, &[("release", inline(other().await))]);
    let spec = with(arena.spec("9.9.9"), &trust);
    arena.patch("app", json!({ "spec": spec })).await;
    arena.not_ready("app", "ImageNotFound").await;
    assert_eq!(arena.bundle("app").await, bytes("one"), "nobody took it away yet");
    arena.delete_config_map("app-bundle").await;
    arena.not_delivered("app").await;
    let found = arena.config_maps().get_opt("app-bundle").await.expect("answer");
    assert_eq!(found, None);
}

async fn rotate(arena: &Arena, pem: &str) {
    let patch = Patch::Merge(json!({ "stringData": { "pem": pem } }));
    arena
        .secrets()
        .patch("keys", &PatchParams::default(), &patch)
        .await
        .expect("patched");
}

/// D01: the tag moves back and forth while it is asked for. Each round asks for a tag that nobody asked for before, so no
/// answer is shared with an earlier one.
#[tokio::test]
async fn an_unsigned_image_never_slips_through_while_the_tag_moves() {
    let arena = Arena::open("verification-flip").await;
    let (signed, unsigned) = (arena.push("a", "signed").await, arena.push("b", "unsigned").await);
    sign_as(release().await, arena.registry(), &signed.pinned, Format::Legacy).await;
    let trust = verify(1, &[("release", inline(release().await))]);
    arena.deliver("app", with(arena.spec("a"), &trust)).await;
    let (mut refused, digests) = (0, [signed.digest, unsigned.digest]);
    for round in 0..30 {
        let tag = format!("flip-{round}");
        let registry = arena.registry().clone();
        registry
            .retag(REPOSITORY, &digests[round % 2], &tag)
            .await
            .expect("moved");
        arena.patch("app", json!({ "spec": arena.spec(&tag) })).await;
        let flip = async {
            for turn in round + 1.. {
                registry
                    .retag(REPOSITORY, &digests[turn % 2], &tag)
                    .await
                    .expect("moved");
            }
        };
        let seen = |object: &kube::api::DynamicObject| {
            object
                .data
                .pointer("/status/observedGeneration")
                .and_then(Value::as_i64)
                == object.metadata.generation
        };
        let object = tokio::select! {
            () = flip => continue,
            object = arena.until("app", "looked at", seen) => object,
        };
        assert_eq!(text(&object, "/status/source/digest"), digests[0]);
        assert_eq!(arena.bundle("app").await, bytes("signed"));
        refused += usize::from(condition(&object, "Ready").reason == "Unsigned");
    }
    assert!((1..30).contains(&refused), "both were seen: {refused}");
}

/// D03: whoever controls the registry cannot replace what was verified by what was not.
#[tokio::test]
async fn when_signatures_vanish_and_the_tag_moves_the_verified_version_stays() {
    let arena = Arena::open("verification-vanished").await;
    let registry = Distribution::start(DistributionOptions::default())
        .await
        .expect("registry");
    let endpoint = registry.endpoint();
    let first = push(endpoint, "latest", "one").await;
    sign_as(release().await, endpoint, &first.pinned, Format::Legacy).await;
    let trust = verify(1, &[("release", inline(release().await))]);
    arena.deliver("app", with(spec(&first.reference), &trust)).await;
    let version = arena.config_map("app-bundle").await.metadata.resource_version;

    let head = endpoint
        .client()
        .head(endpoint.url(&format!("{REPOSITORY}/manifests/{}", signature_tag(&first.digest))));
    let answer = head.header("accept", MANIFEST).send().await.expect("answer");
    let signature = answer.headers()["docker-content-digest"].to_str().expect("digest");
    endpoint.delete_manifest(REPOSITORY, signature).await.expect("deleted");
    push(endpoint, "latest", "two").await;
    arena.run_again("app").await;
    let object = arena.not_ready("app", "Unsigned").await;
    assert_eq!(condition(&object, "Verified").status, "False");
    assert_eq!(text(&object, "/status/source/digest"), first.digest);

    until_runs(&arena.operator, "Unsigned", 2).await;
    let config_map = arena.config_map("app-bundle").await;
    assert_eq!(
        (super::bundle_in(&config_map), config_map.metadata.resource_version),
        (bytes("one"), version)
    );
    let reasons: Vec<String> = arena
        .events("app")
        .await
        .into_iter()
        .map(|[_, reason, _]| reason)
        .collect();
    assert_eq!(
        reasons.iter().filter(|reason| *reason == "Unsigned").count(),
        1,
        "{reasons:?}"
    );
    let runs = super::metrics::value(&arena.operator, "policy_operator_reconcile_total{reason=\"Unsigned\"}").await;
    // At 0 s, 1 s, 3 s and 7 s, and one that found an answer shared too long.
    assert!((3.0..=6.0).contains(&runs), "{runs} runs in 8 s");
}

fn signature_tag(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

/// D04: a signature says what it signs, so it is worth nothing beside another image.
#[rstest]
#[case(Format::Legacy)]
#[case(Format::Bundle)]
#[tokio::test]
async fn a_signature_that_is_copied_to_another_image_does_not_verify_it(#[case] format: Format) {
    let arena = Arena::open("verification-copied").await;
    let registry = arena.registry();
    let (signed, forged) = (arena.push("a", "one").await, arena.push("b", "two").await);
    sign_as(release().await, registry, &signed.pinned, format).await;
    match format {
        Format::Legacy => {
            let (from, to) = (signature_tag(&signed.digest), signature_tag(&forged.digest));
            registry.retag(REPOSITORY, &from, &to).await.expect("copied");
        }
        Format::Bundle => copy_referrer(registry, &signed.digest, &forged.digest).await,
    }
    let trust = verify(1, &[("release", inline(release().await))]);
    arena.deliver("signed", with(arena.spec("a"), &trust)).await;
    arena.create("forged", with(arena.spec("b"), &trust)).await;
    arena.not_ready("forged", "SignatureMismatch").await;
    assert_eq!(
        arena.config_maps().get_opt("forged-bundle").await.expect("answer"),
        None
    );
}

/// Attaches the first referrer of `from` to `to` as well.
async fn copy_referrer(registry: &Endpoint, from: &str, to: &str) {
    let get = async |path: String| {
        let request = registry.client().get(registry.url(&path)).header("accept", MANIFEST);
        request.send().await.expect("answer").text().await.expect("text")
    };
    let index: Value = serde_json::from_str(&get(format!("{REPOSITORY}/referrers/{from}")).await).expect("JSON");
    let referrer = index["manifests"][0]["digest"].as_str().expect("a referrer");
    let manifest = get(format!("{REPOSITORY}/manifests/{referrer}"))
        .await
        .replace(from, to);
    registry
        .push_manifest(REPOSITORY, "copied", MANIFEST, manifest.as_bytes())
        .await
        .expect("pushed");
}
