//! What there is to break, and what must hold once it is whole again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use policy_operator_harness::clock::Clock;
use policy_operator_harness::cluster::{AuditEntry, ControlPlane, OPERATOR_NAMESPACE};
use policy_operator_harness::faulty_proxy::FaultyProxy;
use policy_operator_harness::image::{Bundle, PolicyImage, Pushed};
use policy_operator_harness::object;
use policy_operator_harness::operator::{Operator, OperatorOptions, resident_bytes};
use policy_operator_harness::registry::{Distribution, DistributionOptions, Endpoint, InProcess, InProcessOptions};
use policy_operator_harness::tls::Authority;
use policy_operator_harness::wait;
use serde_json::{Value, json};

use super::watcher::Watcher;

const OBJECTS: usize = 12;
/// How long it may take until all is well after the last fault: a Lease, a backoff and a busy machine.
const SETTLE: Duration = Duration::from_mins(4);
/// How long nothing may be written once all is well: longer than the interval of every object.
const REST: Duration = Duration::from_secs(12);
/// How long the API server may need for a patch.
const REACHABLE: Duration = Duration::from_secs(30);
/// How long to wait between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// What a process holds.
#[derive(Debug)]
pub(super) struct Footprint {
    pub(super) descriptors: usize,
    pub(super) resident_bytes: u64,
}

pub(super) struct World {
    pub(super) random: fastrand::Rng,
    pub(super) cluster: ControlPlane,
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) registry: InProcess,
    pub(super) to_registry: FaultyProxy,
    /// A registry with TLS, for every second object, so that handshakes fail and stall, too.
    tls_registry: Distribution,
    pub(super) to_tls_registry: FaultyProxy,
    pub(super) to_api_server: FaultyProxy,
    pub(super) clock: Clock,
    pub(super) replicas: Vec<Operator>,
    pub(super) watcher: Watcher,
    pub(super) counts: BTreeMap<&'static str, u64>,
    kubeconfig: PathBuf,
    /// What each object's tag names now.
    named: BTreeMap<String, (Pushed, Vec<u8>)>,
    /// The last request for a run of each object.
    requested: BTreeMap<String, String>,
    versions: u64,
}

impl World {
    pub(super) async fn open(seed: u64) -> Self {
        let cluster = ControlPlane::start().await.expect("control plane");
        let namespace = cluster.namespace("chaos").await.expect("namespace");
        let client = cluster.client().await.expect("client");
        let registry = InProcess::start(InProcessOptions::default()).await.expect("registry");
        let to_registry = FaultyProxy::start(registry.host().to_owned(), seed)
            .await
            .expect("proxy");
        let authority = Authority::new().expect("authority");
        let tls_registry = start_tls_registry(&authority).await;
        let to_tls_registry = FaultyProxy::start(tls_registry.host().to_owned(), seed)
            .await
            .expect("proxy");
        let api_server = format!("127.0.0.1:{}", cluster.port());
        let to_api_server = FaultyProxy::start(api_server.clone(), !seed).await.expect("proxy");
        let direct = cluster.operator_kubeconfig().await.expect("kubeconfig");
        let text = std::fs::read_to_string(direct).expect("kubeconfig");
        let text = text.replace(&api_server, &to_api_server.host());
        let kubeconfig = cluster
            .directory()
            .write("through-the-proxy.kubeconfig", text)
            .expect("written");
        let clock = Clock::new(cluster.directory()).await.expect("clock");
        let mut world = Self {
            random: fastrand::Rng::with_seed(seed),
            watcher: Watcher::start(client.clone(), &namespace),
            cluster,
            client,
            namespace,
            registry,
            to_registry,
            tls_registry,
            to_tls_registry,
            to_api_server,
            clock,
            replicas: Vec::new(),
            counts: BTreeMap::new(),
            kubeconfig,
            named: BTreeMap::new(),
            requested: BTreeMap::new(),
            versions: 0,
        };
        world.publish(&authority).await;
        for number in 0..OBJECTS {
            world.create(&format!("app-{number}")).await;
        }
        for _ in 0..2 {
            let replica = world.launch();
            world.replicas.push(replica);
        }
        world
    }

