//! The registry client against real registries, and against one that lies.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use policy_operator::adapters::network::{EgressPolicy, Timeouts};
use policy_operator::adapters::registry::observer::{RequestKind, RequestObserver};
use policy_operator::adapters::registry::{AllowedHosts, RegistryClient, RegistryOptions};
use policy_operator::domain::access::{Keyring, RegistryAccess, TransportSettings};
use policy_operator::domain::artifact::Descriptor;
use policy_operator::domain::bundle::Content;
use policy_operator::domain::digest::Digest;
use policy_operator::domain::reference::{ImageReference, Repository, Tag};
use policy_operator::pipeline::ports::{ManifestName, Registry, RegistryError};
use policy_operator_harness::scripted::{Answer, Asked, Scripted, Transport};
use tempfile::TempDir;

mod content;
mod lists;
mod login;
mod network;
mod outages;
mod patience;
mod real;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// In every credential of these tests; must never be seen anywhere.
const CANARY: &str = "canary-7d1f";

/// A client with a cache of its own.
struct Setup {
    client: RegistryClient,
    seen: Arc<Seen>,
    _directory: TempDir,
}

/// What the client said it did.
#[derive(Debug, Default)]
struct Seen {
    requests: Mutex<Vec<(RequestKind, Option<u16>)>>,
    cache: Mutex<Vec<bool>>,
}

impl RequestObserver for Seen {
    fn request(&self, kind: RequestKind, status: Option<u16>) {
        self.requests.lock().unwrap().push((kind, status));
    }

    fn blob_cache(&self, hit: bool) {
        self.cache.lock().unwrap().push(hit);
    }

    fn downloaded(&self, _bytes: u64) {}
}

/// A client that may use loopback, and does not wait long.
fn setup() -> Setup {
    setup_with(EgressPolicy::new(false, true, Vec::new()))
}

fn setup_with(egress: EgressPolicy) -> Setup {
    setup_allowing(egress, AllowedHosts::default())
}

fn setup_allowing(egress: EgressPolicy, allowed_hosts: AllowedHosts) -> Setup {
    policy_operator_harness::init();
    let directory = tempfile::tempdir().unwrap();
    let seen = Arc::new(Seen::default());
    let mut options = RegistryOptions::new("policy-operator", directory.path(), egress);
    options.allowed_hosts = allowed_hosts;
    options.observer = Arc::clone(&seen) as Arc<dyn RequestObserver>;
    options.timeouts = Timeouts {
        connect: Duration::from_secs(5),
        idle: Duration::from_millis(700),
    };
    Setup {
        client: RegistryClient::new(options).unwrap(),
        seen,
        _directory: directory,
    }
}

async fn plain(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Scripted {
    Scripted::start(Transport::Plain, script).await.unwrap()
}

/// All tags, in order.
async fn tags(
    client: &RegistryClient,
    repository: &Repository,
    access: &RegistryAccess,
) -> Result<Vec<Tag>, RegistryError> {
    let mut tags = Vec::new();
    let count = Registry::tags(client, repository, access, &mut |tag| tags.push(tag)).await?;
    assert!(tags.len() <= count, "{count}");
    tags.sort();
    Ok(tags)
}

fn repository(host: &str) -> Repository {
    let reference: ImageReference = format!("{host}/acme/policy").parse().unwrap();
    reference.repository().clone()
}

fn insecure() -> RegistryAccess {
    RegistryAccess {
        transport: plain_http(),
        ..RegistryAccess::default()
    }
}

fn plain_http() -> TransportSettings {
    TransportSettings {
        insecure: true,
        ..TransportSettings::default()
    }
}

/// Plain HTTP with the entries of a Docker configuration.
fn with_auths(auths: &str) -> RegistryAccess {
    RegistryAccess {
        keyring: Keyring::from_docker_config(format!(r#"{{"auths":{auths}}}"#).as_bytes()).unwrap(),
        transport: plain_http(),
        ..RegistryAccess::default()
    }
}

fn with_password(host: &str) -> RegistryAccess {
    with_auths(&format!(r#"{{"{host}":{{"username":"acme","password":"{CANARY}"}}}}"#))
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn tagged(text: &str) -> ManifestName {
    ManifestName::Tag(tag(text))
}

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        artifact_type: None,
        annotations: std::collections::BTreeMap::new(),
    }
}

fn read(content: &dyn Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut content.open().unwrap(), &mut bytes).unwrap();
    bytes
}

fn manifest_answer(bytes: &[u8]) -> Answer {
    Answer::ok(bytes).header("Content-Type", MANIFEST)
}
