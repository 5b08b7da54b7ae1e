//! Watches, and the loop that turns their events into runs.

use std::convert::Infallible;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Config as ControllerConfig};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event as WatchEvent};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::oneshot;

use super::api::spec::PolicyImage;
use super::api::{FIELD_MANAGER, MANAGED_BY_LABEL};
use super::context::{ConfigMaps, Context, watched};
use super::kube_error::describe;
use super::metrics::{self, Run};
use super::reconcile::hold;
use super::reconcile::memory::{Recollection, Request};
use super::reconcile::outcome::{Failure, Outcome, StepError, Success};
use super::reconcile::schedule::{self, changed, tolerated_age};
use super::reconcile::{self, status, validate};
use super::report;
use crate::domain::source::Selection;
use crate::pipeline::failure::{Classify as _, Reason, chain};
use crate::pipeline::ports::Registry;
use crate::pipeline::shared::FAILURE_SHARED_FOR;

/// The interval of an object whose interval cannot be read.
const DEFAULT_INTERVAL: Duration = Duration::from_mins(5);

/// How long it may take to look after the last good bundle.
const HOLD: Duration = Duration::from_secs(10);

/// How soon an object whose status could not be written is run again.
const STATUS_RETRY: Duration = Duration::from_secs(1);

/// The two watches of one controller, filled by [`run`].
pub struct Watches {
    namespace: Option<String>,
    listed: oneshot::Sender<()>,
    policy_images: (Store<PolicyImage>, reflector::store::Writer<PolicyImage>),
    config_maps: (ConfigMaps, reflector::store::Writer<PartialObjectMeta<ConfigMap>>),
}

/// What the rest of the program sees of the watches.
pub struct View {
    /// Sends when the first list is complete.
    pub listed: oneshot::Receiver<()>,
    /// The objects.
    pub policy_images: Store<PolicyImage>,
}

impl Watches {
    /// Watches of one namespace, or of all.
    #[must_use]
    pub fn new(namespace: Option<String>) -> (Self, View) {
        let (announce, listed) = oneshot::channel();
        let policy_images = reflector::store();
        let view = View {
            listed,
            policy_images: policy_images.0.clone(),
        };
        (
            Self {
                namespace,
                listed: announce,
                policy_images,
                config_maps: reflector::store(),
            },
            view,
        )
    }
}

/// Runs objects until `shutdown`, then waits for the runs under way.
pub async fn run<R: Registry>(
    watches: Watches,
    context: Arc<Context<R>>,
    concurrency: u16,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let Watches {
        namespace,
        listed,
        policy_images: (store, writer),
        config_maps: (config_maps, config_map_writer),
    } = watches;
    let (forgetful, mut listed) = (Arc::clone(&context), Some(listed));
    let objects = api(&context.client, namespace.as_deref());
    let triggers = watch(objects, watcher::Config::default())
        .default_backoff()
        .modify(|object: &mut PolicyImage| object.managed_fields_mut().clear())
        .reflect(writer)
        .inspect_ok(move |event| match event {
            WatchEvent::Delete(object) => forget(&forgetful, object),
            // Whoever waits for it may be gone by now, on the way out.
            WatchEvent::InitDone => drop(listed.take().map(|listed| listed.send(()))),
            WatchEvent::Apply(_) | WatchEvent::Init | WatchEvent::InitApply(_) => {}
        })
        .applied_objects()
        .predicate_filter(worth_a_run, PredicateConfig::default());
    let owned = owned_config_maps(&context, namespace.as_deref(), config_map_writer);
    let reconciler = move |object: Arc<PolicyImage>, context: Arc<Context<R>>| {
        let config_maps = config_maps.clone();
        async move { Ok::<_, Infallible>(reconcile_one(&object, &context, &config_maps).await) }
    };
    Controller::for_stream(triggers, store)
        .owns_stream(owned)
        .with_config(ControllerConfig::default().concurrency(concurrency))
        .graceful_shutdown_on(shutdown)
        .run(reconciler, |_, _: &Infallible, _| Action::await_change(), context)
        .for_each(async |result| {
            if let Err(error) = result {
                log_trigger(&error);
            }
        })
        .await;
}

