//! What the tests share: the module's world, and a shop's everyday words.

use std::ops::Deref;

use waangu_testkit::{Answer, Caller, Home, Place, StatusCode, Values, json};

/// The module in front of a prepared cell.
pub(crate) struct World(waangu_testkit::World);

/// One tenant, as a caller with a role sees it.
#[derive(Clone, Copy)]
pub(crate) struct Shop<'a>(Caller<'a>);

impl World {
    pub(crate) async fn new() -> Self {
        Self(waangu_testkit::World::start(env!("CARGO_BIN_EXE_waangu-inventory")).await)
    }

    pub(crate) fn shop<'a>(&'a self, home: &'a Home, role: &'a str) -> Shop<'a> {
        Shop(self.caller(home, role))
    }
}

impl Deref for World {
    type Target = waangu_testkit::World;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'a> Deref for Shop<'a> {
    type Target = Caller<'a>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'a> Shop<'a> {
    /// The same tenant, seen by somebody else.
    pub(crate) fn with_role(self, role: &'a str) -> Self {
        Self(self.0.with_role(role))
    }

    /// The same tenant with other flags and limits.
    pub(crate) fn with_flags(self, flags: &'a Values) -> Self {
        Self(self.0.with_flags(flags))
    }

    /// Asks for the subtree, with the places that the gateway knows.
    pub(crate) async fn consolidated(self, path: &str, places: &[Place]) -> Answer {
        self.get_subtree(path, places).await
    }

    pub(crate) async fn product(self, sku: &str) -> String {
        let body = json!({ "sku": sku, "name": format!("Product {sku}") });
        self.post("/products", &body).await.id()
    }

    pub(crate) async fn place(self, code: &str) -> String {
        let body = json!({ "code": code, "name": format!("Place {code}"), "kind": "store" });
        self.post("/places", &body).await.id()
    }

    /// Brings stock in from outside.
    pub(crate) async fn receive(self, product: &str, place: &str, quantity: i64) {
        let body = json!({
            "product": product, "to": place, "quantity": quantity, "reason": "receipt",
        });
        let answer = self.post("/moves", &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }

    pub(crate) async fn on_hand(self, product: &str, place: &str) -> Option<i64> {
        let path = format!("/stock?product={product}&place={place}");
        let answer = self.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body["items"][0]["on_hand"].as_i64()
    }

    /// The levels must be what the journal adds up to, read past the module as superuser.
    pub(crate) async fn check_books(self) {
        let (world, (tenant, placement)) = (self.world, self.home);
        let dsn = world.cell.superuser_dsn(&placement.database(*tenant));
        let client = waangu_testkit::connect(&dsn).await.unwrap();
        let schema = placement.schema(*tenant, &world.package.manifest.id);
        let sql = format!(
            "with line as (
                 select product_id, to_place as place_id, quantity as amount
                   from {schema}.stock_move where tenant_id = $1 and to_place is not null
                  union all
                 select product_id, from_place, -quantity
                   from {schema}.stock_move where tenant_id = $1 and from_place is not null
             ), book as (
                 select product_id, place_id, sum(amount) as amount from line group by 1, 2
             )
             select count(*)
               from book b
               full join (select * from {schema}.stock_level where tenant_id = $1) l
                    using (product_id, place_id)
              where coalesce(b.amount, 0) <> coalesce(l.on_hand, 0)"
        );
        let row = client.query_one(&sql, &[&tenant.number()]).await;
        let wrong: i64 = row.unwrap().get(0);
        assert_eq!(wrong, 0, "levels differ from the journal");
    }
}
