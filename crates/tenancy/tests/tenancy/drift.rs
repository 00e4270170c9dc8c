//! The catalogue check: quiet on a sound database, and on a broken one it names the object and the
//! statement that mends it. On servers of their own, because roles belong to a whole server.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;
use waangu_kernel::placement::Tier;
use waangu_tenancy::inspect::{Inspected, inspect, inspect_as_module, record};
use waangu_tenancy::{Drift, Mend, ModulePackage, Rules};
use waangu_testkit::{Cell, MODULES, connect, private_cell};

use crate::support::{Home, module, package, stock};

mod breaks;

use breaks::Break;

/// A home of the tier, on a cell whose modules are all known to the rules.
async fn home(cell: Cell, tier: Tier) -> Home {
    let (tenant, placement) = cell.tenant(tier);
    let pools = cell.pools(&module("stock"));
    let home = Home {
        cell,
        tenant,
        placement,
        pools,
    };
    let admin = &home.cell.admin;
    admin.ensure_place(tenant, &home.placement).await.unwrap();
    admin
        .ensure_module(tenant, &home.placement, &with_view())
        .await
        .unwrap();
    home
}

fn with_view() -> ModulePackage {
    let view = "create view shown with (security_invoker = true) as select * from product";
    let other_order = "create table noted (id bigint not null, tenant_id bigint not null
                                         , primary key (tenant_id, id), check (id > 0))";
    let mut package = stock();
    package
        .migrations
        .extend(self::package("stock", &[], &[view, other_order]).migrations);
    package
}

fn rules() -> Rules {
    let mut rules = Rules::new([&stock().manifest]);
    for id in MODULES {
        if id != "stock" {
            rules.add(&module(id), &[]);
        }
    }
    rules
}

async fn drifts(client: &Client) -> Vec<Drift> {
    inspect(client, &rules()).await.unwrap()
}

/// What is expected must follow from the SQL, and from nothing that somebody has typed.
#[tokio::test]
async fn the_expected_facts_are_those_of_a_fresh_database() {
    let home = home(private_cell().await, Tier::Schema).await;
    let bucket = home.placement.bucket;
    let turn = home.cell.admin.stock_turn().await.unwrap().unwrap();
    turn.make_schema(bucket, &with_view()).await.unwrap();
    let facts = record(&home.superuser().await, &rules()).await.unwrap();
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = crate_folder.join("../../target/tmp/expected.json");
    if facts != include_str!("../../sql/expected.json") {
        std::fs::create_dir_all(fresh.parent().unwrap()).unwrap();
        std::fs::write(&fresh, facts).unwrap();
        panic!(
            "the helper schema has changed; look at the difference and run\n\
             cp target/tmp/expected.json crates/tenancy/sql/expected.json"
        );
    }
}

/// An alarm that rings for nothing is switched off.
#[tokio::test]
async fn a_sound_cell_has_no_drift_in_any_tier() {
    let mut cell = private_cell().await;
    for tier in Tier::ALL {
        let home = home(cell, tier).await;
        assert_eq!(drifts(&home.superuser().await).await, [], "{tier}");
        let stock = module("stock");
        let own = Rules::new([&self::stock().manifest]);
        for dsn in [
            home.cell.module_dsn(&stock, &home.database()),
            home.cell.tree_dsn(&stock, &home.database()),
        ] {
            let client = connect(&dsn).await.unwrap();
            inspect_as_module(&client, &own).await.unwrap();
            // Nothing stays behind on the connection.
            let sql =
                "select current_setting('search_path'), current_setting('transaction_read_only')";
            let row = client.query_one(sql, &[]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), "stock", "{tier}");
            assert_eq!(row.get::<_, &str>(1), "off", "{tier}");
        }
        cell = home.cell;
    }
    let inspected = cell.admin.inspect(&rules()).await.unwrap();
    assert_eq!(inspected.len(), 3, "one database in each tier");
    for Inspected { database, drifts } in inspected {
        assert_eq!(drifts, [], "{database}");
    }
}