    pub(super) fn launch(&self) -> Operator {
        let options = OperatorOptions {
            binary: env!("CARGO_BIN_EXE_policy-operator").into(),
            kubeconfig: self.kubeconfig.clone(),
            namespaces: vec![self.namespace.clone()],
            arguments: ["--leader-elect", "--leader-elect-namespace", OPERATOR_NAMESPACE]
                .map(str::to_owned)
                .to_vec(),
            environment: self.clock.environment(),
            ..OperatorOptions::default()
        };
        Operator::start(&options).expect("operator")
    }

    /// Puts the authority of the registry with TLS where specs name it.
    async fn publish(&self, authority: &Authority) {
        let ca = json!({ "metadata": { "name": "ca" }, "data": { "ca.crt": authority.certificate() } });
        let ca = serde_json::from_value(ca).expect("ConfigMap");
        let config_maps = self.config_maps();
        config_maps.create(&PostParams::default(), &ca).await.expect("created");
    }

    async fn create(&mut self, name: &str) {
        self.move_tag(name).await;
        let (proxy, insecure) = if uses_tls(name) {
            (&self.to_tls_registry, false)
        } else {
            (&self.to_registry, true)
        };
        let image = format!("{}/acme/{name}:stable", proxy.host());
        let mut spec = json!({ "image": image, "insecure": insecure, "interval": "10s", "timeout": "5s" });
        if !insecure {
            spec["tls"] = json!({ "caRef": { "configMapRef": { "name": "ca", "key": "ca.crt" } } });
        }
        let data = json!({ "spec": spec });
        let object = DynamicObject::new(name, &object::resource()).data(data);
        self.images()
            .create(&PostParams::default(), &object)
            .await
            .expect("created");
    }

    /// Pushes another bundle under the tag of an object, past the proxy.
    pub(super) async fn move_tag(&mut self, name: &str) {
        self.versions += 1;
        let bundle = Bundle::answering(&format!("{name} {}", self.versions)).expect("bundle");
        let bytes = bundle.0.clone();
        self.watcher.allow(&format!("{name}-bundle"), bytes.clone());
        let image = PolicyImage::new(bundle);
        let repository = format!("acme/{name}");
        let registry: &Endpoint = if uses_tls(name) {
            self.tls_registry.endpoint()
        } else {
            self.registry.endpoint()
        };
        let pushed = image.push(registry, &repository, "stable").await.expect("pushed");
        self.named.insert(name.to_owned(), (pushed, bytes));
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.named.keys().cloned().collect()
    }

    pub(super) fn any_name(&mut self) -> String {
        format!("app-{}", self.random.usize(0..OBJECTS))
    }

    pub(super) fn images(&self) -> Api<DynamicObject> {
        object::api(self.client.clone(), &self.namespace)
    }

    pub(super) fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Merges `patch` into an object. Again if that fails: connections from before a restart of the API server end
    /// under the request that uses them next.
    pub(super) async fn patch(&self, name: &str, patch: Value) {
        let parameters = PatchParams {
            field_manager: Some("chaos-test".to_owned()),
            ..PatchParams::default()
        };
        let (images, patch) = (self.images(), Patch::Merge(patch));
        let attempt = || async { Ok(Some(images.patch(name, &parameters, &patch).await?)) };
        let patched = wait::until("patched", REACHABLE, PAUSE, attempt).await;
        patched.expect("the API server is there");
    }

