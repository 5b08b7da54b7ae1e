//! The slots for runs at work, given back while a run waits for the network.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use crate::domain::access::Tenant;
use crate::pipeline::fair_semaphore::{FairSemaphore, Permit};
use futures::poll;

/// As many runs as may be at work at one time: reading and writing Kubernetes objects, and computing.
///
/// What is bounded is memory (a bundle is in it several times while it is written), processor time and the load of the
/// API server. A run that waits for a registry costs none of these, and how long it waits is up to that registry.
/// Namespaces with runs that wait for a slot take turns.
#[derive(Debug, Clone)]
pub(super) struct Slots(FairSemaphore);

/// The slot of one run.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    tenant: Tenant,
    permit: Option<Permit>,
}

impl Slots {
    /// At most `count` runs at work.
    #[must_use]
    pub(super) fn new(count: usize) -> Self {
        Self(FairSemaphore::new(count))
    }

    /// Waits for a slot for a run of `tenant` that starts. Starts have turns of their own: one that waits behind all runs
    /// of its namespace would delay the starts of every other.
    pub(super) async fn take(&self, tenant: Tenant) -> Slot {
        Slot {
            slots: self.clone(),
            tenant,
            permit: Some(self.0.acquire(&Tenant::default()).await),
        }
    }
}

impl Slot {
    /// Waits for `wait` without the slot. A wait that is over at once, because the result was cached, keeps it.
    ///
    /// If this is dropped before its end, the run goes on without a slot until [`Slot::resume`].
    pub async fn release_during<F: Future>(&mut self, wait: F) -> F::Output {
        let mut wait = pin!(wait);
        if let Poll::Ready(output) = poll!(wait.as_mut()) {
            return output;
        }
        self.permit = None;
        let output = wait.await;
        self.resume().await;
        output
    }

    /// Acquires the slot again if it was given back.
    pub async fn resume(&mut self) {
        if self.permit.is_none() {
            self.permit = Some(self.slots.0.acquire(&self.tenant).await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn free(slots: &Slots) -> usize {
        slots.0.available()
    }

    #[tokio::test]
    async fn who_waits_for_the_network_leaves_the_slot_to_others() {
        let slots = Slots::new(1);
        let mut slot = slots.take("acme".into()).await;
        assert_eq!(free(&slots), 0);
        slot.release_during(async {
            tokio::task::yield_now().await;
            assert_eq!(free(&slots), 1);
        })
        .await;
        assert_eq!(free(&slots), 0);
        drop(slot);
        assert_eq!(free(&slots), 1);
    }

    #[tokio::test]
    async fn a_cached_result_costs_no_turn() {
        let slots = Slots::new(1);
        let mut slot = slots.take("acme".into()).await;
        slot.release_during(async { assert_eq!(free(&slots), 0) }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_was_given_up_leaves_no_slot_behind() {
        let slots = Slots::new(1);
        let mut slot = slots.take("acme".into()).await;
        let wait = slot.release_during(std::future::pending::<()>());
        assert!(tokio::time::timeout(Duration::from_secs(1), wait).await.is_err());
        assert_eq!(free(&slots), 1);
        slot.resume().await;
        slot.resume().await;
        assert_eq!(free(&slots), 0);
    }
}
