//! Lists of tags and of referrers.

use policy_operator::pipeline::ports::{Registry as _, RegistryError};
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

const TAGS: &str = "/v2/acme/policy/tags/list";

async fn tags(
    script: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (Result<Vec<Tag>, RegistryError>, Scripted) {
    let server = plain(script).await;
    let tags = super::tags(&setup().client, &repository(&server.host()), &insecure()).await;
    (tags, server)
}

fn page(tags: &[&str]) -> Answer {
    Answer::ok(json!({"name": "acme/policy", "tags": tags}).to_string())
}

fn next(query: &str) -> String {
    format!("<{TAGS}?{query}>; rel=\"next\"")
}

#[tokio::test]
async fn tags_come_from_all_pages_without_those_that_break_the_grammar() {
    let (tags, _server) = tags(|asked| match asked.query.as_str() {
        "last=b" => page(&["c", "not a tag"]),
        _ => page(&["a", "b"]).header("Link", next("last=b")),
    })
    .await;
    assert_eq!(tags.unwrap(), ["a", "b", "c"].map(tag));
}

#[tokio::test]
async fn no_tags_may_be_null() {
    let (tags, _server) = tags(|_| Answer::ok(r#"{"name":"acme/policy","tags":null}"#)).await;
    assert_eq!(tags.unwrap(), []);
}

#[rstest]
#[case::itself("n=1000", "n=1000")]
#[case::each_other("last=a", "last=b")]
#[tokio::test]
async fn pages_that_form_a_loop_are_an_error(#[case] one: &'static str, #[case] other: &'static str) {
    let (tags, server) = tags(move |asked| {
        let query = if asked.query == one { other } else { one };
        page(&["a"]).header("Link", next(query))
    })
    .await;
    assert!(matches!(tags, Err(RegistryError::Protocol { .. })), "{tags:?}");
    assert!(server.asked().len() <= 3);
}

#[tokio::test]
async fn endless_pages_are_an_error() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let (tags, server) = tags(move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        page(&["a"]).header("Link", next(&format!("last={number}")))
    })
    .await;
    assert!(matches!(tags, Err(RegistryError::Protocol { .. })), "{tags:?}");
    assert_eq!(server.asked().len(), 100);
}

#[tokio::test]
async fn a_next_page_elsewhere_is_not_asked_for() {
    let elsewhere = plain(|_| page(&["evil"])).await;
    let link = format!("<http://localhost:{}{TAGS}>; rel=\"next\"", elsewhere.port());
    let (tags, _server) = tags(move |_| page(&["a"]).header("Link", link.as_str())).await;
    assert!(matches!(tags, Err(RegistryError::Protocol { .. })), "{tags:?}");
    assert_eq!(elsewhere.asked(), []);
}

#[tokio::test]
async fn more_than_ten_thousand_tags_are_an_error() {
    let names: Vec<String> = (0..10_001).map(|number| format!("v{number}")).collect();
    let (tags, _server) = tags(move |_| Answer::ok(json!({"tags": names}).to_string())).await;
    assert!(matches!(tags, Err(RegistryError::Protocol { .. })), "{tags:?}");
}

#[rstest]
#[case::no_json("<html>")]
#[case::numbers(r#"{"tags":[1]}"#)]
#[case::text(r#"{"tags":"a"}"#)]
#[tokio::test]
async fn a_list_that_is_none_is_an_error_without_its_text(#[case] body: &'static str) {
    let (tags, _server) = tags(move |_| Answer::ok(body)).await;
    let error = tags.unwrap_err();
    assert!(
        matches!(error, RegistryError::Protocol { .. }) && !error.to_string().contains(body),
        "{error}"
    );
}

#[tokio::test]
async fn a_page_of_tags_has_a_limit() {
    let (tags, _server) = tags(|_| Answer::ok(vec![b' '; 2 << 20])).await;
    assert!(
        matches!(tags, Err(RegistryError::TooLarge { limit: 1_048_576, .. })),
        "{tags:?}"
    );
}

fn entry(number: usize) -> Value {
    json!({"mediaType": MANIFEST, "digest": Digest::of(&number.to_be_bytes()), "size": 7})
}

fn index(entries: &[Value]) -> Answer {
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    Answer::ok(index.to_string()).header("Content-Type", INDEX)
}

async fn referrers(
    script: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (Result<Vec<Descriptor>, RegistryError>, Scripted) {
    let server = plain(script).await;
    let found = setup()
        .client
        .referrers(&repository(&server.host()), &Digest::of(b""), &insecure())
        .await;
    (found, server)
}

fn is_api(asked: &Asked) -> bool {
    asked.path.contains("/referrers/")
}

#[rstest]
#[case::not_found(404, "", Some(1))]
#[case::page_on_another_host(303, "https://web.example/", Some(1))]
#[case::page_on_this_host(303, "/", None)]
#[case::bad_request(400, "", None)]
#[case::not_allowed(405, "", None)]
#[case::gone(410, "", None)]
#[case::forbidden(403, "", None)]
#[case::broken(500, "", None)]
#[case::not_implemented(501, "", None)]
#[case::later(503, "", None)]
#[tokio::test]
async fn only_a_registry_without_the_api_is_asked_for_the_tag(
    #[case] status: u16,
    #[case] location: &'static str,
    #[case] expected: Option<usize>,
) {
    let (found, server) = referrers(move |asked| {
        if is_api(asked) {
            Answer::status(status).header("Location", location)
        } else {
            index(&[entry(1)])
        }
    })
    .await;
    assert_eq!(found.as_ref().ok().map(Vec::len), expected, "{found:?}");
    let asked_tag = server
        .asked()
        .iter()
        .any(|asked| asked.path.contains("/manifests/sha256-"));
    assert_eq!(asked_tag, expected.is_some());
}

#[tokio::test]
async fn neither_api_nor_tag_means_that_there_are_none() {
    let (found, _server) = referrers(|_| Answer::status(404)).await;
    assert_eq!(found, Ok(Vec::new()));
}

#[rstest]
#[case::broken(500)]
#[case::forbidden(403)]
#[tokio::test]
async fn a_fallback_tag_that_cannot_be_read_is_not_an_empty_list(#[case] status: u16) {
    let (found, _server) = referrers(move |asked| Answer::status(if is_api(asked) { 404 } else { status })).await;
    assert!(found.is_err(), "{found:?}");
}

#[rstest]
#[case::html(Answer::ok("<html></html>").header("Content-Type", "text/html"))]
#[case::other_type(Answer::ok(r#"{"schemaVersion":2,"manifests":[]}"#).header("Content-Type", "application/json"))]
#[case::other_version(Answer::ok(r#"{"schemaVersion":1,"manifests":[]}"#).header("Content-Type", INDEX))]
#[case::manifest(Answer::ok(format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","manifests":[]}}"#)).header("Content-Type", INDEX))]
#[case::doubled(Answer::ok(r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#).header("Content-Type", INDEX))]
#[case::bad_digest(index(&[json!({"mediaType": MANIFEST, "digest": "sha256:../x", "size": 1})]))]
#[case::upper_digest(index(&[json!({"mediaType": MANIFEST, "digest": format!("sha256:{}", "A".repeat(64)), "size": 1})]))]
#[case::negative_size(index(&[json!({"mediaType": MANIFEST, "digest": Digest::of(b""), "size": -1})]))]
#[case::too_many(index(&(0..51).map(entry).collect::<Vec<_>>()))]
#[tokio::test]
async fn a_malformed_list_of_referrers_is_an_error(#[case] answer: Answer) {
    let (by_api, _server) = referrers({
        let answer = answer.clone();
        move |_| answer.clone()
    })
    .await;
    assert!(matches!(by_api, Err(RegistryError::Protocol { .. })), "{by_api:?}");
    let (by_tag, _server) = referrers(move |asked| {
        if is_api(asked) {
            Answer::status(404)
        } else {
            answer.clone()
        }
    })
    .await;
    assert!(matches!(by_tag, Err(RegistryError::Protocol { .. })), "{by_tag:?}");
}

#[tokio::test]
async fn referrers_come_from_all_pages() {
    let (found, _server) = referrers(|asked| match asked.query.as_str() {
        "page=2" => index(&[entry(2)]),
        _ => index(&[entry(1)]).header("Link", "<?page=2>; rel=\"next\""),
    })
    .await;
    assert_eq!(found.unwrap().len(), 2);
}

#[tokio::test]
async fn a_second_page_that_is_missing_is_not_the_end() {
    let (found, _server) = referrers(|asked| match asked.query.as_str() {
        "page=2" => Answer::status(404),
        _ => index(&[entry(1)]).header("Link", "<?page=2>; rel=\"next\""),
    })
    .await;
    assert!(matches!(found, Err(RegistryError::NotFound { .. })), "{found:?}");
}
