//! Bytes that are not what was asked for.

use std::sync::atomic::{AtomicUsize, Ordering};

use policy_operator::domain::artifact::MAX_MANIFEST_BYTES;
use policy_operator::pipeline::ports::{Registry as _, RegistryError};
use rstest::rstest;

use super::*;

const BYTES: &[u8] = b"the layer of a policy image, as it was pushed";

fn one_bit_off(bytes: &[u8]) -> Vec<u8> {
    let mut altered = bytes.to_vec();
    altered[bytes.len() / 2] ^= 1;
    altered
}

async fn blob(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Result<Vec<u8>, RegistryError>, Scripted) {
    let server = plain(script).await;
    let setup = setup();
    let content = setup
        .client
        .blob(&repository(&server.host()), &layer(BYTES), &insecure())
        .await;
    (content.map(|content| read(content.as_ref())), server)
}

#[rstest]
#[case::body(true, false)]
#[case::header(false, true)]
#[case::both(true, true)]
#[tokio::test]
async fn an_altered_manifest_is_not_accepted_by_its_digest(#[case] body: bool, #[case] header: bool) {
    let (altered, header_digest) = (one_bit_off(BYTES), Digest::of(&one_bit_off(BYTES)));
    let server = plain(move |_| {
        let sent = if body { altered.as_slice() } else { BYTES };
        let named = if header { header_digest } else { Digest::of(BYTES) };
        manifest_answer(sent).header("Docker-Content-Digest", named.to_string())
    })
    .await;
    let name = ManifestName::Digest(Digest::of(BYTES));
    let answer = setup()
        .client
        .manifest(&repository(&server.host()), &name, &insecure())
        .await;
    if body {
        let error = answer.unwrap_err();
        assert!(matches!(error, RegistryError::DigestMismatch { expected, .. } if expected == Digest::of(BYTES)));
    } else {
        // The header is nobody's word: the bytes are the ones asked for.
        assert_eq!(answer.unwrap().bytes, BYTES);
    }
}

#[tokio::test]
async fn an_altered_blob_is_not_accepted_and_not_kept() {
    let server = plain(|_| Answer::ok(one_bit_off(BYTES))).await;
    let setup = setup();
    for _ in 0..2 {
        let error = setup
            .client
            .blob(&repository(&server.host()), &layer(BYTES), &insecure())
            .await
            .unwrap_err();
        assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    }
    assert_eq!(*setup.seen.cache.lock().unwrap(), [false, false]);
}

#[tokio::test]
async fn a_tag_that_flips_cannot_change_what_a_digest_names() {
    let turn = AtomicUsize::new(0);
    let server = plain(move |_| {
        let bytes = if turn.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            "A"
        } else {
            "B"
        };
        let digest = Digest::of(bytes.as_bytes());
        manifest_answer(bytes.as_bytes()).header("Docker-Content-Digest", digest.to_string())
    })
    .await;
    let (setup, repository) = (setup(), repository(&server.host()));
    for _ in 0..50 {
        let digest = setup
            .client
            .resolve(&repository, &tag("1.0"), &insecure())
            .await
            .unwrap();
        let name = ManifestName::Digest(digest);
        match setup.client.manifest(&repository, &name, &insecure()).await {
            Ok(manifest) => assert_eq!(Digest::of(&manifest.bytes), digest),
            Err(error) => assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}"),
        }
    }
}

#[rstest]
#[case::longer(Answer::ok([BYTES, b"x"].concat()))]
#[case::declared_longer(Answer::ok(BYTES).declaring(BYTES.len() + 1))]
#[case::chunked_longer(Answer::ok([BYTES, b"x"].concat()).chunked_without_end())]
#[tokio::test]
async fn a_blob_is_never_larger_than_its_descriptor(#[case] answer: Answer) {
    let (result, server) = blob(move |_| answer.clone()).await;
    let error = result.unwrap_err();
    assert!(
        matches!(error, RegistryError::TooLarge { limit, .. } if limit == BYTES.len() as u64),
        "{error}"
    );
    assert_eq!(server.asked().len(), 1);
}

/// F04: what ends early and says so.
#[rstest]
#[case::shorter(Answer::ok(&BYTES[1..]))]
#[case::declared_shorter(Answer::ok(BYTES).declaring(10))]
#[case::empty(Answer::ok(""))]
#[tokio::test]
async fn a_blob_that_ends_early_by_its_own_account_is_another_blob(#[case] answer: Answer) {
    let (result, _server) = blob(move |_| answer.clone()).await;
    let error = result.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
}

