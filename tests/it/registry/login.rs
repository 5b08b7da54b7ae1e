//! Credentials: what is sent where.

use std::sync::atomic::{AtomicUsize, Ordering};

use policy_operator::pipeline::ports::{Registry as _, RegistryError};
use rstest::rstest;

use super::*;

/// A registry that wants the token `good`, and its own token server at `/token`.
async fn with_tokens(token: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Scripted {
    plain(
        move |asked| match (asked.path.as_str(), asked.header("authorization")) {
            ("/token", _) => token(asked),
            (_, "Bearer good") => manifest_answer(b"{}"),
            _ => challenge(asked, "http://HOST/token"),
        },
    )
    .await
}

/// 401 with a realm, in which `HOST` stands for the registry itself. The scope it names is for something else.
fn challenge(asked: &Asked, realm: &str) -> Answer {
    let realm = realm.replace("HOST", asked.header("host"));
    let challenge = format!(r#"Bearer realm="{realm}",service="acme",scope="repository:other/secret:push,pull""#);
    Answer::status(401).header("WWW-Authenticate", challenge)
}

fn token(text: &str, expires_in: u64) -> Answer {
    Answer::ok(format!(r#"{{"token":"{text}","expires_in":{expires_in}}}"#))
}

async fn ask(setup: &Setup, server: &Scripted, access: &RegistryAccess) -> Result<(), RegistryError> {
    let asked = setup
        .client
        .manifest(&repository(&server.host()), &tagged("1.0"), access)
        .await;
    asked.map(|_| ())
}

/// Whether any of the requests carries the canary, in the clear or encoded.
fn saw_credentials(server: &Scripted) -> bool {
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("acme:{CANARY}"));
    let requests = server.asked();
    requests.iter().any(|asked| {
        let text = format!("{asked:?}");
        text.contains(CANARY) || text.contains(&basic)
    })
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_only_to_pull() {
    let server = with_tokens(|_| token("good", 300)).await;
    let (setup, access) = (setup(), with_password(&server.host()));
    for _ in 0..3 {
        ask(&setup, &server, &access).await.unwrap();
    }
    let asked = server.asked();
    let tokens: Vec<_> = asked.iter().filter(|asked| asked.path == "/token").collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].query, "scope=repository%3Aacme%2Fpolicy%3Apull&service=acme");
    assert!(tokens[0].header("authorization").starts_with("Basic "));
    assert_eq!(asked.len(), 5);
}

#[tokio::test]
async fn anonymous_tokens_are_asked_for_where_no_credentials_apply() {
    let server = with_tokens(|_| token("good", 300)).await;
    ask(&setup(), &server, &insecure()).await.unwrap();
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| !asked.header("authorization").starts_with("Basic"))
    );
}