    /// Waits until every object says and delivers what its tag names, and the status is about the newest generation and
    /// the last request.
    pub(super) async fn settle(&mut self) {
        for name in self.names() {
            self.request(&name).await;
        }
        let end = Instant::now() + SETTLE;
        while let Some(problem) = self.unsettled().await.unwrap_or_else(|error| Some(error.to_string())) {
            let logs = self.replicas.iter().map(|replica| end_of(&replica.log_text()));
            assert!(
                Instant::now() < end,
                "not settled in {SETTLE:?}: {problem}\n{}",
                logs.collect::<Vec<_>>().join("\n--- the other replica\n")
            );
            // The last faults may have cost one its Lease.
            self.replace_ended();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks for a run by the annotation.
    pub(super) async fn request(&mut self, name: &str) {
        let request = format!("request {}", self.random.u64(..));
        let annotations = json!({ "reconcile.opcr.io/requestedAt": request });
        self.requested.insert(name.to_owned(), request);
        self.patch(name, json!({ "metadata": { "annotations": annotations } }))
            .await;
    }

    async fn unsettled(&self) -> kube::Result<Option<String>> {
        for (name, (pushed, bytes)) in &self.named {
            let object = self.images().get(name).await?;
            let status = &object.data["status"];
            let ready = object::condition(&object, "Ready").map(|condition| condition.status);
            let is_current = status["observedGeneration"].as_i64() == object.metadata.generation
                && status["lastHandledReconcileAt"].as_str() == self.requested.get(name).map(String::as_str);
            if ready.as_deref() != Some("True") || !is_current || status["source"]["digest"] != json!(pushed.digest) {
                return Ok(Some(format!("{name} should be at {}: {status}", pushed.digest)));
            }
            let config_map = self.config_maps().get_opt(&format!("{name}-bundle")).await?;
            let data = config_map
                .and_then(|config_map| config_map.binary_data)
                .unwrap_or_default();
            let held: Vec<_> = data.values().map(|value| &value.0).collect();
            if held != [bytes] {
                return Ok(Some(format!("ConfigMap of {name} does not hold what status says")));
            }
        }
        Ok(None)
    }

    /// What the replica holds that holds most.
    pub(super) fn footprint(&mut self) -> Footprint {
        let mut found = Footprint {
            descriptors: 0,
            resident_bytes: 0,
        };
        for held in self.footprints().into_values() {
            found.descriptors = found.descriptors.max(held.descriptors);
            found.resident_bytes = found.resident_bytes.max(held.resident_bytes);
        }
        found
    }

    /// What each replica that runs holds, by its process.
    pub(super) fn footprints(&mut self) -> BTreeMap<i32, Footprint> {
        let ids = self.replicas.iter_mut().map(|replica| replica.process().id());
        let held = |id: i32| {
            let descriptors = std::fs::read_dir(format!("/proc/{id}/fd")).ok()?.count();
            let resident_bytes = resident_bytes(id).ok()?;
            Some((
                id,
                Footprint {
                    descriptors,
                    resident_bytes,
                },
            ))
        };
        ids.filter_map(held).collect()
    }

    /// No idle writes: not to ConfigMaps, not to status, no events. The last event may still be on its way.
    pub(super) async fn comes_to_rest(&self) {
        let of_objects = |entry: &AuditEntry| entry.is_write() && entry.resource != "leases";
        let writes = || self.cluster.audit(of_objects);
        let attempt = || async {
            let before = writes()?.len();
            tokio::time::sleep(REST).await;
            match writes()?.get(before..).unwrap_or_default() {
                [] => Ok(Some(())),
                idle => Err(std::io::Error::other(format!("writes after all was settled: {idle:#?}")).into()),
            }
        };
        let rested = wait::until("nothing is written", REST, PAUSE, attempt).await;
        rested.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Whatever happened, the operator wrote a ConfigMap only where there was something new to write: a tag had moved, or
    /// somebody had edited or deleted it. Kills, faults and takeovers are no reason.
    pub(super) fn writes_have_reasons(&self) {
        let count = |act: &str| self.counts.get(act).copied().unwrap_or_default();
        // Removing a key that others added, and putting right the rest, are two writes.
        let reasons = self.versions + 2 * count("ConfigMaps edited") + count("ConfigMaps deleted");
        let written =
            |entry: &AuditEntry| entry.resource == "configmaps" && entry.is_write() && (200..300).contains(&entry.code);
        let writes = self.cluster.audit(written).expect("audit log").len() as u64;
        println!("{writes} writes of ConfigMaps, {reasons} reasons");
        assert!(
            writes <= reasons,
            "{writes} writes of ConfigMaps, but only {reasons} reasons"
        );
    }

    pub(super) fn summary(&self) -> String {
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|(act, count)| format!("{count} {act}"))
            .collect();
        format!(
            "{}; {} versions of ConfigMaps seen",
            counts.join(", "),
            self.watcher.versions()
        )
    }

    /// The name of a ConfigMap that is there, if any is.
    pub(super) async fn any_config_map(&mut self) -> Option<String> {
        let name = format!("{}-bundle", self.any_name());
        let found = self.config_maps().get_opt(&name).await.ok().flatten()?;
        Some(found.name_any())
    }
}

async fn start_tls_registry(authority: &Authority) -> Distribution {
    let options = DistributionOptions {
        tls: Some(authority),
        ..DistributionOptions::default()
    };
    Distribution::start(options).await.expect("registry")
}

/// Every second object has the registry with TLS.
fn uses_tls(name: &str) -> bool {
    name.ends_with(['1', '3', '5', '7', '9'])
}

fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
