//! Who gets the next connection of a cell. Pure: no connection, no clock.
//!
//! Invariants (property-tested):
//! - never more than `limit` places are taken;
//! - while somebody waits no place is free;
//! - a freed place goes to the waiter whose tenant holds the fewest, the earliest of them first. So a
//!   tenant that asks for everything has everything only until somebody else asks (max-min
//!   fairness; Bertsekas and Gallager, "Data Networks", §6.5.2).

use std::collections::HashMap;

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// The places of one cell.
#[derive(Debug)]
pub(super) struct Queue<T> {
    limit: usize,
    taken: usize,
    held: HashMap<i64, usize>,
    waiting: Vec<Waiting<T>>,
    tickets: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    ticket: Ticket,
    tenant: i64,
    who: T,
}

impl<T> Queue<T> {
    /// A queue for so many places.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            taken: 0,
            held: HashMap::new(),
            waiting: Vec::new(),
            tickets: 0,
        }
    }

    /// How many places there are.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a place if one is free.
    pub(super) fn try_take(&mut self, tenant: i64) -> bool {
        let free = self.taken < self.limit;
        if free {
            self.grant(tenant);
        }
        free
    }

    /// Waits for a place.
    pub(super) fn wait(&mut self, tenant: i64, who: T) -> Ticket {
        self.tickets = self.tickets.wrapping_add(1);
        let ticket = Ticket(self.tickets);
        self.waiting.push(Waiting {
            ticket,
            tenant,
            who,
        });
        ticket
    }

    /// Stops waiting; false when the place has been given already.
    pub(super) fn give_up(&mut self, ticket: Ticket) -> bool {
        let at = self
            .waiting
            .iter()
            .position(|waiting| waiting.ticket == ticket);
        at.map(|at| drop(self.waiting.remove(at))).is_some()
    }

    /// Frees a place; it goes to the returned waiter, if anybody waits.
    pub(super) fn free(&mut self, tenant: i64) -> Option<T> {
        self.taken = self.taken.saturating_sub(1);
        if let Some(held) = self.held.get_mut(&tenant) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(&tenant);
            }
        }
        let (at, _) = self
            .waiting
            .iter()
            .enumerate()
            .min_by_key(|(_, waiting)| (self.holds(waiting.tenant), waiting.ticket))?;
        let next = self.waiting.remove(at);
        self.grant(next.tenant);
        Some(next.who)
    }

    /// How many a tenant holds.
    pub(super) fn holds(&self, tenant: i64) -> usize {
        self.held.get(&tenant).copied().unwrap_or(0)
    }

    fn grant(&mut self, tenant: i64) {
        self.taken = self.taken.saturating_add(1);
        let held = self.held.entry(tenant).or_insert(0);
        *held = held.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One tenant's flood must not keep another from its first connection.
    #[test]
    fn a_flood_does_not_shut_others_out() {
        let mut queue = Queue::new(4);
        assert!((0..4).all(|_| queue.try_take(1)));
        for _ in 0..100 {
            queue.wait(1, 1);
        }
        queue.wait(2, 2);
        queue.wait(3, 3);
        assert_eq!(queue.free(1), Some(2));
        assert_eq!(queue.free(1), Some(3));
        assert_eq!(queue.free(1), Some(1));
    }

    proptest! {
        /// Whatever comes and goes, the limit holds, nobody is forgotten, and no place lies idle
        /// while somebody waits.
        #[test]
        fn places_are_neither_lost_nor_doubled(steps in prop::collection::vec((0_u8..3, 0_i64..5), 0..300)) {
            let mut queue = Queue::new(3);
            let mut holders: Vec<i64> = Vec::new();
            let mut waiting: Vec<(Ticket, i64)> = Vec::new();
            for (step, tenant) in steps {
                match step {
                    0 if queue.try_take(tenant) => holders.push(tenant),
                    0 => {
                        let ticket = queue.wait(tenant, tenant);
                        waiting.push((ticket, tenant));
                    }
                    1 if !holders.is_empty() => {
                        let held = |t: i64| holders.iter().skip(1).filter(|h| **h == t).count();
                        let fair = waiting.iter().map(|(ticket, t)| (held(*t), *ticket, *t)).min();
                        let freed = holders[0];
                        let next = queue.free(freed);
                        prop_assert_eq!(next, fair.map(|(_, _, t)| t));
                        holders.remove(0);
                        if let Some((_, ticket, tenant)) = fair {
                            holders.push(tenant);
                            waiting.retain(|(waiting, _)| *waiting != ticket);
                        }
                    }
                    _ => {
                        if let Some((ticket, _)) = waiting.pop() {
                            prop_assert!(queue.give_up(ticket));
                        }
                    }
                }
                prop_assert_eq!(queue.taken(), holders.len());
                prop_assert_eq!(queue.waiting(), waiting.len());
                prop_assert!(queue.taken() <= 3);
                prop_assert!(queue.waiting() == 0 || queue.taken() == 3);
            }
        }
    }
}
