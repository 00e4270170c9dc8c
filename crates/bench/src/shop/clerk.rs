//! One clerk: random acts on products of its own, and the notes of what became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use waangu_api::ClientError;

use super::{Answered, Shop, id};
use crate::failure::{Failure, Of as _};
use crate::torture::Chance;

/// What comes in at the depot and at the store before anything is moved: more than is ever moved.
pub(crate) const STOCK: i64 = 1_000_000_000;

/// Products that a clerk may delete again, at most.
const MOST_PRODUCTS: usize = 200;

/// What a clerk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// Moves of stock, new, renamed and deleted products.
    Everything,
    /// Moves of stock only: three rows are touched by each.
    Moves,
}

/// How one act went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// When it was due.
    pub(crate) due: Instant,
    /// From then to its answer.
    pub(crate) took: Duration,
    pub(crate) failures: u64,
}

/// A clerk with its notes.
#[derive(Debug)]
pub(crate) struct Clerk<'a> {
    pub(crate) shop: &'a Shop,
    number: u64,
    chance: Chance,
    mix: Mix,
    acts: u64,
    /// The product whose stock it moves.
    stocked: String,
    /// Keys of the moves that were acknowledged.
    pub(crate) moves: BTreeSet<String>,
    /// Names of its products by SKU, as they were acknowledged.
    pub(crate) products: BTreeMap<String, String>,
    /// Ids of those that it may delete.
    loose: Vec<(String, String)>,
}

impl<'a> Clerk<'a> {
    /// A clerk with a product in stock at both places.
    pub(crate) async fn hire(
        shop: &'a Shop,
        number: u64,
        mix: Mix,
        seed: u64,
    ) -> Result<Self, Failure> {
        let mut clerk = Self {
            shop,
            number,
            chance: Chance::new(seed ^ number.wrapping_mul(0x5851_f42d_4c95_7f2d)),
            mix,
            acts: 0,
            stocked: String::new(),
            moves: BTreeSet::new(),
            products: BTreeMap::new(),
            loose: Vec::new(),
        };
        clerk.stocked = clerk.add_product(&format!("STOCKED-{number}")).await?.0;
        for (to, name) in [(&shop.depot, "in-depot"), (&shop.store, "in-store")] {
            let receipt = json!({
                "product": clerk.stocked, "to": to, "quantity": STOCK, "reason": "receipt",
            });
            let key = format!("{number}-{name}");
            let done = shop
                .insist(&Method::POST, "/moves", &receipt, Some(&key))
                .await?;
            done.body.of("receipt")?;
            clerk.moves.insert(key);
        }
        Ok(clerk)
    }

    /// Works as long as asked for, one act each `interval`; an act that is late counts from when it was
    /// due, so that a pause is seen by all that it kept waiting.
    pub(crate) async fn work(
        &mut self,
        interval: Duration,
        goes_on: impl Fn() -> bool,
        see: impl Fn(Seen),
    ) -> Result<(), Failure> {
        let mut due = Instant::now();
        while goes_on() {
            sleep_until(due).await;
            let failures = self.act().await?;
            see(Seen {
                due,
                took: due.elapsed(),
                failures,
            });
            due += interval;
            // Without an interval there is no plan to be late for.
            if interval.is_zero() {
                due = Instant::now();
            }
        }
        Ok(())
    }

    async fn act(&mut self) -> Result<u64, Failure> {
        self.acts += 1;
        if self.mix == Mix::Moves {
            return self.transfer().await;
        }
        match self.chance.below(20) {
            0..10 => self.transfer().await,
            10..14 if self.loose.len() < MOST_PRODUCTS => {
                let sku = format!("P-{}-{}", self.number, self.acts);
                let (id, failures) = self.add_product(&sku).await?;
                self.loose.push((sku, id));
                Ok(failures)
            }
            10..17 => self.rename().await,
            _ => self.remove().await,
        }
    }

    async fn transfer(&mut self) -> Result<u64, Failure> {
        let (from, to) = match self.chance.below(2) {
            0 => (&self.shop.depot, &self.shop.store),
            _ => (&self.shop.store, &self.shop.depot),
        };
        let transfer = json!({
            "product": self.stocked, "from": from, "to": to,
            "quantity": 1 + self.chance.below(9), "reason": "transfer",
        });
        let key = format!("{}-{}", self.number, self.acts);
        let done = self
            .shop
            .insist(&Method::POST, "/moves", &transfer, Some(&key))
            .await?;
        let failures = done.failures;
        self.accept(done, "a move")?;
        self.moves.insert(key);
        Ok(failures)
    }

    async fn add_product(&mut self, sku: &str) -> Result<(String, u64), Failure> {
        let product = json!({ "sku": sku, "name": sku });
        let done = self
            .shop
            .insist(&Method::POST, "/products", &product, Some(sku))
            .await?;
        let failures = done.failures;
        let body = self.accept(done, "a new product")?;
        self.products.insert(sku.to_owned(), sku.to_owned());
        Ok((id(&body)?, failures))
    }

    async fn rename(&mut self) -> Result<u64, Failure> {
        let Some((sku, id)) = self.chance.pick(&self.loose).cloned() else {
            return Ok(0);
        };
        let name = format!("{sku} of act {}", self.acts);
        let path = format!("/products/{id}");
        let change = json!({ "name": name });
        let done = self
            .shop
            .insist(&Method::PATCH, &path, &change, None)
            .await?;
        let failures = done.failures;
        self.accept(done, "a new name")?;
        self.products.insert(sku, name);
        Ok(failures)
    }

    async fn remove(&mut self) -> Result<u64, Failure> {
        let count = u64::try_from(self.loose.len()).unwrap_or(0);
        if count == 0 {
            return Ok(0);
        }
        let index = usize::try_from(self.chance.below(count)).unwrap_or(0);
        let (sku, id) = self.loose.swap_remove(index);
        let path = format!("/products/{id}");
        let done = self
            .shop
            .insist(&Method::DELETE, &path, &Value::Null, None)
            .await?;
        let failures = done.failures;
        // Asked for again after an answer that was lost, it is gone already.
        let gone = match &done.body {
            Err(ClientError::Refused(problem)) => failures > 0 && problem.status == 404,
            _ => false,
        };
        if !gone {
            self.accept(done, "a deletion")?;
        }
        self.products.remove(&sku);
        Ok(failures)
    }

    /// What was done; nothing that a clerk asks for is ever refused.
    fn accept(&self, done: Answered, what: &str) -> Result<Value, Failure> {
        done.body
            .of(format!("{}: clerk {}: {what}", self.shop.slug, self.number))
    }
}