/// F03: a connection may break anywhere.
#[rstest]
#[case::at_once(0)]
#[case::first_byte(1)]
#[case::half(BYTES.len() / 2)]
#[case::last_byte(BYTES.len() - 1)]
#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke(#[case] sent: usize) {
    let (result, server) = blob(move |asked| match asked.header("range") {
        "" => Answer::ok(BYTES).cut_after(sent),
        range => {
            let first: usize = range
                .trim_start_matches("bytes=")
                .trim_end_matches('-')
                .parse()
                .unwrap();
            let range = format!("bytes {first}-{}/{}", BYTES.len() - 1, BYTES.len());
            Answer::status(206).body(&BYTES[first..]).header("Content-Range", range)
        }
    })
    .await;
    let asked = server.asked();
    if sent == 0 {
        // Nothing to go on from: the same question three times.
        assert!(matches!(result, Err(RegistryError::Unreachable { .. })), "{result:?}");
        assert_eq!(asked.len(), 3);
    } else {
        assert_eq!(result.unwrap(), BYTES);
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[1].header("range"), format!("bytes={sent}-"));
    }
}

#[rstest]
#[case::ignores_ranges(Answer::ok(BYTES), true)]
#[case::other_range(Answer::status(206).body(&BYTES[1..]).header("Content-Range", "bytes 1-9/10"), false)]
#[case::no_range(Answer::status(206).body(BYTES), false)]
#[case::not_satisfiable(Answer::status(416), false)]
#[tokio::test]
async fn a_range_that_was_not_asked_for_is_not_appended(#[case] second: Answer, #[case] works: bool) {
    let (result, _server) = blob(move |asked| match asked.header("range") {
        "" => Answer::ok(BYTES).cut_after(20),
        _ => second.clone(),
    })
    .await;
    if works {
        assert_eq!(result.unwrap(), BYTES);
    } else {
        // Begun anew instead, until the attempts are used up.
        assert!(matches!(result, Err(RegistryError::Unreachable { .. })), "{result:?}");
    }
}

/// F04: what ends early and does not say so.
#[rstest]
#[case::truncated(manifest_answer(BYTES).cut_after(10))]
#[case::declared_longer(manifest_answer(BYTES).declaring(1000))]
#[case::chunk_without_end(manifest_answer(BYTES).chunked_without_end())]
#[tokio::test]
async fn a_manifest_that_breaks_off_is_asked_for_again_and_never_used(#[case] answer: Answer) {
    let server = plain(move |_| answer.clone()).await;
    let error = setup()
        .client
        .manifest(&repository(&server.host()), &tagged("1.0"), &insecure())
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert_eq!(server.asked().len(), 3);
}

#[rstest]
#[case::in_fact(manifest_answer(&vec![b' '; 5 << 20]))]
#[case::by_declaration(manifest_answer(BYTES).declaring(5 << 20))]
#[case::chunked(manifest_answer(&vec![b' '; 5 << 20]).chunked_without_end())]
#[tokio::test]
async fn a_manifest_has_a_limit(#[case] answer: Answer) {
    let server = plain(move |_| answer.clone()).await;
    let error = setup()
        .client
        .manifest(&repository(&server.host()), &tagged("1.0"), &insecure())
        .await
        .unwrap_err();
    assert!(
        matches!(error, RegistryError::TooLarge { limit, .. } if limit == MAX_MANIFEST_BYTES),
        "{error}"
    );
}

#[rstest]
#[case::absent(None)]
#[case::upper_case(Some(Digest::of(b"x").to_string().to_uppercase()))]
#[case::short(Some("sha256:e3b0c442".to_owned()))]
#[case::other_algorithm(Some(format!("sha512:{}", "a".repeat(128))))]
#[tokio::test]
async fn without_a_usable_digest_the_bytes_tell(#[case] header: Option<String>) {
    let server = plain(move |_| match &header {
        Some(header) => manifest_answer(BYTES).header("Docker-Content-Digest", header.as_str()),
        None => manifest_answer(BYTES),
    })
    .await;
    let digest = setup()
        .client
        .resolve(&repository(&server.host()), &tag("1.0"), &insecure())
        .await
        .unwrap();
    assert_eq!(digest, Digest::of(BYTES));
}

#[tokio::test]
async fn without_head_the_manifest_is_fetched() {
    let server = plain(|asked| match asked.method.as_str() {
        "HEAD" => Answer::status(405),
        _ => manifest_answer(BYTES),
    })
    .await;
    let digest = setup()
        .client
        .resolve(&repository(&server.host()), &tag("1.0"), &insecure())
        .await
        .unwrap();
    assert_eq!(digest, Digest::of(BYTES));
    assert!(server.asked()[0].header("accept").contains(INDEX));
}
