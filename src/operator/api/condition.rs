//! Condition types.
//!
//! They are API, compatible with kstatus: `kubectl wait`, Flux and Argo CD understand them without configuration. Each
//! carries the `observedGeneration` that it speaks about.

/// The policy that the spec asks for is proved as asked and delivered.
///
/// * True: it is. * False: it is not; the reason says why, `status.bundle` says what serves meanwhile. * Unknown:
///   suspended. * Absent: the object has not been looked at yet.
pub const READY: &str = "Ready";

/// The content that `status.source` names is signed as `spec.verify` asks.
///
/// * True: enough authorities signed it. * False, reason `NotConfigured`: nothing was asked for. * False, other reasons:
///   what the image resolves to now is not proved and was not delivered. * Unknown: it could not be looked up, or the first
///   run failed before; a later run that fails before leaves the condition as it was. * Absent: the object has not been
///   looked at yet.
pub const VERIFIED: &str = "Verified";

/// The ConfigMap holds the bundle that `status.bundle` names.
///
/// * True: it does, be it the newest or the last good one. * False: nothing was delivered yet, or what was is
///   not there any more and cannot be put back. * Absent: the object has not been looked at yet.
pub const DELIVERED: &str = "Delivered";

/// A run failed and will be repeated soon. True or absent.
pub const RECONCILING: &str = "Reconciling";

/// Nothing but a change by somebody helps; the object is still looked at again at every interval. True or absent.
pub const STALLED: &str = "Stalled";