/// A trigger for an object that is gone by now is nothing; a watch that fails is.
fn log_trigger<E: std::error::Error + 'static>(error: &kube::runtime::controller::Error<Infallible, E>) {
    if matches!(error, kube::runtime::controller::Error::ObjectNotFound(_)) {
        tracing::debug!(error = chain(error), "the object is gone");
    } else {
        tracing::warn!(error = chain(error), "a watch failed and is started again");
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// A change of the spec or of the annotation that asks for a run. Our own status patches change neither.
#[expect(clippy::unnecessary_wraps, reason = "the signature of a predicate")]
fn worth_a_run(object: &PolicyImage) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    (
        &object.metadata.uid,
        object.metadata.generation,
        status::requested_at(object),
    )
        .hash(&mut hasher);
    Some(hasher.finish())
}

fn forget<R>(context: &Context<R>, object: &PolicyImage) {
    let namespace = object.namespace().unwrap_or_default();
    context
        .memory
        .forget(&namespace, &object.name_any(), &object.uid().unwrap_or_default());
}

/// ConfigMaps that somebody else changed or deleted. What we wrote ourselves is passed over.
fn owned_config_maps<R: Registry>(
    context: &Arc<Context<R>>,
    namespace: Option<&str>,
    writer: reflector::store::Writer<PartialObjectMeta<ConfigMap>>,
) -> impl Stream<Item = Result<PartialObjectMeta<ConfigMap>, watcher::Error>> + use<R> {
    let api: Api<PartialObjectMeta<ConfigMap>> = api(&context.client, namespace);
    let selector = format!("{MANAGED_BY_LABEL}={FIELD_MANAGER}");
    let context = Arc::clone(context);
    watch(api, watcher::Config::default().labels(&selector))
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects()
        .try_filter(move |object| {
            let ours = object.metadata.owner_references.iter().flatten().any(|owner| {
                context
                    .memory
                    .wrote(&object.namespace().unwrap_or_default(), &owner.name, &object.metadata)
            });
            std::future::ready(!ours)
        })
}

/// One run and everything around it: a slot, the deadline, a net for panics, status, event, metrics, the next run.
async fn reconcile_one<R: Registry>(
    object: &PolicyImage,
    context: &Arc<Context<R>>,
    config_maps: &ConfigMaps,
) -> Action {
    let Ok(_slot) = context.slots.acquire().await else {
        return Action::await_change();
    };
    if object.metadata.deletion_timestamp.is_some() || !context.may_write() {
        return Action::await_change();
    }
    let (namespace, name, uid) = (
        object.namespace().unwrap_or_default(),
        object.name_any(),
        object.uid().unwrap_or_default(),
    );
    let mut recollection = context.memory.recall(&namespace, &name, &uid);
    let target = validate::target(object).ok();
    let watched = target
        .as_ref()
        .and_then(|target| watched(config_maps, &target.namespace, &target.name));
    let request = Request {
        generation: object.metadata.generation,
        requested_at: status::requested_at(object),
    };
    if let Some(left) = recollection.idle(&request, target.as_ref(), watched.as_ref(), Instant::now()) {
        return Action::requeue(left);
    }
    let measured = context.metrics.run();
    let interval = validate::interval(&object.spec).unwrap_or(DEFAULT_INTERVAL);
    let outcome = if object.spec.suspend {
        Outcome::Suspended
    } else {
        let outcome = bounded(object, context, watched.as_ref(), &mut recollection, interval).await;
        held(object, context, watched.as_ref(), &mut recollection, outcome).await
    };
    recollection.failures = if matches!(outcome, Outcome::Failure(_)) {
        recollection.failures + 1
    } else {
        0
    };
    log(&namespace, &name, &outcome);
    let written = report(object, context, &outcome).await;
    count(measured, &outcome);
    let recheck = recollection.recheck.is_some();
    let planned = schedule::delay(&outcome, interval, recollection.failures, recheck, fastrand::f64());
    let next = if written { planned } else { Some(STATUS_RETRY) };
    // Without a written status the next run must not take this one for done.
    recollection.answered = next.filter(|_| written).map(|next| (request, Instant::now() + next));
    context.memory.keep(&namespace, &name, recollection);
    next.map_or_else(Action::await_change, Action::requeue)
}

/// How old the answer about the tag may be: what failed, and what somebody asks for, is asked anew; what only the clock
/// asks for may be shared with others.
fn not_before(object: &PolicyImage, recollection: &Recollection, interval: Duration) -> Instant {
    let age = if recollection.failures > 0 || changed(object) {
        FAILURE_SHARED_FOR
    } else {
        tolerated_age(interval)
    };
    let oldest = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
    recollection.recheck.map_or(oldest, |recheck| oldest.max(recheck))
}

