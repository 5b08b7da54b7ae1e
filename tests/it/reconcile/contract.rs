//! The real Open Policy Agent takes what was delivered.

use policy_operator_harness::image::{Bundle, PolicyImage};
use policy_operator_harness::opa;
use policy_operator_harness::run_directory::RunDirectory;
use serde_json::json;

use super::{Arena, LIMIT, REPOSITORY, text};

#[tokio::test]
async fn opa_answers_from_the_delivered_bytes() {
    let arena = Arena::open("contract-eval").await;
    let files = [
        (".manifest", r#"{"roots":["app","limits"]}"#),
        (
            "app/policy.rego",
            "package app\n\nallow if input.size <= data.limits.size\n\nanswer := data.limits.size\n",
        ),
        ("limits/data.json", r#"{"size": 42}"#),
    ];
    let bundle = Bundle::build(&files, "r1").await.expect("bundle");
    PolicyImage::new(bundle)
        .push(arena.registry(), REPOSITORY, "1.0.0")
        .await
        .expect("pushed");
    let object = arena.deliver("app", arena.spec("1.0.0")).await;
    assert_eq!(text(&object, "/status/bundle/revision"), "r1");
    let directory = RunDirectory::new("delivered").expect("directory");
    let file = directory
        .write("bundle.tar.gz", arena.bundle("app").await)
        .expect("written");
    assert_eq!(opa::eval(&file, "data.app.answer").await.expect("answer"), json!(42));
}

#[tokio::test]
async fn opa_that_watches_the_delivered_file_follows_the_next_delivery() {
    let arena = Arena::open("contract-watch").await;
    arena.push("latest", "one").await;
    arena.deliver("app", arena.spec("latest")).await;
    let directory = RunDirectory::new("mounted").expect("directory");
    let file = directory
        .write("bundle.tar.gz", arena.bundle("app").await)
        .expect("written");
    let server = opa::Server::watching(&file).await.expect("OPA");
    server
        .until_data("app/answer", &json!("one"), LIMIT)
        .await
        .expect("first");
    let moved = arena.push("latest", "two").await;
    arena.run_again("app").await;
    arena.delivers("app", &moved.digest).await;
    let next = directory
        .write("next.tar.gz", arena.bundle("app").await)
        .expect("written");
    std::fs::rename(next, &file).expect("replaced");
    server
        .until_data("app/answer", &json!("two"), LIMIT)
        .await
        .expect("second");
}

#[tokio::test]
async fn opas_own_registry_client_and_the_operator_agree_on_the_bundle() {
    let arena = Arena::open("contract-oci").await;
    let pushed = arena.push("1.0.0", "one").await;
    let object = arena.deliver("app", arena.spec("1.0.0")).await;
    let server = opa::Server::pulling(arena.registry.host(), &pushed.reference)
        .await
        .expect("OPA");
    let digest = server.active_digest(LIMIT).await.expect("digest");
    assert_eq!(digest, text(&object, "/status/bundle/digest"));
}
