//! Believable stock moves: goods come into warehouses, go to stores, are sold, and now and then a
//! count is put right.
//!
//! Invariants: the same seed tells the same story; no level ever goes below zero.

/// One move, by the indices of product and places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) product: usize,
    pub(super) from: Option<usize>,
    pub(super) to: Option<usize>,
    pub(super) quantity: i64,
    pub(super) reason: &'static str,
}

/// An endless story.
#[derive(Debug)]
pub(super) struct Story {
    random: SplitMix,
    warehouses: Vec<usize>,
    stores: Vec<usize>,
    products: usize,
    /// Quantity on hand by product, then place.
    levels: Vec<Vec<i64>>,
}

impl Story {
    /// A story over these places (true: a warehouse) and so many products.
    pub(super) fn new(seed: u64, places: &[bool], products: usize) -> Self {
        let at = |wanted: bool| {
            let matching = places
                .iter()
                .enumerate()
                .filter(move |(_, kind)| **kind == wanted);
            matching.map(|(at, _)| at).collect::<Vec<_>>()
        };
        Self {
            random: SplitMix(seed),
            warehouses: at(true),
            stores: at(false),
            products,
            levels: vec![vec![0; places.len()]; products],
        }
    }

    fn pick(&mut self, among: &[usize]) -> Option<usize> {
        let at = self.random.below(among.len())?;
        among.get(at).copied()
    }

    fn level(&mut self, product: usize, place: usize) -> i64 {
        self.levels
            .get(product)
            .and_then(|places| places.get(place))
            .copied()
            .unwrap_or(0)
    }

    fn change(&mut self, product: usize, place: Option<usize>, by: i64) {
        let Some(place) = place else { return };
        let level = self
            .levels
            .get_mut(product)
            .and_then(|places| places.get_mut(place));
        if let Some(level) = level {
            *level = level.saturating_add(by);
        }
    }

    /// A share of what is there: between one and `level / part`.
    fn share(&mut self, level: i64, part: i64) -> i64 {
        let most = (level / part).max(1);
        let extra = usize::try_from(most)
            .ok()
            .and_then(|most| self.random.below(most))
            .unwrap_or(0);
        i64::try_from(extra)
            .unwrap_or(0)
            .saturating_add(1)
            .min(level)
    }

    fn tell(&mut self) -> Option<Told> {
        let product = self.random.below(self.products)?;
        let (depots, outlets) = (self.warehouses.clone(), self.stores.clone());
        let depot = self.pick(&depots)?;
        let shop = self.pick(&outlets)?;
        let (stored, shown) = (self.level(product, depot), self.level(product, shop));
        let kind = self.random.below(100)?;
        let (from, to, quantity, reason) = if stored < 20 {
            let received = 40_i64.saturating_add(self.share(200, 1));
            (None, Some(depot), received, "receipt")
        } else if shown < 3 || kind < 15 {
            (Some(depot), Some(shop), self.share(stored, 4), "transfer")
        } else if kind < 92 {
            (Some(shop), None, self.share(shown, 5), "sale")
        } else if kind < 96 {
            (None, Some(shop), 1, "return")
        } else {
            (Some(shop), None, 1, "adjustment")
        };
        self.change(product, from, quantity.saturating_neg());
        self.change(product, to, quantity);
        Some(Told {
            product,
            from,
            to,
            quantity,
            reason,
        })
    }
}

impl Iterator for Story {
    type Item = Told;

    fn next(&mut self) -> Option<Told> {
        self.tell()
    }
}

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): a demo
/// needs repeatable, not unguessable.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; the bias of the remainder does not matter here.
    fn below(&mut self, limit: usize) -> Option<usize> {
        let limit = u64::try_from(limit).ok()?;
        usize::try_from(self.next().checked_rem(limit)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A story that sells what is not there would stop the first start with a refusal.
    #[test]
    fn stock_never_goes_below_zero_and_the_story_repeats() {
        let tell = || {
            Story::new(7, &[true, false, false], 4)
                .take(2000)
                .collect::<Vec<_>>()
        };
        let told = tell();
        assert_eq!(told, tell());
        let mut levels = [[0_i64; 3]; 4];
        for one in &told {
            assert!(one.quantity > 0);
            if let Some(from) = one.from {
                levels[one.product][from] -= one.quantity;
                assert!(levels[one.product][from] >= 0, "{one:?}");
            }
            if let Some(to) = one.to {
                levels[one.product][to] += one.quantity;
            }
        }
        assert!(told.iter().filter(|one| one.reason == "sale").count() > 800);
    }
}
