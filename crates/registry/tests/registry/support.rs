//! A control database with one small world in it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use waangu_kernel::{Fault, ModuleId, Sla, Slug, TenantId, Tier};
use waangu_registry::{Cell, CellState, Country, NewTenant, Region, Session, Tx};
use waangu_testkit::{Control, control};

pub(crate) fn parsed<T: std::str::FromStr<Err = Fault>>(text: &str) -> T {
    text.parse().expect("a valid name")
}

pub(crate) fn stock() -> ModuleId {
    parsed("stock")
}

/// A fresh control database with a country, a region, a cell and the module `stock`.
pub(crate) async fn world() -> Control {
    let control = control().await;
    let mut session = control.registry.session().await.expect("a session");
    let tx = session.begin().await.expect("begin");
    fill(&tx).await.expect("fill the world");
    tx.commit().await.expect("commit");
    control
}

async fn fill(tx: &Tx<'_>) -> Result<(), Fault> {
    tx.put_environment("dev", 1).await?;
    tx.put_region(&Region {
        id: parsed("dc-sn-dakar"),
        provider: "dc".to_owned(),
        country: parsed("SN"),
        name: "Dakar".to_owned(),
    })
    .await?;
    tx.put_country(&Country {
        code: parsed("SN"),
        name: "Senegal".to_owned(),
        kin_abroad: false,
        regions: vec![parsed("dc-sn-dakar")],
    })
    .await?;
    tx.put_cell(&Cell {
        id: parsed("sn-1"),
        region: parsed("dc-sn-dakar"),
        environment: "dev".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: 5432,
        state: CellState::Active,
        sla: Sla::Standard,
        capacity: 10,
        capacity_bytes: None,
        capacity_connections: None,
        bucket_limit: 2,
        tenants: 0,
        usage: None,
    })
    .await?;
    tx.put_plan(&parsed("starter"), &BTreeMap::new(), &BTreeMap::new())
        .await?;
    let manifest = "id = 'stock'\nversion = '0.1.0'\ntitle = { en = 'Stock' }\nroutes = []\n\
                    [permissions]\n[roles]\n";
    tx.put_module(&waangu_kernel::manifest::Manifest::parse(manifest)?)
        .await
}

pub(crate) fn new_tenant(slug: &str) -> NewTenant {
    NewTenant {
        slug: parsed(slug),
        name: slug.to_uppercase(),
        country: parsed("SN"),
        parent: None,
        profile: None,
        tier: Tier::Shared,
        cell: parsed("sn-1"),
        bucket: 0,
        reasons: vec!["test".to_owned()],
    }
}

/// Creates a tenant in a transaction of its own.
pub(crate) async fn create(session: &mut Session, slug: &str) -> Result<TenantId, Fault> {
    let tx = session.begin().await?;
    let id = tx.create_tenant(&new_tenant(slug), 0).await?;
    tx.commit().await?;
    Ok(id)
}

pub(crate) async fn session(control: &Control) -> Session {
    control.registry.session().await.expect("a session")
}

pub(crate) fn slug(text: &str) -> Slug {
    parsed(text)
}

pub(crate) fn code<T: Debug>(result: Result<T, Fault>) -> &'static str {
    result.expect_err("a fault").code()
}