#[tokio::test]
async fn another_tenant_does_not_use_the_token() {
    let server = with_tokens(|asked| match asked.header("authorization") {
        "" => Answer::status(401),
        _ => token("good", 300),
    })
    .await;
    let setup = setup();
    ask(&setup, &server, &with_password(&server.host())).await.unwrap();
    let error = ask(&setup, &server, &insecure()).await.unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Unauthorized {
                credentials: "an anonymous request",
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_token_that_ended_is_asked_for_again() {
    let server = with_tokens(|_| token("good", 0)).await;
    let (setup, access) = (setup(), with_password(&server.host()));
    for _ in 0..2 {
        ask(&setup, &server, &access).await.unwrap();
    }
    let tokens = server.asked().iter().filter(|asked| asked.path == "/token").count();
    assert_eq!(tokens, 2);
}

#[tokio::test]
async fn a_token_that_is_withdrawn_is_asked_for_again_once() {
    let asked_for = AtomicUsize::new(0);
    let server = plain(
        move |asked| match (asked.path.as_str(), asked.header("authorization")) {
            ("/token", _) => token(&format!("t{}", asked_for.fetch_add(1, Ordering::SeqCst)), 300),
            ("/v2/acme/policy/manifests/1.0", "Bearer t0") | ("/v2/acme/policy/manifests/2.0", "Bearer t1") => {
                manifest_answer(b"{}")
            }
            _ => challenge(asked, "http://HOST/token"),
        },
    )
    .await;
    let (setup, access) = (setup(), with_password(&server.host()));
    ask(&setup, &server, &access).await.unwrap();
    setup
        .client
        .manifest(&repository(&server.host()), &tagged("2.0"), &access)
        .await
        .unwrap();
    let error = setup
        .client
        .manifest(&repository(&server.host()), &tagged("3.0"), &access)
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    assert_eq!(server.asked().iter().filter(|asked| asked.path == "/token").count(), 3);
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let server = with_tokens(|asked| {
        let is_exchange = asked.method == "POST"
            && asked.body.contains("grant_type=refresh_token")
            && asked.body.contains(&format!("refresh_token={CANARY}"))
            && asked.body.contains("scope=repository%3Aacme%2Fpolicy%3Apull")
            && asked.query.is_empty();
        if is_exchange {
            Answer::ok(r#"{"access_token":"good"}"#)
        } else {
            Answer::status(400)
        }
    })
    .await;
    let access = with_auths(&format!(r#"{{"{}":{{"identitytoken":"{CANARY}"}}}}"#, server.host()));
    ask(&setup(), &server, &access).await.unwrap();
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let server = with_tokens(|_| Answer::status(500)).await;
    let access = with_auths(&format!(r#"{{"{}":{{"registrytoken":"good"}}}}"#, server.host()));
    ask(&setup(), &server, &access).await.unwrap();
    assert!(server.asked().iter().all(|asked| asked.path != "/token"));
}

fn two_candidates(host: &str) -> RegistryAccess {
    with_auths(&format!(
        r#"{{"{host}/acme":{{"username":"old","password":"x"}},"{host}":{{"username":"acme","password":"{CANARY}"}}}}"#
    ))
}

#[rstest]
#[case::unauthorized(401)]
#[case::denied(403)]
#[tokio::test]
async fn several_credentials_are_tried_in_turn(#[case] refusal: u16) {
    let good = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("acme:{CANARY}"));
    let server = plain(move |asked| match asked.header("authorization") {
        "" => Answer::status(401).header("WWW-Authenticate", r#"Basic realm="acme""#),
        header if header == format!("Basic {good}") => manifest_answer(b"{}"),
        _ => Answer::status(refusal),
    })
    .await;
    let (setup, access) = (setup(), two_candidates(&server.host()));
    for _ in 0..2 {
        ask(&setup, &server, &access).await.unwrap();
    }
    // Anonymous, old, good; then good at once.
    assert_eq!(server.asked().len(), 4);
}

#[rstest]
#[case::unauthorized(401)]
#[case::denied(403)]
#[tokio::test]
async fn where_no_credentials_are_accepted_there_is_no_anonymous_attempt_with_a_token(#[case] status: u16) {
    let server = with_tokens(move |asked| match asked.header("authorization") {
        "" => token("good", 300),
        _ => Answer::status(status),
    })
    .await;
    let error = ask(&setup(), &server, &two_candidates(&server.host()))
        .await
        .unwrap_err();
    let expected = "the given credentials";
    assert!(
        matches!(error, RegistryError::Unauthorized { credentials, .. } if credentials == expected),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_that_denies_says_so() {
    let server = plain(|asked| match asked.header("authorization") {
        "" => Answer::status(401).header("WWW-Authenticate", r#"Basic realm="acme""#),
        _ => Answer::status(403).body(CANARY),
    })
    .await;
    let error = ask(&setup(), &server, &with_password(&server.host()))
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
}

#[rstest]
#[case::no_challenge(Answer::status(401))]
#[case::unknown(Answer::status(401).header("WWW-Authenticate", "Negotiate"))]
#[tokio::test]
async fn a_registry_must_say_how_to_log_in(#[case] answer: Answer) {
    let server = plain(move |_| answer.clone()).await;
    let error = ask(&setup(), &server, &with_password(&server.host()))
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error}");
    assert!(!saw_credentials(&server));
}

#[rstest]
#[case::no_json(Answer::ok("no"))]
#[case::no_token(Answer::ok("{}"))]
#[case::empty(Answer::ok(r#"{"token":""}"#))]
#[case::newline(Answer::ok(r#"{"token":"a\nb"}"#))]
#[case::redirect(Answer::status(302).header("Location", "/elsewhere"))]
#[case::not_found(Answer::status(404))]
#[tokio::test]
async fn a_token_server_must_keep_to_the_protocol(#[case] answer: Answer) {
    let server = with_tokens(move |_| answer.clone()).await;
    let error = ask(&setup(), &server, &with_password(&server.host()))
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error}");
    assert!(server.asked().iter().all(|asked| asked.path != "/elsewhere"));
}

#[tokio::test]
async fn the_answer_of_a_token_server_has_a_limit() {
    let server = with_tokens(|_| Answer::ok(vec![b' '; 100_000])).await;
    let error = ask(&setup(), &server, &insecure()).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::TooLarge { limit: 65_536, .. }),
        "{error}"
    );
}

#[rstest]
#[case::other_site("http://localhost:PORT/token", true)]
#[case::other_port_of_the_address("http://127.0.0.1:PORT/token", false)]
#[case::ipv6("http://[::1]:PORT/token", false)]
#[case::decimal("http://2130706433:PORT/token", false)]
#[case::user("http://user@localhost:PORT/token", false)]
#[case::file("file:///token", false)]
#[case::metadata("http://169.254.169.254/token", false)]
#[tokio::test]
async fn credentials_do_not_follow_a_foreign_realm(#[case] realm: &'static str, #[case] is_asked: bool) {
    let thief = plain(|_| Answer::status(401)).await;
    let realm = realm.replace("PORT", &thief.port().to_string());
    let server = plain(move |asked| challenge(asked, &realm)).await;
    let error = ask(&setup(), &server, &with_password(&server.host()))
        .await
        .unwrap_err();
    assert!(!saw_credentials(&thief) && !saw_credentials(&server));
    assert_eq!(!thief.asked().is_empty(), is_asked);
    match error {
        RegistryError::Unauthorized { credentials, .. } => assert!(is_asked && credentials.contains("not sent")),
        RegistryError::Protocol { .. } | RegistryError::AddressRefused { .. } => assert!(!is_asked),
        error => panic!("{error}"),
    }
}

/// Everything logged, by us and by the libraries below.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_error_no_debug_text_and_no_log_holds_a_credential() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // With a single subscriber alive, the library would ask the thread that logs first, perhaps that of another test,
    // whether anybody listens.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
    // The test has one thread, so this sees the client's tasks too.
    let _logging = tracing::subscriber::set_default(subscriber);
    let answers = [
        Answer::status(401).header("WWW-Authenticate", r#"Basic realm="acme""#),
        Answer::status(403).body(CANARY),
        Answer::status(404).body(CANARY),
        Answer::status(418).body(CANARY),
        Answer::status(500).body(CANARY),
        Answer::status(307).header("Location", format!("http://u:{CANARY}@localhost/?{CANARY}")),
        Answer::status(307).header("Location", format!("http://localhost:1/?sig={CANARY}")),
        Answer::status(429).header("Retry-After", "60").body(CANARY),
        Answer::ok(CANARY).declaring(1000),
        Answer::ok(CANARY).declaring(50 << 20),
    ];
    for answer in answers {
        let server = plain(move |asked| match asked.header("authorization") {
            "" => Answer::status(401).header("WWW-Authenticate", r#"Basic realm="acme""#),
            _ => answer.clone(),
        })
        .await;
        let (setup, access) = (setup(), with_password(&server.host()));
        let error = ask(&setup, &server, &access).await.unwrap_err();
        assert!(saw_credentials(&server));
        let texts = format!("{error} {error:?} {access:?} {:?}", setup.client);
        assert!(!texts.contains(CANARY), "{texts}");
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("acme:{CANARY}"));
    assert!(log.contains("registry request"), "{log}");
    assert!(!log.contains(CANARY) && !log.contains(&basic), "{log}");
}
