//! Condition types.
//!
//! They are API, compatible with kstatus: `kubectl wait`, Flux and Argo CD understand them without configuration. Each
//! carries the `observedGeneration` that it describes.

/// The policy that the spec names is verified as required and delivered.
///
/// * True: it is. * False: it is not; the reason says why, `status.bundle` says what stays delivered. * Unknown:
///   suspended. * Absent: the object has not been reconciled yet.
pub const READY: &str = "Ready";

/// The content that `status.source` names is signed as `spec.verify` requires.
///
/// * True: enough authorities signed it. * False, reason `NotConfigured`: no signature is required. * False, other
///   reasons: what the image resolves to now is not verified and was not delivered. * Unknown: signatures could not be
///   looked up, or the first run failed before; a later run that fails before leaves the condition as it was. * Absent:
///   the object has not been reconciled yet.
pub const VERIFIED: &str = "Verified";

/// The ConfigMap holds the bundle that `status.bundle` names.
///
/// * True: it does, be it the newest or the last good one. * False: nothing was delivered yet, or what was is
///   not there any more and cannot be restored. * Unknown: a run failed, and it could not be determined whether what was
///   delivered is still there. * Absent: the object has not been reconciled yet.
pub const DELIVERED: &str = "Delivered";

/// A run failed and will be retried soon. True or absent.
pub const RECONCILING: &str = "Reconciling";

/// Only a change by a user helps; the object is still reconciled at every interval. True or absent.
pub const STALLED: &str = "Stalled";