/// A move holds the tables that it fills for as long as that takes. Whoever opens a connection to the bucket
/// meanwhile would wait, there would be no new schemas in stock, nobody else's drift would be mended, and the
/// advisor would know nothing of the whole cell.
#[tokio::test]
async fn a_look_waits_for_no_table() {
    let home = home(private_cell().await, Tier::Schema).await;
    let mut mover = home.superuser().await;
    let tables = "select oid::regclass::text from pg_class
                   where relnamespace = to_regnamespace($1) and relkind = 'r'";
    let tables = mover.query(tables, &[&home.schema()]).await.unwrap();
    let held = mover.transaction().await.unwrap();
    for table in &tables {
        let lock = format!("lock table {}", table.get::<_, &str>(0));
        held.batch_execute(&lock).await.unwrap();
    }
    // As a server that was restored from a dump keeps it.
    let unpadded = "do $$ declare p record; begin
        for p in select * from waangu.policies('waangu_module') where name <> 'tree' loop
            execute format('drop policy %I on waangu.pattern', p.name);
            execute format('create policy %I on waangu.pattern for %s to waangu_module, waangu_owner', p.name, p.command)
                || coalesce(' using (' || p.visible || ')', '') || coalesce(' with check (' || p.writable || ')', '');
        end loop; end $$";
    let other = home.superuser().await;
    other.batch_execute(unpadded).await.unwrap();
    let look = async {
        assert_eq!(drifts(&home.superuser().await).await, []);
        let own = Rules::new([&stock().manifest]);
        let dsn = home.cell.module_dsn(&module("stock"), &home.database());
        let client = connect(&dsn).await.unwrap();
        inspect_as_module(&client, &own).await.unwrap();
        let turn = home.cell.admin.stock_turn().await.unwrap().unwrap();
        let (bucket, made_of) = (home.placement.bucket, with_view());
        turn.make_schema(bucket, &made_of).await.unwrap();
        let held = format!("drop policy tenant on {}.product", home.schema());
        let mends = [
            held,
            "comment on table waangu.pattern is 'mended'".to_owned(),
        ];
        let mended = home.cell.admin.mend(&home.database(), &mends).await;
        assert!(mended.is_err(), "a table was not held");
        let comment = "select obj_description('waangu.pattern'::regclass) = 'mended'";
        assert!(
            other
                .query_one(comment, &[])
                .await
                .unwrap()
                .get::<_, bool>(0)
        );
        home.cell.admin.measure_tenants().await.unwrap()
    };
    let volumes = timeout(Duration::from_secs(20), look).await;
    let volumes = volumes.expect("a look waits for a table");
    assert!(!volumes.tenants.contains_key(&home.tenant.number()));
    held.rollback().await.unwrap();
    let volumes = home.cell.admin.measure_tenants().await.unwrap();
    assert!(volumes.tenants.contains_key(&home.tenant.number()));
}

