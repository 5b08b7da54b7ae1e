//! A semaphore whose permits tenants take in turns.
//!
//! A fair semaphore of the usual kind serves callers in order of arrival, so a tenant with a thousand callers goes before
//! the one caller of another. Here the tenants that wait form a circle: each permit that is given back goes to the next
//! tenant, and there to the caller that waits longest. A tenant that has nobody waiting costs nothing. Where permits are
//! held for as long as an attacker likes, turns are not enough: there no tenant may hold more than a share of them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::domain::access::Tenant;

/// The semaphore. Clones share the permits.
#[derive(Debug, Clone)]
pub struct FairSemaphore(Arc<Mutex<State>>);

/// Nobody waits who could have a permit.
#[derive(Debug)]
struct State {
    free: usize,
    /// The most permits that one tenant may hold.
    share: usize,
    /// Permits by holder; none of zero.
    held: HashMap<Tenant, usize>,
    /// Each tenant once, in the order of their turns; none with an empty queue.
    waiting: VecDeque<(Tenant, VecDeque<oneshot::Sender<Permit>>)>,
}

/// One permit. Dropping it gives it to the next in turn.
#[derive(Debug)]
pub struct Permit {
    /// None once it was given on.
    holder: Option<(FairSemaphore, Tenant)>,
}

