//! The net effect of moves on stock levels. Pure.
//!
//! What counts for a batch is its net effect: a batch is one event, so that a transfer may stand
//! before the receipt that it needs, and only what is left in the end must not be below zero.

use std::collections::BTreeMap;

use waangu_sdk::Uuid;

/// A product at a place: what a stock level is kept for. Ordered as the database orders the key, in
/// which all locks are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) product: Uuid,
    pub(super) place: Uuid,
}

/// What a move does to levels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effect {
    pub(super) product: Uuid,
    pub(super) from: Option<Uuid>,
    pub(super) to: Option<Uuid>,
    pub(super) quantity: i64,
}

impl Effect {
    /// The level it takes from.
    pub(super) fn source(self) -> Option<Spot> {
        self.spot(self.from)
    }

    /// The level it adds to.
    pub(super) fn target(self) -> Option<Spot> {
        self.spot(self.to)
    }

    fn spot(self, place: Option<Uuid>) -> Option<Spot> {
        let product = self.product;
        place.map(|place| Spot { product, place })
    }
}

/// By how much each level changes. Levels that change by nothing are there too: the journal's rows
/// point at them, and nobody else may change them meanwhile.
///
/// Quantities are bounded (see `moves`), so that no sum can overflow; if one did, it would stay at
/// the end of the range and be refused.
pub(super) fn net(effects: impl IntoIterator<Item = Effect>) -> BTreeMap<Spot, i64> {
    let mut changes = BTreeMap::new();
    let mut add = |spot: Option<Spot>, amount: i64| {
        if let Some(spot) = spot {
            let change = changes.entry(spot).or_insert(0_i64);
            *change = change.saturating_add(amount);
        }
    };
    for effect in effects {
        add(effect.source(), -effect.quantity);
        add(effect.target(), effect.quantity);
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn effects() -> impl Strategy<Value = Vec<Effect>> {
        let id = || (1_u128..5).prop_map(Uuid::from_u128);
        let place = || proptest::option::of(id());
        let effect = (id(), place(), place(), 1_i64..1000)
            .prop_filter("a move goes somewhere else", |(_, from, to, _)| from != to)
            .prop_map(|(product, from, to, quantity)| Effect {
                product,
                from,
                to,
                quantity,
            });
        proptest::collection::vec(effect, 0..60)
    }

    /// Applies one move after the other, as people would with paper.
    fn on_paper(effects: &[Effect]) -> HashMap<(Uuid, Uuid), i64> {
        let mut levels = HashMap::new();
        for effect in effects {
            if let Some(from) = effect.from {
                *levels.entry((effect.product, from)).or_insert(0) -= effect.quantity;
            }
            if let Some(to) = effect.to {
                *levels.entry((effect.product, to)).or_insert(0) += effect.quantity;
            }
        }
        levels
    }

    proptest! {
        /// If the net effect were not the sum of the moves, journal and stock would part company.
        #[test]
        fn the_net_effect_is_the_sum_of_the_moves(effects in effects()) {
            let net = net(effects.iter().copied());
            let plain: HashMap<_, _> = net
                .iter()
                .map(|(spot, change)| ((spot.product, spot.place), *change))
                .collect();
            prop_assert_eq!(plain, on_paper(&effects));
        }

        /// Locks that are taken in another order from request to request end in deadlocks.
        #[test]
        fn the_order_of_levels_does_not_depend_on_the_order_of_moves(effects in effects()) {
            let there = net(effects.iter().copied());
            let back = net(effects.iter().rev().copied());
            let keys: Vec<_> = there.keys().copied().collect();
            let bytes = |spot: &Spot| (spot.product.into_bytes(), spot.place.into_bytes());
            let sorted = keys.is_sorted_by_key(bytes);
            prop_assert!(sorted);
            prop_assert_eq!(there, back);
        }

        /// What stays inside neither comes into being nor is lost.
        #[test]
        fn transfers_change_no_total(effects in effects()) {
            let inside = |effect: &Effect| effect.from.is_some() && effect.to.is_some();
            let net = net(effects.iter().copied().filter(inside));
            prop_assert_eq!(net.values().sum::<i64>(), 0);
        }
    }
}
