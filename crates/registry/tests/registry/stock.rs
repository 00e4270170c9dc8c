//! What tenants are likely to need.

use std::collections::BTreeMap;

use waangu_kernel::manifest::Manifest;
use waangu_kernel::{Fault, ModuleId, Sla, TenantId, Tier};
use waangu_registry::{Mfa, NewTenant, Profile, StoredPackage, Tx};

use crate::support::{new_tenant, parsed, session, world};

async fn install(tx: &Tx<'_>, id: &str) -> Result<(), Fault> {
    let manifest = format!(
        "id = '{id}'\nversion = '0.1.0'\ntitle = {{ en = 'Test' }}\nroutes = []\n\
         [permissions]\n[roles]\n"
    );
    tx.put_module(&Manifest::parse(&manifest)?).await?;
    tx.put_package(&StoredPackage {
        module: parsed(id),
        hash: "1".to_owned(),
        version: "0.1.0".to_owned(),
        steps: 1,
        content: serde_json::json!({}),
    })
    .await
}

async fn dedicated(tx: &Tx<'_>, slug: &str, modules: &[&str]) -> Result<TenantId, Fault> {
    let new = NewTenant {
        tier: Tier::Dedicated,
        ..new_tenant(slug)
    };
    let id = tx.create_tenant(&new, 0).await?;
    for module in modules {
        tx.put_activation(id, &parsed(module), true).await?;
    }
    Ok(id)
}

fn profile(id: &str, tier: Tier, modules: &[&str]) -> Profile {
    Profile {
        id: parsed(id),
        title: BTreeMap::new(),
        tier,
        in_country: false,
        sla: Sla::Standard,
        modules: modules.iter().map(|module| parsed(module)).collect(),
        roles: Vec::new(),
        retention_days: None,
        mfa: Mfa::Optional,
        reports: Vec::new(),
        limits: BTreeMap::new(),
    }
}

/// A stock of what nobody asks for is a stock that nobody can take.
#[tokio::test]
async fn a_stock_follows_what_tenants_have() {
    let control = world().await;
    let mut session = session(&control).await;
    let tx = session.begin().await.unwrap();
    let usual = async |tx: &Tx<'_>| -> Vec<String> {
        let found: Vec<ModuleId> = tx.list_usual_modules(Tier::Dedicated).await.unwrap();
        found.iter().map(ToString::to_string).collect()
    };
    for id in ["crm", "ledger", "stock"] {
        install(&tx, id).await.unwrap();
    }
    assert_eq!(usual(&tx).await, Vec::<String>::new());
    let shop = profile("shop", Tier::Shared, &["stock"]);
    tx.put_profile(&shop).await.unwrap();
    assert_eq!(usual(&tx).await, ["stock"]);
    let bank = profile("bank", Tier::Dedicated, &["ledger", "crm", "vanished"]);
    tx.put_profile(&bank).await.unwrap();
    assert_eq!(usual(&tx).await, ["crm", "ledger"]);
    dedicated(&tx, "one", &["crm", "stock"]).await.unwrap();
    dedicated(&tx, "two", &[]).await.unwrap();
    assert_eq!(usual(&tx).await, Vec::<String>::new(), "the latest, of two");
    dedicated(&tx, "three", &["stock", "crm"]).await.unwrap();
    assert_eq!(usual(&tx).await, ["crm", "stock"]);
    let others = tx.list_usual_modules(Tier::Schema).await.unwrap();
    assert_eq!(
        others.len(),
        2,
        "each tier has its own: of two profiles, the first"
    );
}
