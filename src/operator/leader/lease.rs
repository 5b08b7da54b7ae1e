//! What to do about a Lease: pure, with explicit instants.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

/// What one candidate has seen of the Lease.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The version seen last, and when it was seen *first*.
    seen: Option<(Option<String>, Instant)>,
    /// What our own last write returned, while nothing failed since.
    own: Option<Lease>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    /// There is no Lease: create it.
    Create,
    /// It is ours, free or expired: replace exactly this version of it.
    Hold {
        /// The Lease as it was read.
        lease: Box<Lease>,
    },
    /// Another candidate holds it.
    Wait {
        /// Who.
        holder: String,
    },
}

impl View {
    /// Decides from the Lease as it is, seen at `now`.
    pub(super) fn decide(&mut self, identity: &str, lease: Option<Lease>, now: Instant) -> Decision {
        let Some(lease) = lease else {
            self.seen = None;
            return Decision::Create;
        };
        let version = lease.metadata.resource_version.clone();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => now,
        };
        self.seen = Some((version, since));
        match holder(&lease) {
            Some(holder) if holder != identity && now.duration_since(since) < duration(&lease) => Decision::Wait {
                holder: holder.to_owned(),
            },
            _ => Decision::Hold { lease: Box::new(lease) },
        }
    }

    /// Stores what our write returned.
    pub(super) fn keep_own(&mut self, lease: Lease) {
        self.own = Some(lease);
    }

    /// What our last write returned. Taken, so that the Lease is read again unless the next write succeeds too.
    pub(super) fn take_own(&mut self) -> Option<Lease> {
        self.own.take()
    }
}

/// Who holds the Lease. Releasing writes an empty holder.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease
        .spec
        .as_ref()?
        .holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

/// The duration that the *holder* set: it may be configured differently than we are.
fn duration(lease: &Lease) -> Duration {
    let seconds = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_duration_seconds)
        .unwrap_or_default();
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// The Lease under its name, to create it.
pub(super) fn named(mut lease: Lease, name: &str) -> Lease {
    lease.metadata.name = Some(name.to_owned());
    lease
}

/// The Lease as `identity` writes it to acquire or renew it. All other fields stay.
pub(super) fn held_by(identity: &str, mut lease: Lease, duration: Duration, now: Timestamp) -> Lease {
    let existed = lease.spec.is_some();
    let changes_hands = holder(&lease) != Some(identity);
    let spec = lease.spec.get_or_insert_default();
    if changes_hands {
        spec.acquire_time = Some(MicroTime(now));
        spec.lease_transitions = Some(match spec.lease_transitions {
            Some(transitions) => transitions.saturating_add(1),
            None => i32::from(existed),
        });
    }
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = Some(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX));
    spec.renew_time = Some(MicroTime(now));
    lease
}

/// The Lease as its holder writes it to release it. The duration of one second is for candidates that look at it alone.
pub(super) fn released(mut lease: Lease, now: Timestamp) -> Lease {
    let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(1),
        lease_transitions: transitions,
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    });
    lease
}