/// Steps 1 to 7 within the deadline. A panic ends this run and nothing else.
async fn bounded<R: Registry>(
    object: &PolicyImage,
    context: &Context<R>,
    watched: Option<&ObjectMeta>,
    recollection: &mut Recollection,
    interval: Duration,
) -> Outcome {
    let not_before = not_before(object, recollection, interval);
    let deadline = validate::timeout(&object.spec).unwrap_or(validate::DEFAULT_TIMEOUT);
    let run = async {
        let Context {
            client,
            objects,
            pipeline,
            rules,
            ..
        } = context;
        let started = Instant::now();
        let planned = reconcile::plan(object, objects, *rules).await;
        if let Ok(plan) = &planned {
            recollection.forget_what_is_not_admitted_by(&plan.trust);
        }
        let proved = match planned {
            Ok(plan) => reconcile::prove(plan, pipeline, not_before).await,
            Err(error) => Err(error),
        };
        // An answer from before this run may miss the push or the signature that made somebody ask for the run.
        let older = proved.as_ref().map_or(true, |proved| {
            !matches!(proved.plan.source.selection(), Selection::Digest(_)) && proved.asked < started
        });
        recollection.recheck = (older && changed(object)).then_some(started);
        reconcile::settle(object, client, pipeline, &proved?, recollection, watched).await
    };
    let run = AssertUnwindSafe(run).catch_unwind();
    match tokio::time::timeout(deadline, run).await {
        Ok(Ok(Ok(success))) => Outcome::Success(Box::<Success>::new(success)),
        Ok(Ok(Err(failure))) => Outcome::Failure(failure),
        Ok(Err(_)) => {
            context.metrics.panicked();
            Outcome::Failure(Failure::from(StepError::Panic))
        }
        Err(_) => Outcome::Failure(Failure::from(StepError::PassDeadline(deadline))),
    }
}

/// A run that failed may not have got as far as the target.
async fn held<R>(
    object: &PolicyImage,
    context: &Context<R>,
    watched: Option<&ObjectMeta>,
    recollection: &mut Recollection,
    outcome: Outcome,
) -> Outcome {
    let Outcome::Failure(failure) = outcome else {
        return outcome;
    };
    let held = hold::hold(&context.client, object, &failure.error, recollection, watched);
    let lost = tokio::time::timeout(HOLD, held).await.is_ok_and(|held| !held);
    Outcome::Failure(Failure { lost, ..failure })
}

/// Step 8. False where the status could not be written and must be tried again.
async fn report<R>(object: &PolicyImage, context: &Context<R>, outcome: &Outcome) -> bool {
    if !context.may_write() {
        return true;
    }
    let new = status::next(object, outcome, Timestamp::now());
    match report::patch_status(&context.client, object, &new).await {
        Ok(_) => {
            if let Some(event) = report::event(object, &new) {
                report::publish(&context.client, &context.reporter, object, &event).await;
            }
            true
        }
        // Deleted meanwhile: there is nobody left to tell.
        Err(kube::Error::Api(status)) if status.code == 404 => true,
        // Changed meanwhile: the run that follows speaks about the newer version.
        Err(kube::Error::Api(status)) if status.code == 409 => false,
        Err(error) => {
            tracing::warn!(
                error = describe(&error),
                object = object.name_any(),
                "the status was not written"
            );
            false
        }
    }
}

fn log(namespace: &str, name: &str, outcome: &Outcome) {
    match outcome {
        Outcome::Suspended => tracing::debug!(namespace, name, "suspended"),
        Outcome::Success(success) => {
            let (digest, delivered) = (success.revision.digest, success.bundle.is_some());
            if delivered {
                tracing::info!(namespace, name, %digest, "delivered");
            } else {
                tracing::debug!(namespace, name, %digest, "unchanged");
            }
        }
        Outcome::Failure(failure) => {
            let (reason, error) = (failure.error.reason().as_str(), chain(&failure.error));
            tracing::warn!(namespace, name, reason, error, "not reconciled");
        }
    }
}

fn count(measured: Run, outcome: &Outcome) {
    match outcome {
        Outcome::Suspended => measured.ended(Reason::Suspended, metrics::Outcome::Success),
        Outcome::Success(_) => measured.ended(Reason::Succeeded, metrics::Outcome::Success),
        Outcome::Failure(failure) => measured.ended(failure.error.reason(), failure.error.disposition().into()),
    }
}
