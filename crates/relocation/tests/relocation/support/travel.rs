//! What the tests of ways back share: a tenant that travels, and what it does on the way.

use std::time::Duration;

use waangu_relocation::{Step, close_way_back, ways_back};
use waangu_testkit::{Cell, Tier};

use crate::support::{Spot, TABLES, Traveller, begin, stock};

pub(crate) const COPIED: [Step; 4] = [Step::Copy, Step::CutOver, Step::Open, Step::Finish];

pub(crate) const ADOPTED: [Step; 4] = [Step::Adopt, Step::CutOver, Step::Open, Step::Finish];

pub(crate) async fn settle(at: Spot<'_>) -> Traveller<'_> {
    let mut tenant = Traveller::settle(at, TABLES).await;
    tenant.options.way_back = true;
    tenant
}

/// As a router and a registry would have it after a move.
pub(crate) fn arrive<'a>(tenant: &mut Traveller<'a>, to: Spot<'a>) {
    tenant.placement = tenant.placement_at(to.1);
    tenant.cell = to.0;
}

/// Does all steps of a move; gives their names.
pub(crate) async fn travel<'a>(tenant: &mut Traveller<'a>, to: Spot<'a>) -> Vec<Step> {
    let mut relocation = begin(|| tenant.request(to)).await;
    let mut steps = Vec::new();
    loop {
        let step = relocation.next().await.expect("a step");
        if step == Step::Done {
            break;
        }
        relocation.apply(&step).await.expect("done");
        steps.push(step);
    }
    arrive(tenant, to);
    steps
}

pub(crate) async fn write(tenant: &Traveller<'_>, sql: &str) {
    let (number, schema) = (
        tenant.tenant.number(),
        tenant.placement.schema(tenant.tenant, &stock()),
    );
    let script = format!(
        "set search_path = {schema}; {}",
        sql.replace("$1", &number.to_string())
    );
    let superuser = tenant.superuser().await;
    superuser.batch_execute(&script).await.expect("write");
}

pub(crate) async fn fill(tenant: &Traveller<'_>, from: i64, to: i64) {
    let sql = format!(
        "insert into product (tenant_id, id, name, payload)
         select $1, g, 'x', (select string_agg(md5((g * 1000 + n)::text), '') from generate_series(1, 200) n)
           from generate_series({from}, {to}) g;
         insert into movement (tenant_id, id, product_id) select $1, g, g from generate_series({from}, {to}) g"
    );
    write(tenant, &sql).await;
}

/// All rows of all tables.
pub(crate) async fn rows(tenant: &Traveller<'_>) -> Vec<String> {
    let mut rows = tenant.rows("product").await;
    rows.extend(tenant.rows("movement").await);
    rows
}

/// What housekeeping does when a grace time is over: `tenant` has just left the place in this tier.
pub(crate) async fn leave(cell: &Cell, tenant: &Traveller<'_>, tier: Tier) {
    for way in ways_back(&tenant.cell.admin_config()).await.expect("look") {
        if way.tenant == tenant.tenant.number() {
            close_way_back(&tenant.cell.admin_config(), &way)
                .await
                .expect("close");
        }
    }
    let mut place = tenant.placement_at(tier);
    place.epoch = tenant.placement.epoch - 1;
    let rest = Duration::from_millis(1);
    for _try in 0..100 {
        let emptied = cell
            .admin
            .empty_place(tenant.tenant, &place, &[stock()], (100, rest))
            .await;
        if emptied.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("the old place is never emptied");
}
