//! All five questions, to registries that people run.

use policy_operator::pipeline::ports::{ManifestName, Registry as _, RegistryError};
use policy_operator_harness::image::{Bundle, PolicyImage};
use policy_operator_harness::registry::InProcessOptions;
use policy_operator_harness::registry::{Credentials, Distribution, DistributionOptions, Endpoint, InProcess};
use policy_operator_harness::tls::Authority;
use serde_json::json;

use super::*;

async fn ask_everything(endpoint: &Endpoint, access: &RegistryAccess) {
    let bundle = Bundle::answering("yes").unwrap();
    let image = PolicyImage::new(Bundle(bundle.0.clone()));
    let pushed = image.push(endpoint, "acme/policy", "1.0").await.unwrap();
    let setup = setup();
    let (client, repository) = (&setup.client, repository(&endpoint.host));

    let digest = client.resolve(&repository, &tag("1.0"), access).await.unwrap();
    assert_eq!(digest.to_string(), pushed.digest);
    let by_digest = client
        .manifest(&repository, &ManifestName::Digest(digest), access)
        .await
        .unwrap();
    let by_tag = client.manifest(&repository, &tagged("1.0"), access).await.unwrap();
    assert_eq!(by_digest, by_tag);
    assert_eq!((by_tag.digest, by_tag.media_type.as_str()), (digest, MANIFEST));
    assert_eq!(tags(client, &repository, access).await.unwrap(), [tag("1.0")]);
    assert_eq!(client.referrers(&repository, &digest, access).await.unwrap(), []);

    let content = client.blob(&repository, &layer(&bundle.0), access).await.unwrap();
    assert_eq!(read(content.as_ref()), bundle.0);
    client.blob(&repository, &layer(&bundle.0), access).await.unwrap();
    assert_eq!(*setup.seen.cache.lock().unwrap(), [false, true]);

    let missing = client.resolve(&repository, &tag("2.0"), access).await.unwrap_err();
    assert!(
        matches!(missing, RegistryError::NotFound { ref resource, .. } if resource == "acme/policy:2.0"),
        "{missing}"
    );
    let missing = client
        .blob(&repository, &layer(b"never pushed"), access)
        .await
        .unwrap_err();
    assert!(matches!(missing, RegistryError::NotFound { .. }), "{missing}");
}

#[tokio::test]
async fn distribution_answers_all_questions() {
    let registry = Distribution::start(DistributionOptions::default()).await.unwrap();
    ask_everything(registry.endpoint(), &insecure()).await;
}

#[tokio::test]
async fn distribution_with_tls_a_password_and_client_certificates_does_too() {
    let authority = Authority::new().unwrap();
    let credentials = Credentials {
        user: "acme".to_owned(),
        password: CANARY.to_owned(),
    };
    let options = DistributionOptions {
        tls: Some(&authority),
        credentials: Some(credentials),
        ..DistributionOptions::default()
    };
    let registry = Distribution::start(options).await.unwrap();
    let access = RegistryAccess {
        transport: TransportSettings {
            authorities_pem: Some(authority.certificate()),
            ..TransportSettings::default()
        },
        ..with_password(registry.host())
    };
    ask_everything(registry.endpoint(), &access).await;
}

#[tokio::test]
async fn a_registry_with_tokens_and_referrers_answers_all_questions() {
    let user = Credentials {
        user: "acme".to_owned(),
        password: CANARY.to_owned(),
    };
    let options = InProcessOptions {
        token_user: Some(user),
        ..InProcessOptions::default()
    };
    let registry = InProcess::start(options).await.unwrap();
    let access = with_password(registry.host());
    ask_everything(registry.endpoint(), &access).await;
    // One token serves all requests of that client.
    assert_eq!(registry.take_counts().get("token"), Some(&1));
}

#[tokio::test]
async fn referrers_are_found_by_the_api_and_by_the_fallback_tag() {
    let with_api = InProcess::start(InProcessOptions::default()).await.unwrap();
    let without_api = Distribution::start(DistributionOptions::default()).await.unwrap();
    for endpoint in [with_api.endpoint(), without_api.endpoint()] {
        let image = PolicyImage::new(Bundle::answering("yes").unwrap());
        let pushed = image.push(endpoint, "acme/policy", "1.0").await.unwrap();
        let subject: Digest = pushed.digest.parse().unwrap();
        let empty = endpoint.push_blob("acme/policy", b"{}").await.unwrap();
        let config = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2});
        let signature = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.acme.signature",
            "config": config, "layers": [config],
            "subject": {"mediaType": MANIFEST, "digest": pushed.digest, "size": 1},
        });
        let bytes = signature.to_string();
        let digest = endpoint
            .push_manifest(
                "acme/policy",
                &Digest::of(bytes.as_bytes()).to_string(),
                MANIFEST,
                bytes.as_bytes(),
            )
            .await
            .unwrap();
        if endpoint.host == without_api.endpoint().host {
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
                {"mediaType": MANIFEST, "digest": digest, "size": bytes.len(), "artifactType": "application/vnd.acme.signature"},
            ]});
            let name = Tag::referrers_fallback(&subject);
            endpoint
                .push_manifest("acme/policy", name.as_str(), INDEX, index.to_string().as_bytes())
                .await
                .unwrap();
        }
        let found = setup()
            .client
            .referrers(&repository(&endpoint.host), &subject, &insecure())
            .await
            .unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].digest.to_string(), found[0].size),
            (digest, bytes.len() as u64)
        );
        assert_eq!(
            found[0].artifact_type.as_deref(),
            Some("application/vnd.acme.signature")
        );
    }
}
