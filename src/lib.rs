//! policy-operator runs Open Policy Agent policies on Kubernetes.
//!
//! > A `PolicyImage` becomes a *verified* bundle where OPA reads it: fetched once, verified by digest and signature,
//! > delivered byte for byte.
//!
//! This page is the architecture. The kind's reference is `docs/policyimage.md`.
//!
//! # Layers
//!
//! ```text
//! bin  →  operator  →  runtime  →  adapters  →  pipeline  →  domain
//! ```
//!
//! | layer | is | must not |
//! |---|---|---|
//! | [`domain`] | values and rules: digests, references, manifests, bundles, trust | do I/O, be async, read clock or environment, know Kubernetes |
//! | [`pipeline`] | the use cases (resolve, verify, acquire), shared between objects, and the ports they need | know HTTP, Kubernetes, files |
#![cfg_attr(
    feature = "adapters",
    doc = "| [`adapters`] | one external system each: today OCI registries. [`adapters::network`] is below them: the address guard, TLS, redirects, retries | decide anything; know each other |"
)]
#![cfg_attr(
    feature = "runtime",
    doc = "| [`runtime`] | what every program needs: logs, listening, health, process metrics, signals, arguments, the set-up of adapters | know Kubernetes, or a program |"
)]
#![cfg_attr(
    feature = "operator",
    doc = "| [`operator`] | Kubernetes: the API, the controller, `render`, leader election, metrics | be known to any other layer |"
)]
//!
//! Imports point one way. From `adapters` up the compiler enforces it: each layer is a feature, a dependency belongs to
//! the lowest layer that uses it, and `make lint` checks each feature alone. `domain` and `pipeline` are always there.
//! `tests/it/layers.rs` enforces the rest: imports between layers and between the files of one folder, which form no
//! cycle, crates that a layer must not name, and messages. Below `runtime` a message states a fact; what to do about it,
//! in the fields and flags of one program, is a hint that the program adds (`operator::hints`).
//!
//! # One run
//!
//! A *run* is one reconciliation of one object, which metrics call `reconcile`. A change of the spec, the annotation that
//! requests a run, an edited or deleted ConfigMap, or the clock wakes an object. `operator::controller::trigger` decides
//! whether there is anything to do. Then, in `operator::steps`, whose files are `dereference`, `validate` and
//! `deliver` (steps 6 and 7); steps 3 to 5 are calls of the pipeline:
//!
//! ```text
//! 1 dereference  kube      PolicyImage              → References                Secrets and ConfigMaps, by name, same namespace
//! 2 validate     pure      PolicyImage + References → Plan                      the last place where the spec can be wrong
//! 3 resolve      pipeline  Plan.source              → Revision                  once; later steps use the digest
//! 4 verify       pipeline  Revision + TrustPolicy   → Verified<Revision>        before one byte of content is fetched
//! 5 open         pipeline  Verified<Revision>       → Verified<PolicyManifest>  says which bundle it must be
//! 6 observe      kube      each of Plan.deliveries  → Observed                  what is there, and whether it is ours; usually
//!                                                                               up to date, with nothing left to do
//! 7 acquire      pipeline  Verified<PolicyManifest> → Verified<Bundle>          bound by digest to what was verified
//!   apply        kube      Verified<Bundle>         → the delivery, such as a ConfigMap
//! 8 status       pure      old status + outcome     → new status                always runs; one patch, none if unchanged
//! ```
//!
//! Steps return errors and never touch conditions. Each error has a reason and says what happens next
//! ([`pipeline::reason::Classify`]); `status` alone turns that into conditions. A new bundle
//! is delivered only after its verification; the last good one is restored at any time: when a ConfigMap was changed,
//! while a run waits for a registry, and after a failure. Status is never trusted: an edited one can neither skip a step
//! nor vouch for a bundle. A write that meets one of another client is no failure but a new run,
//! until that happens again and again. `operator::controller::next_state` alone decides what is remembered of a run, and
//! when the next one is due. `render` is steps 1 to 5 and 7 without a cluster.
//!
//! # Invariants
//!
//! * What OPA can read is one complete bundle, old or new. The last good one stays through every failure.
//! * No unverified byte is delivered if verification is required: delivery takes [`domain::trust::Verified`], which
//!   only [`domain::trust::TrustPolicy::decide`] creates, and which passes to other content only by a matching digest.
//! * The digest that was verified is the digest delivered and the digest in status: one resolution per run.
//! * One object cannot starve another, and no namespace another: capacity is shared between namespaces, a run that
//!   waits for a registry gives its slot back, a host that hangs is waited for once, and each run has a deadline,
//!   backoff and isolation from panics.
//! * One object cannot hide another: of what an API server sends, only the parts in use are decoded, each by itself.
//! * Nothing is touched that is not ours, and nothing of ours is left behind: ownership is an owner reference by UID,
//!   and garbage collection needs no finalizer.
//! * No idle writes and no idle requests: status and ConfigMaps change when content does.
//! * Every write to the cluster uses a client from the one gate that checks leadership, and one writer writes status.
//! * Nothing of one tenant reaches another: everything cached is cached under the [`domain::access::AccessKey`] that
//!   obtained it.
//! * No tenant's bytes end the process: a size is checked before it is requested, lists and values are counted while
//!   they are read, caches weigh bytes, and long work has a bound, a permit, and is cancelled when nobody waits for it.
//! * Secrets are read by name, never listed or watched, and no message, event, metric or log holds one.
//!
//! # Cost
//!
//! Objects that name the same image share one resolution of its tag, one verification and one download
//! ([`pipeline::single_flight`]). Namespaces share no failures. How old a shared result may be depends on the trigger.
//! A run requested by the annotation gets a result from after the request. A run after a change takes one at most two
//! seconds older than the run, and resolves again ten seconds later if it was older than the run at all. A periodic run
//! takes one up to a tenth of the interval old, at least 1 s and at most 30 s. A thousand objects on one image cost the
//! registry a handful of requests, and the API server two writes and one event each.
//!
//! # Where new code goes
//!
//! Another source (Git) is a variant of [`domain::source::Source`] and of [`domain::revision::Revision`], a port in
//! [`pipeline::ports`] and an adapter. Another kind of trust (keyless) is a kind of authority beside the keys in
//! [`domain::trust`]; its evidence is gathered in [`pipeline::verify`] already. Another delivery is a module beside the
//! ConfigMap in `operator::delivery` and a variant of its `Delivery`; what is restored, reported and remembered of it
//! between runs has one place each: `steps::restore`, `status`, and `ObjectState`. A field enters the API when it works.

#[cfg(feature = "adapters")]
pub mod adapters;
pub mod domain;
#[cfg(feature = "operator")]
pub mod operator;
pub mod pipeline;
#[cfg(feature = "runtime")]
pub mod runtime;
