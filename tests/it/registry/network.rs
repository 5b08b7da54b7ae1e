//! Where connections lead: TLS, redirects, refused addresses.

use policy_operator::domain::access::{ClientCertificate, Secret};
use policy_operator::pipeline::ports::{Registry as _, RegistryError};
use policy_operator_harness::tls::{Authority, Certified};
use rstest::rstest;

use super::*;

async fn ask(setup: &Setup, host: &str, access: &RegistryAccess) -> Result<(), RegistryError> {
    let asked = setup.client.manifest(&repository(host), &tagged("1.0"), access).await;
    asked.map(|_| ())
}

async fn secure(authority: &Authority, script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Scripted {
    Scripted::start(Transport::Tls(&authority.server().unwrap()), script)
        .await
        .unwrap()
}

fn trusting(authority: &Authority) -> RegistryAccess {
    RegistryAccess {
        transport: TransportSettings {
            authorities_pem: Some(authority.certificate()),
            ..TransportSettings::default()
        },
        ..RegistryAccess::default()
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_only_where_it_is_named() {
    let (authority, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let server = secure(&authority, |_| manifest_answer(b"{}")).await;
    let setup = setup();
    ask(&setup, &server.host(), &trusting(&authority)).await.unwrap();
    for access in [RegistryAccess::default(), trusting(&other)] {
        let error = ask(&setup, &server.host(), &access).await.unwrap_err();
        assert!(matches!(error, RegistryError::Tls { .. }), "{error}");
    }
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn insecure_means_plain_http_and_nothing_else() {
    let authority = Authority::new().unwrap();
    let server = secure(&authority, |_| manifest_answer(b"{}")).await;
    let error = ask(&setup(), &server.host(), &insecure()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn tls_is_not_given_up_for_a_registry_without_it() {
    let server = plain(|_| manifest_answer(b"{}")).await;
    let error = ask(&setup(), &server.host(), &RegistryAccess::default())
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error}");
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn a_certificate_without_the_hosts_name_is_not_accepted() {
    let authority = Authority::new().unwrap();
    let nameless = authority.client("acme", "acme").unwrap();
    let server = Scripted::start(Transport::Tls(&nameless), |_| manifest_answer(b"{}"))
        .await
        .unwrap();
    let error = ask(&setup(), &server.host(), &trusting(&authority)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error}");
    assert_eq!(server.asked(), []);
}

/// A certificate and its own authority, for `name` and valid until the year `until`.
fn self_signed(name: &str, until: i32) -> Certified {
    let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    Certified {
        certificate: parameters.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

#[rstest]
#[case::good("127.0.0.1", 2200, true)]
#[case::expired("127.0.0.1", 2001, false)]
#[case::other_name("registry.example", 2200, false)]
#[tokio::test]
async fn a_certificate_must_be_for_this_host_and_this_day(#[case] name: &str, #[case] until: i32, #[case] good: bool) {
    let certified = self_signed(name, until);
    let server = Scripted::start(Transport::Tls(&certified), |_| manifest_answer(b"{}"))
        .await
        .unwrap();
    let access = RegistryAccess {
        transport: TransportSettings {
            authorities_pem: Some(certified.certificate.clone()),
            ..TransportSettings::default()
        },
        ..RegistryAccess::default()
    };
    match ask(&setup(), &server.host(), &access).await {
        Ok(()) => assert!(good),
        Err(error) => assert!(!good && matches!(error, RegistryError::Tls { .. }), "{error}"),
    }
}

#[tokio::test]
async fn a_registry_may_ask_for_a_client_certificate() {
    let authority = Authority::new().unwrap();
    let certified = authority.server().unwrap();
    let transport = Transport::MutualTls(&certified, &authority);
    let server = Scripted::start(transport, |_| manifest_answer(b"{}")).await.unwrap();
    let client = authority.client("acme", "acme").unwrap();
    let mut with_certificate = trusting(&authority);
    with_certificate.transport.client_certificate = Some(ClientCertificate {
        chain_pem: client.certificate,
        key_pem: Secret::new(client.key),
    });
    let setup = setup();
    ask(&setup, &server.host(), &with_certificate).await.unwrap();
    let error = ask(&setup, &server.host(), &trusting(&authority)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error}");
}

#[rstest]
#[case::authorities(Some("nonsense"), None)]
#[case::empty_authorities(Some(""), None)]
#[case::client_certificate(None, Some("nonsense"))]
#[tokio::test]
async fn unusable_certificates_are_named(#[case] authorities: Option<&str>, #[case] client: Option<&str>) {
    let access = RegistryAccess {
        transport: TransportSettings {
            authorities_pem: authorities.map(str::to_owned),
            client_certificate: client.map(|text| ClientCertificate {
                chain_pem: text.to_owned(),
                key_pem: Secret::new(CANARY),
            }),
            insecure: false,
        },
        ..RegistryAccess::default()
    };
    let error = ask(&setup(), "127.0.0.1:1", &access).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::TransportSettings { .. }) && !error.to_string().contains(CANARY),
        "{error}"
    );
}

#[tokio::test]
async fn more_authorities_than_any_system_ships_are_refused() {
    let authority = Authority::new().unwrap().certificate();
    let many = authority.repeat((256 << 10) / authority.len() + 1);
    let mut access = trusting(&Authority::new().unwrap());
    access.transport.authorities_pem = Some(many);
    let error = ask(&setup(), "127.0.0.1:1", &access).await.unwrap_err();
    assert!(error.to_string().contains("more than 256 KiB"), "{error}");
}

#[rstest]
#[case::metadata("169.254.169.254")]
#[case::loopback("127.0.0.1:PORT")]
#[case::loopback_by_name("localhost:PORT")]
#[case::decimal("2130706433:PORT")]
#[case::api_server("10.96.0.1:443")]
#[tokio::test]
async fn refused_addresses_are_refused_before_a_connection(#[case] host: &str) {
    let server = plain(|_| manifest_answer(b"{}")).await;
    let host = host.replace("PORT", &server.port().to_string());
    let egress = EgressPolicy::new(false, false, vec!["10.96.0.1:443".parse().unwrap()]);
    let error = ask(&setup_with(egress), &host, &insecure()).await.unwrap_err();
    assert!(matches!(error, RegistryError::AddressRefused { .. }), "{error}");
    let constant = "leads to an address that is refused";
    assert!(error.to_string().ends_with(constant), "{error}");
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn registries_that_are_not_allowed_are_not_asked() {
    let server = plain(|_| manifest_answer(b"{}")).await;
    let only = |pattern: &str| {
        let allowed = AllowedHosts::parse(&[pattern.to_owned()]).unwrap();
        setup_allowing(EgressPolicy::new(false, true, Vec::new()), allowed)
    };
    let error = ask(&only("ghcr.io"), &server.host(), &insecure()).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotAllowed { .. }), "{error}");
    assert_eq!(server.asked(), []);
    ask(&only("127.0.0.1:*"), &server.host(), &insecure()).await.unwrap();
}

const BYTES: &[u8] = b"a layer";

/// A registry that wants a password, and redirects blobs to `location`.
async fn redirecting(location: String, status: u16) -> Scripted {
    plain(move |asked| match asked.header("authorization") {
        "" => Answer::status(401).header("WWW-Authenticate", r#"Basic realm="acme""#),
        _ => Answer::status(status).header("Location", location.as_str()),
    })
    .await
}

async fn blob(host: &str, access: &RegistryAccess) -> Result<Vec<u8>, RegistryError> {
    let setup = setup();
    let content = setup.client.blob(&repository(host), &layer(BYTES), access).await?;
    Ok(read(content.as_ref()))
}

#[rstest]
#[case::other_port("127.0.0.1", 307)]
#[case::other_host("localhost", 302)]
#[case::permanent("localhost", 301)]
#[case::see_other("localhost", 303)]
#[case::permanent_repeated("localhost", 308)]
#[tokio::test]
async fn blobs_may_be_elsewhere_and_credentials_stay(#[case] host: &str, #[case] status: u16) {
    let store = plain(|_| Answer::ok(BYTES)).await;
    let server = redirecting(format!("http://{host}:{}/b?sig=1", store.port()), status).await;
    assert_eq!(
        blob(&server.host(), &with_password(&server.host())).await.unwrap(),
        BYTES
    );
    let asked = store.asked();
    assert_eq!(
        (asked.len(), asked[0].header("authorization"), asked[0].query.as_str()),
        (1, "", "sig=1")
    );
}

#[tokio::test]
async fn credentials_stay_dropped_on_the_way_back() {
    let port = Arc::new(Mutex::new(0));
    let store = plain({
        let port = Arc::clone(&port);
        move |_| Answer::status(307).header("Location", format!("http://127.0.0.1:{}/back", port.lock().unwrap()))
    })
    .await;
    let there = format!("http://127.0.0.1:{}/b", store.port());
    let server = plain(
        move |asked| match (asked.path.as_str(), asked.header("authorization")) {
            ("/back", "") => Answer::ok(BYTES),
            ("/back", _) => Answer::status(500),
            (_, "") => Answer::status(401).header("WWW-Authenticate", r#"Basic realm="acme""#),
            _ => Answer::status(307).header("Location", there.as_str()),
        },
    )
    .await;
    *port.lock().unwrap() = server.port();
    assert_eq!(
        blob(&server.host(), &with_password(&server.host())).await.unwrap(),
        BYTES
    );
}

#[rstest]
#[case::unauthorized(401)]
#[case::forbidden(403)]
#[tokio::test]
async fn a_blob_store_that_asks_for_credentials_gets_none(#[case] status: u16) {
    let store = plain(move |_| Answer::status(status).header("WWW-Authenticate", r#"Basic realm="x""#)).await;
    let server = redirecting(format!("http://127.0.0.1:{}/b", store.port()), 307).await;
    let error = blob(&server.host(), &with_password(&server.host())).await.unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error}");
    assert!(
        store
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_empty())
    );
}

#[rstest]
#[case::metadata("http://169.254.169.254/latest/meta-data", false)]
#[case::metadata_v6("http://[::ffff:169.254.169.254]/", false)]
#[case::file("file:///etc/passwd", true)]
#[case::user("http://user:x@localhost/", true)]
#[case::nothing("", true)]
#[tokio::test]
async fn redirects_to_nowhere_good_are_not_followed(#[case] location: &str, #[case] protocol: bool) {
    let server = redirecting(location.to_owned(), 307).await;
    let error = blob(&server.host(), &with_password(&server.host())).await.unwrap_err();
    match error {
        RegistryError::Protocol { .. } => assert!(protocol),
        RegistryError::AddressRefused { .. } => assert!(!protocol),
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_redirect_from_tls_to_plain_http_is_not_followed() {
    let store = plain(|_| Answer::ok(BYTES)).await;
    let location = format!("http://{}/b", store.host());
    let authority = Authority::new().unwrap();
    let server = secure(&authority, move |_| {
        Answer::status(307).header("Location", location.as_str())
    })
    .await;
    let error = blob(&server.host(), &trusting(&authority)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error}");
    assert_eq!(store.asked(), []);
}

#[tokio::test]
async fn redirects_end() {
    let server = plain(|asked| Answer::status(307).header("Location", asked.path.as_str())).await;
    let error = blob(&server.host(), &insecure()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error}");
    assert_eq!(server.asked().len(), 6);
}

#[tokio::test]
async fn lists_are_not_redirected() {
    let server = plain(|_| Answer::status(307).header("Location", "/elsewhere")).await;
    let error = tags(&setup().client, &repository(&server.host()), &insecure())
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error}");
    assert_eq!(server.asked().len(), 1);
}