impl FairSemaphore {
    /// A semaphore with so many permits, all of which one tenant may hold while no other waits.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        Self::with_share(permits, permits)
    }

    /// A semaphore with so many permits, of which one tenant never holds more than `share`.
    #[must_use]
    pub fn with_share(permits: usize, share: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: permits,
            share,
            held: HashMap::new(),
            waiting: VecDeque::new(),
        })))
    }

    /// Waits for a permit until it is the turn of `tenant`.
    pub async fn acquire(&self, tenant: &Tenant) -> Permit {
        loop {
            let turn = {
                let mut state = self.lock();
                if state.free > 0 && state.may_hold_another(tenant) {
                    state.free -= 1;
                    return self.permit(&mut state, tenant);
                }
                state.enqueue(tenant)
            };
            // An error would mean that the queue was dropped, which this borrows.
            if let Ok(permit) = turn.await {
                return permit;
            }
        }
    }

    /// Permits that nobody holds.
    #[must_use]
    pub fn available(&self) -> usize {
        self.lock().free
    }

    /// Whether another tenant waits for a permit, and none holds more of them than `tenant`. Who is slow should then
    /// give one back.
    #[must_use]
    pub fn is_contended(&self, tenant: &Tenant) -> bool {
        let state = self.lock();
        let most = state.held.values().copied().max().unwrap_or_default();
        let another_waits = state
            .waiting
            .iter()
            .any(|(waiting, queue)| waiting != tenant && queue.iter().any(|caller| !caller.is_closed()));
        another_waits && state.held_by(tenant) == most
    }

    fn permit(&self, state: &mut State, tenant: &Tenant) -> Permit {
        *state.held.entry(tenant.clone()).or_default() += 1;
        Permit {
            holder: Some((self.clone(), tenant.clone())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enqueue(&mut self, tenant: &Tenant) -> oneshot::Receiver<Permit> {
        let (caller, turn) = oneshot::channel();
        match self.waiting.iter_mut().find(|(waiting, _)| waiting == tenant) {
            Some((_, queue)) => {
                // Callers that gave up would otherwise add up until it is their turn.
                queue.retain(|caller| !caller.is_closed());
                queue.push_back(caller);
            }
            None => self.waiting.push_back((tenant.clone(), VecDeque::from([caller]))),
        }
        turn
    }

    fn held_by(&self, tenant: &Tenant) -> usize {
        self.held.get(tenant).copied().unwrap_or_default()
    }

    fn may_hold_another(&self, tenant: &Tenant) -> bool {
        self.held_by(tenant) < self.share
    }

    /// The first caller of the tenant whose turn it is. The tenant then goes to the end of the line.
    fn next(&mut self) -> Option<(Tenant, oneshot::Sender<Permit>)> {
        let first = self
            .waiting
            .iter()
            .position(|(tenant, _)| self.may_hold_another(tenant))?;
        let (tenant, mut queue) = self.waiting.remove(first)?;
        let next = queue.pop_front()?;
        if !queue.is_empty() {
            self.waiting.push_back((tenant.clone(), queue));
        }
        Some((tenant, next))
    }

    fn give_back(&mut self, tenant: &Tenant) {
        if let Some(held) = self.held.get_mut(tenant) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(tenant);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some((semaphore, tenant)) = self.holder.take() else {
            return;
        };
        let mut state = semaphore.lock();
        state.give_back(&tenant);
        while let Some((tenant, next)) = state.next() {
            let permit = semaphore.permit(&mut state, &tenant);
            match next.send(permit) {
                Ok(()) => return,
                // The caller gave up. What comes back must not be dropped whole: that would lock again.
                Err(mut returned) => {
                    drop(returned.holder.take());
                    state.give_back(&tenant);
                }
            }
        }
        state.free += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use futures::poll;
    use proptest::prelude::*;
    use tokio::time::timeout;

    fn queued(semaphore: &FairSemaphore) -> usize {
        semaphore.lock().waiting.iter().map(|(_, queue)| queue.len()).sum()
    }

    #[tokio::test]
    async fn a_tenant_with_many_callers_delays_another_by_one() {
        let semaphore = FairSemaphore::new(1);
        let held = semaphore.acquire(&"greedy".into()).await;
        let order = Mutex::new(Vec::new());
        let caller = |name: &'static str| {
            let (semaphore, order) = (&semaphore, &order);
            async move {
                let _permit = semaphore.acquire(&name.into()).await;
                order.lock().unwrap().push(name);
            }
        };
        let callers = (0..50).map(|_| caller("greedy")).chain([caller("modest")]);
        let all = futures::future::join_all(callers);
        tokio::pin!(all);
        assert!(poll!(all.as_mut()).is_pending(), "all wait");
        drop(held);
        all.await;
        let place = order.lock().unwrap().iter().position(|name| *name == "modest");
        assert_eq!(place, Some(1));
    }

    #[tokio::test]
    async fn callers_that_give_up_keep_no_permit_and_no_place() {
        let semaphore = FairSemaphore::new(1);
        let held = semaphore.acquire(&"acme".into()).await;
        let impatient = Tenant::from("impatient");
        for _ in 0..100 {
            assert!(timeout(Duration::ZERO, semaphore.acquire(&impatient)).await.is_err());
        }
        assert_eq!(queued(&semaphore), 1, "each removes the one before it");
        assert!(!semaphore.is_contended(&"acme".into()));
        drop(held);
        assert_eq!((semaphore.available(), queued(&semaphore)), (1, 0));
    }

    #[tokio::test]
    async fn a_permit_that_was_given_to_one_who_gives_up_goes_on() {
        let semaphore = FairSemaphore::new(1);
        let acme = Tenant::from("acme");
        let held = semaphore.acquire(&acme).await;
        let mut waiting = Box::pin(semaphore.acquire(&acme));
        assert!(poll!(waiting.as_mut()).is_pending());
        drop(held);
        drop(waiting);
        assert_eq!(semaphore.available(), 1);
        assert!(semaphore.lock().held.is_empty());
    }

    #[tokio::test]
    async fn no_tenant_holds_more_than_its_share() {
        let semaphore = FairSemaphore::with_share(3, 2);
        let (greedy, modest) = (Tenant::from("greedy"), Tenant::from("modest"));
        let [first, _second] = [semaphore.acquire(&greedy).await, semaphore.acquire(&greedy).await];
        let mut third = Box::pin(semaphore.acquire(&greedy));
        assert!(poll!(third.as_mut()).is_pending(), "although one is free");
        let last = semaphore.acquire(&modest).await;
        drop(last);
        assert!(poll!(third.as_mut()).is_pending());
        drop(first);
        assert!(poll!(third.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn only_who_holds_most_is_in_the_way_of_another() {
        let semaphore = FairSemaphore::new(3);
        let (greedy, modest) = (Tenant::from("greedy"), Tenant::from("modest"));
        let _two = [semaphore.acquire(&greedy).await, semaphore.acquire(&greedy).await];
        let _one = semaphore.acquire(&modest).await;
        let mut own = Box::pin(semaphore.acquire(&greedy));
        assert!(poll!(own.as_mut()).is_pending());
        assert!(!semaphore.is_contended(&greedy), "it waits for itself");
        assert!(!semaphore.is_contended(&modest), "it holds less than the other");
        let mut other = Box::pin(semaphore.acquire(&modest));
        assert!(poll!(other.as_mut()).is_pending());
        assert!(semaphore.is_contended(&greedy));
    }

    proptest! {
        /// Whatever callers do, no permit is lost and none is made.
        #[test]
        fn permits_are_conserved(
            share in 2_usize..4,
            steps in proptest::collection::vec((0_usize..4, 0_usize..3, any::<bool>()), 1..200),
        ) {
            let semaphore = FairSemaphore::with_share(3, share);
            let mut callers = Vec::new();
            let mut permits = Vec::new();
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            for (step, which, tenant) in steps {
                match step {
                    0 | 1 => {
                        let (semaphore, tenant) = (semaphore.clone(), Tenant::from(if tenant { "a" } else { "b" }));
                        callers.push(Box::pin(async move { semaphore.acquire(&tenant).await }));
                    }
                    2 if which < callers.len() => drop(callers.swap_remove(which)),
                    _ if which < permits.len() => drop(permits.swap_remove(which)),
                    _ => {}
                }
                callers.retain_mut(|caller| match caller.as_mut().poll(&mut context) {
                    std::task::Poll::Ready(permit) => {
                        permits.push(permit);
                        false
                    }
                    std::task::Poll::Pending => true,
                });
                prop_assert_eq!(permits.len() + semaphore.available(), 3);
                prop_assert!(callers.is_empty() || semaphore.available() <= 3 - share);
            }
        }
    }
}
