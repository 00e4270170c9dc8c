//! Keys and indexes of a place that were taken off for the copy.

use waangu_testkit::{Tier, private_cell};

use crate::support::{Spot, Traveller, at, run};

/// One of everything that a module may have, except what its definition does not tell whole.
const TABLES: &str = "
create table part (
    tenant_id bigint not null
  , id bigint not null
  , code text collate \"C\" not null
  , size int not null
  , parent bigint
  , constraint part_pkey primary key (tenant_id, id)
  , constraint part_code unique nulls not distinct (tenant_id, code) include (size)
  , constraint part_parent foreign key (tenant_id, parent) references part on delete set null (parent)
        deferrable initially deferred
);
create unique index part_large on part (tenant_id, lower(code)) where size > 10;
create index part_size on part (tenant_id, size desc nulls last) with (fillfactor = 60);
create index part_told on part (tenant_id, code);
create table use (
    tenant_id bigint not null
  , id bigint not null
  , part bigint not null
  , constraint use_pkey primary key (tenant_id, id) with (fillfactor = 70)
  , constraint use_part foreign key (tenant_id, part) references part
  , constraint use_told foreign key (tenant_id, part) references part
);
comment on index part_told is 'kept';
comment on constraint use_told on use is 'kept';
create view counted with (security_invoker = true) as
    select tenant_id, id, part, count(*) from use group by tenant_id, id";

const KEYS: &str = "
    select format('%s: %s, %s, %s', c.conname, pg_get_constraintdef(c.oid), c.convalidated, obj_description(c.oid))
      from pg_constraint c where c.connamespace = to_regnamespace($1) and c.contype <> 'c'
    union all
    select format('%s, %s, %s, %s', replace(pg_get_indexdef(i.indexrelid), $1 || '.', ''), x.reloptions
                , i.indisvalid, obj_description(x.oid))
      from pg_index i join pg_class x on x.oid = i.indexrelid
     where x.relnamespace = to_regnamespace($1)
     order by 1";

/// A tenant would come to a place where its rows may be doubled, or lists take for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_place_has_all_keys_that_the_old_one_has() {
    let a = private_cell().await;
    let mut tenant = Traveller::settle(Spot(&a, Tier::Dedicated), TABLES).await;
    let number = tenant.tenant.number();
    let rows = format!(
        "insert into stock.part select {number}, g, 'c' || g, g, nullif(g - 1, 0) from generate_series(1, 500) g;
         insert into stock.use select {number}, g, g from generate_series(1, 500) g"
    );
    let superuser = tenant.superuser().await;
    superuser.batch_execute(&rows).await.expect("rows");
    let keys = async |schema: &str, client: &tokio_postgres::Client| -> Vec<String> {
        let rows = client.query(KEYS, &[&schema]).await.expect("keys");
        let text = |row: &tokio_postgres::Row| row.get::<_, String>(0);
        let mut keys: Vec<String> = rows.iter().map(text).collect();
        // References and views name the schema.
        for key in &mut keys {
            *key = key.replace(&format!("{schema}."), "");
        }
        keys
    };
    let before = keys("stock", &superuser).await;
    assert!(before.len() >= 12, "{before:#?}");
    drop(superuser);
    let to = Spot(&a, Tier::Schema);
    run(tenant.request(to)).await.expect("a move");
    tenant.placement = tenant.placement_at(to.1);
    let there = at(&a, tenant.tenant, &tenant.placement).await;
    let schema = tenant
        .placement
        .schema(tenant.tenant, &crate::support::stock());
    assert_eq!(keys(&schema, &there).await, before);
    assert_eq!(tenant.rows("use").await.len(), 500);
}
