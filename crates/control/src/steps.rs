//! Who is told in this process that a tenant's operations have moved on.
//!
//! Invariant: whoever waits for one tenant is not woken for others: with many clients at once, each step
//! of each tenant would else make all of them look at the control database.
//!
//! Left out: what other processes do; whoever waits looks by itself from time to time.

use tokio::sync::broadcast::{self, error::RecvError};
use waangu_kernel::TenantId;

/// Steps that a waiter may be behind before it has to look for itself.
const BACKLOG: usize = 256;

/// How far a tenant's operations have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// A step.
    Step,
    /// The end, or a failure.
    End,
}

/// The one who tells.
#[derive(Debug)]
pub(crate) struct Steps(broadcast::Sender<(TenantId, Reached)>);

/// One who waits.
#[derive(Debug)]
pub(crate) struct Waiter(broadcast::Receiver<(TenantId, Reached)>);

impl Steps {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    /// Tells those who wait now.
    pub(crate) fn tell(&self, tenant: TenantId, reached: Reached) {
        // An error says that nobody waits.
        drop(self.0.send((tenant, reached)));
    }

    /// Hears of all steps from now on.
    pub(crate) fn wait(&self) -> Waiter {
        Waiter(self.0.subscribe())
    }
}

impl Waiter {
    /// Returns when the tenant's operations have come so far, or might have.
    pub(crate) async fn until(&mut self, tenant: TenantId, far: Reached) {
        loop {
            match self.0.recv().await {
                Ok((moved, reached))
                    if moved == tenant && (far == Reached::Step || reached == far) =>
                {
                    return;
                }
                Ok(_other) => {}
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use tokio::time::timeout;

    fn tenant(number: i64) -> TenantId {
        TenantId::new(number).unwrap()
    }

    /// A waiter that misses the end of its operation makes its client wait for the next look.
    #[tokio::test]
    async fn the_end_is_heard_and_nothing_else_wakes() {
        let steps = Steps::new();
        steps.tell(tenant(1), Reached::End);
        let mut waiter = steps.wait();
        steps.tell(tenant(2), Reached::End);
        steps.tell(tenant(1), Reached::Step);
        let early = timeout(
            Duration::from_millis(20),
            waiter.until(tenant(1), Reached::End),
        );
        assert!(early.await.is_err());
        steps.tell(tenant(1), Reached::End);
        waiter.until(tenant(1), Reached::End).await;
    }

    /// With more moves than are kept, the one that was waited for may be among the lost.
    #[tokio::test]
    async fn one_who_is_far_behind_looks_for_itself() {
        let steps = Steps::new();
        let mut waiter = steps.wait();
        for _ in 0..=BACKLOG {
            steps.tell(tenant(2), Reached::Step);
        }
        waiter.until(tenant(1), Reached::End).await;
    }
}