/// A bucket may have been filled a minute ago, and the planner has not heard of it. Each new connection of a
/// module would look at it until it is ended for taking too long.
#[tokio::test]
async fn a_bucket_that_was_just_filled_is_looked_at_in_time() {
    let home = home(private_cell().await, Tier::Schema).await;
    let fill = "do $$ begin
        for n in 1000000..1000399 loop
            execute format('create schema t_%s_stock authorization waangu_owner', n);
            for k in 1..5 loop
                execute format('create table t_%1$s_stock.x%2$s (tenant_id bigint not null default waangu.tenant());
                                alter table t_%1$s_stock.x%2$s owner to waangu_owner', n, k);
            end loop;
            call waangu.protect(format('t_%s_stock', n), 'waangu_stock', '{}');
            commit;
        end loop; end $$";
    home.superuser().await.batch_execute(fill).await.unwrap();
    let client = home.outsider().await;
    // As in the pools.
    let bound = "set statement_timeout = '30s'";
    client.batch_execute(bound).await.unwrap();
    let own = Rules::new([&stock().manifest]);
    inspect_as_module(&client, &own).await.unwrap();
}

/// Each rule is broken by hand; the check must say what was broken, and its mend must mend.
#[tokio::test]
async fn each_drift_is_named_and_its_mend_mends() {
    let home = home(private_cell().await, Tier::Shared).await;
    let admin = home.superuser().await;
    let own = Rules::new([&stock().manifest]);
    let module = home.outsider().await;
    let mut wrong = Vec::new();
    for Break {
        sql,
        object,
        found,
        count,
    } in breaks::all()
    {
        admin
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let seen = drifts(&admin).await;
        let named = |drift: &Drift| drift.object == *object && drift.found.contains(found);
        if seen.len() != *count || !seen.iter().any(named) {
            wrong.push(format!("{sql}\n  gives {seen:#?}"));
        }
        // What only the administrator looks at: other databases and other modules.
        let elsewhere = ["crm", "stranger", "database postgres"];
        let elsewhere = elsewhere.iter().any(|name| object.contains(name));
        let served = inspect_as_module(&module, &own).await;
        if served.is_ok() != elsewhere {
            wrong.push(format!("{sql}\n  as the module: {served:?}"));
        }
        for drift in &seen {
            let Mend::Sql(mend) = &drift.mend else {
                panic!("{sql}: no statement mends {drift:?}");
            };
            if let Err(error) = admin.batch_execute(mend).await {
                wrong.push(format!(
                    "{sql}
  mend `{mend}`: {error:?}"
                ));
            }
        }
        let left = drifts(&admin).await;
        assert_eq!(left, [], "after the mend of {sql}: {}", wrong.join("\n"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A drift that no statement mends is still named, and the module does not serve.
#[tokio::test]
async fn what_is_lost_is_named() {
    let home = home(private_cell().await, Tier::Dedicated).await;
    let admin = home.superuser().await;
    admin
        .batch_execute("drop table waangu.home cascade")
        .await
        .unwrap();
    let seen = drifts(&admin).await;
    assert!(
        matches!(&seen[..], [one] if one.object == "table waangu.home"
            && matches!(one.mend, Mend::Advice(_))),
        "{seen:#?}"
    );
    let served = inspect_as_module(&home.outsider().await, &rules()).await;
    assert_eq!(crate::support::code(served), "isolation-drift");

    let sql = "drop owned by waangu_stock_tree cascade; drop role waangu_stock_tree";
    admin.batch_execute(sql).await.unwrap();
    let lost = "login for reading of module stock";
    let seen = drifts(&admin).await;
    assert!(seen.iter().any(|drift| drift.object == lost), "{seen:#?}");
}

/// Whoever names a partition, and not its table, must meet the same rules.
#[tokio::test]
async fn a_partition_has_the_rules_of_its_table() {
    let home = home(private_cell().await, Tier::Schema).await;
    let sql =
        "create table event (tenant_id bigint not null default waangu.tenant(), id bigint not null
                   , primary key (tenant_id, id)) partition by hash (tenant_id);
               create table event_0 partition of event for values with (modulus 1, remainder 0)";
    let mut package = with_view();
    package
        .migrations
        .extend(self::package("stock", &[], &[sql]).migrations);
    let (admin, tenant) = (&home.cell.admin, home.tenant);
    admin
        .ensure_module(tenant, &home.placement, &package)
        .await
        .unwrap();
    let superuser = home.superuser().await;
    let schema = home.schema();
    let insert = format!("insert into {schema}.event values (1, 1)");
    superuser.batch_execute(&insert).await.unwrap();
    assert_eq!(drifts(&superuser).await, []);
    for table in ["event", "event_0"] {
        let seen = crate::support::count(&home.outsider().await, table).await;
        assert_eq!(seen.unwrap(), 0, "{table}");
    }
    let weaken = format!("alter table {schema}.event_0 disable row level security");
    superuser.batch_execute(&weaken).await.unwrap();
    assert_eq!(drifts(&superuser).await.len(), 1);
    let seen = crate::support::count(&home.outsider().await, "event_0").await;
    assert_eq!(seen.unwrap(), 1, "the control experiment");
}
