//! The stock of schemas: taken whole and by one, the same as one that was made for its tenant, used by
//! nobody before. On servers of their own, because looking for drift takes in all of a server.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use waangu_identity::proof::Access;
use waangu_kernel::placement::Tier;
use waangu_kernel::{Placement, TenantId};
use waangu_tenancy::admin::{Recipe, StockedSchema};
use waangu_tenancy::{CellAdmin, HomeState, ModulePackage, Rules, TenantTx};
use waangu_testkit::{Cell, connect, context, private_cell};

use crate::support::{module, package, stock};

const BUCKET: i32 = 1;

/// Everything that may carry a schema's name, or rights of its own.
const RICH: &str = "
create type mood as enum ('good', 'bad');
create domain amount as bigint check (value >= 0);
create table note (
    tenant_id bigint not null default waangu.tenant()
  , id bigint generated always as (length(body) + 1) stored
  , body text not null
  , mood mood not null default 'good'
  , paid amount not null default 0
  , changed_at timestamptz
  , primary key (tenant_id, id)
  , constraint note_body_check check (char_length(body) < 100)
);
comment on table note is 'what somebody wrote';
create index note_mood on note (tenant_id, lower(body)) where mood = 'bad';
create function last_note() returns note language plpgsql as $$
declare
    v_note note;
begin
    select * into v_note from note order by id desc limit 1;
    return v_note;
end $$;
create function touch() returns trigger language plpgsql as $$
begin
    new.changed_at := now();
    return new;
end $$;
create trigger note_touch before insert on note for each row execute function touch();
create function loud(p_note note) returns text language sql return upper(p_note.body);
create function moods() returns bigint language sql set search_path from current
    as 'select count(distinct mood) from note';
create view shown with (security_invoker = true) as select id, loud(note) as body from note";

fn rich() -> ModulePackage {
    package(
        "stock",
        &[],
        &[RICH, "alter table note add column extra text"],
    )
}

/// The catalogue of the schema `$1`, a line for each thing, with its name left out.
const CATALOGUE: &str = r"
with own as (
    select oid, nspname::text as name, nspowner::regrole, nspacl::text from pg_namespace where nspname = $1
)
, relation as (
    select c.* from pg_class c join own o on o.oid = c.relnamespace
)
, line (what) as (
    select format('schema %s %s', nspowner, nspacl) from own
     union all
    select format('%s %s %s %s %s %s %s', relkind, relname, relowner::regrole, relacl, reloptions
                , relrowsecurity, relforcerowsecurity) from relation
     union all
    select format('column %s.%s %s %s %s %s', r.relname, a.attname, a.attnum
                , format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
      from relation r
      join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and r.relkind in ('r', 'v')
      left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
     union all
    select format('constraint %s %s', conname, pg_get_constraintdef(k.oid))
      from pg_constraint k join own o on o.oid = k.connamespace
     union all
    select pg_get_indexdef(oid) from relation where relkind = 'i'
     union all
    select format('policy %s.%s %s %s %s %s', r.relname, p.polname, p.polcmd, p.polroles::regrole[]
                , pg_get_expr(p.polqual, r.oid), pg_get_expr(p.polwithcheck, r.oid))
      from relation r join pg_policy p on p.polrelid = r.oid
     union all
    select pg_get_triggerdef(t.oid) || t.tgenabled::text
      from relation r join pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal
     union all
    select format('%s %s %s %s', pg_get_functiondef(f.oid), f.proowner::regrole, f.proacl, f.proconfig)
      from pg_proc f join own o on o.oid = f.pronamespace
     union all
    select 'view ' || pg_get_viewdef(oid) from relation where relkind = 'v'
     union all
    select format('type %s %s', t.typname, t.typowner::regrole)
      from pg_type t join own o on o.oid = t.typnamespace
     union all
    select format('comment %s %s', r.relname, d.description)
      from relation r join pg_description d on d.objoid = r.oid
     union all
    select format('migration %s %s %s', m.module, m.number, m.name)
      from own o join waangu.migration m on m.schema_name = o.name
)
select replace(what, $1, 'SCHEMA') from line order by 1";

async fn catalogue(client: &Client, schema: &str) -> Vec<String> {
    let rows = client.query(CATALOGUE, &[&schema]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// A cell whose first bucket has so many schemas in stock.
async fn stocked(package: &ModulePackage, count: usize) -> Cell {
    let cell = private_cell().await;
    let bucket = format!("waangu_schema_{BUCKET}");
    let (tenant, placement) = tenant(&cell);
    assert_eq!(placement.database(tenant), bucket);
    cell.admin.ensure_place(tenant, &placement).await.unwrap();
    let turn = cell.admin.stock_turn().await.unwrap().unwrap();
    for _ in 0..count {
        turn.make_schema(BUCKET, package).await.unwrap();
    }
    drop(turn);
    cell
}

fn tenant(cell: &Cell) -> (TenantId, Placement) {
    let (tenant, mut placement) = cell.tenant(Tier::Schema);
    placement.bucket = BUCKET;
    (tenant, placement)
}

async fn in_stock(cell: &Cell) -> Vec<StockedSchema> {
    cell.admin.list_schema_stock(BUCKET).await.unwrap()
}

/// What the reconciler does for a new tenant; says whether its schema came out of the stock.
async fn onboard(
    admin: &CellAdmin,
    tenant: TenantId,
    placement: &Placement,
    package: &ModulePackage,
) -> bool {
    let mut place = admin.place(tenant, placement);
    place.set_lineage(&[tenant.number()]).await.unwrap();
    let taken = place.take_schema_from_stock(package).await.unwrap();
    if !taken {
        place.ensure_module(package).await.unwrap();
    }
    place.put_home(HomeState::Active).await.unwrap();
    taken
}

async fn works(cell: &Cell, tenant: TenantId, placement: &Placement) {
    let stock = module("stock");
    let context = context(tenant, placement, &stock, Access::Write, &cell.key);
    let mut tx = TenantTx::begin(&cell.pools(&stock), &context)
        .await
        .unwrap();
    let sql = "insert into product (id, name) values ($1, 'mine')";
    tx.execute(sql, &[&tenant.number()]).await.unwrap();
    let rows = tx.query("select id from product", &[]).await.unwrap();
    let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids, [tenant.number()]);
    tx.commit().await.unwrap();
}

async fn is_sound(cell: &Cell) {
    for inspected in cell.admin.inspect(&rules()).await.unwrap() {
        assert_eq!(inspected.drifts, [], "{}", inspected.database);
    }
}

fn rules() -> Rules {
    Rules::new([&stock().manifest])
}

/// Two clients in one schema, or a client whose schema lacks its tables, is what a stock must never
/// make; and who comes when it is empty must not be turned away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_taken_by_one_tenant_and_the_rest_are_made() {
    let cell = stocked(&stock(), 3).await;
    is_sound(&cell).await;
    let mut workers = JoinSet::new();
    for _ in 0..8 {
        let (admin, (tenant, placement)) = (cell.another_admin(), tenant(&cell));
        workers.spawn(async move {
            let taken = onboard(&admin, tenant, &placement, &stock()).await;
            (taken, tenant, placement)
        });
    }
    let mut from_stock = 0;
    for (taken, tenant, placement) in workers.join_all().await {
        from_stock += i32::from(taken);
        works(&cell, tenant, &placement).await;
        let modules = [module("stock")];
        let seen = cell.admin.observe(tenant, &placement, &modules).await;
        assert_eq!(seen.unwrap().modules, [(module("stock"), 1)]);
    }
    assert_eq!(from_stock, 3);
    assert_eq!(in_stock(&cell).await, []);
    is_sound(&cell).await;
}

/// A tenant that differs from its neighbours in anything is one that upgrades and moves meet unprepared.
#[tokio::test]
async fn a_schema_from_stock_is_the_same_as_one_that_was_made() {
    let cell = stocked(&rich(), 1).await;
    let (taken, placement) = tenant(&cell);
    assert!(onboard(&cell.admin, taken, &placement, &rich()).await);
    let (made, _) = tenant(&cell);
    assert!(!onboard(&cell.admin, made, &placement, &rich()).await);

    let dsn = cell.superuser_dsn(&placement.database(taken));
    let server = connect(&dsn).await.unwrap();
    let name = |tenant| placement.schema(tenant, &module("stock"));
    let expected = catalogue(&server, &name(made)).await;
    assert!(expected.len() > 30, "{expected:#?}");
    assert_eq!(catalogue(&server, &name(taken)).await, expected);
    let left = "select count(*) from waangu.migration where schema_name like 'stock%'";
    let left: i64 = server.query_one(left, &[]).await.unwrap().get(0);
    assert_eq!(left, 0);
    is_sound(&cell).await;

    // Its functions find its own types and tables, on a connection that has served the other one.
    let pools = cell.pools(&module("stock"));
    for tenant in [made, taken, made] {
        let context = context(
            tenant,
            &placement,
            &module("stock"),
            Access::Write,
            &cell.key,
        );
        let mut tx = TenantTx::begin(&pools, &context).await.unwrap();
        let body = "x".repeat(usize::try_from(tenant.number()).unwrap() % 50);
        let sql = "insert into note (body, mood) values ($1, 'bad') on conflict do nothing";
        tx.execute(sql, &[&body]).await.unwrap();
        let sql = "select (last_note()).body, moods(), (select body from shown)
                        , (select changed_at is not null from note)";
        let row = tx.query(sql, &[]).await.unwrap().remove(0);
        assert_eq!(row.get::<_, String>(0), body);
        assert_eq!(row.get::<_, i64>(1), 1);
        assert_eq!(row.get::<_, String>(2), body.to_uppercase());
        assert!(row.get::<_, bool>(3));
        tx.commit().await.unwrap();
    }
}

/// A tenant with yesterday's tables is a tenant that nobody has described; and what is stale must go.
#[tokio::test]
async fn a_schema_of_another_recipe_is_not_taken() {
    let cell = stocked(&package("stock", &[], &["select 1"]), 1).await;
    let (tenant, placement) = tenant(&cell);
    assert!(!onboard(&cell.admin, tenant, &placement, &stock()).await);
    works(&cell, tenant, &placement).await;
    let turn = cell.admin.stock_turn().await.unwrap().unwrap();
    for schema in in_stock(&cell).await {
        assert!(!Recipe::new(&[&stock()]).made_schema(&schema));
        turn.discard_schema(BUCKET, &schema).await.unwrap();
        turn.discard_schema(BUCKET, &schema).await.unwrap();
    }
    assert_eq!(in_stock(&cell).await, []);
    let dsn = cell.superuser_dsn(&placement.database(tenant));
    let sql = "select count(*) from pg_namespace where nspname like 'stock%'";
    let row = connect(&dsn).await.unwrap().query_one(sql, &[]).await;
    assert_eq!(row.unwrap().get::<_, i64>(0), 0);
}

/// Whoever dies half-way must leave a whole schema in stock or a whole tenant, and who waits for
/// somebody who never answers would be a client that is never served.
#[tokio::test]
async fn who_dies_on_the_way_leaves_whole_or_nothing() {
    let cell = stocked(&stock(), 2).await;
    let (tenant, placement) = tenant(&cell);
    // A taker, or one who discards, that got so far and says no more.
    let dsn = cell.superuser_dsn(&placement.database(tenant));
    let dying = connect(&dsn).await.unwrap();
    let first = in_stock(&cell).await.remove(0);
    let held = format!(
        "begin;
         select from waangu.migration where schema_name = '{0}' for update;
         alter schema {0} rename to t_999_stock;
         update waangu.migration set schema_name = 't_999_stock' where schema_name = '{0}'",
        first.name
    );
    dying.batch_execute(&held).await.unwrap();
    assert!(onboard(&cell.admin, tenant, &placement, &stock()).await);
    works(&cell, tenant, &placement).await;
    let turn = cell.admin.stock_turn().await.unwrap().unwrap();
    turn.discard_schema(BUCKET, &first).await.unwrap();
    drop(dying);

    // Nothing has become of it: the next one takes it, whole.
    let (tenant, placement) = self::tenant(&cell);
    let mut taken = false;
    for _ in 0..50 {
        let mut place = cell.admin.place(tenant, &placement);
        taken = place.take_schema_from_stock(&stock()).await.unwrap();
        if taken {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(taken);
    // Who comes after a taker that died before the door was open finds the tables there.
    assert!(onboard(&cell.another_admin(), tenant, &placement, &stock()).await);
    works(&cell, tenant, &placement).await;
    is_sound(&cell).await;
}

/// A module that is broken into must not find a place where it can wait for the next client.
#[tokio::test]
async fn no_module_can_use_one_and_an_open_one_is_found() {
    let cell = stocked(&stock(), 1).await;
    let name = in_stock(&cell).await.remove(0).name;
    let bucket = format!("waangu_schema_{BUCKET}");
    for dsn in [
        cell.module_dsn(&module("stock"), &bucket),
        cell.tree_dsn(&module("stock"), &bucket),
    ] {
        let client = connect(&dsn).await.unwrap();
        let sql = format!("select from {name}.product");
        let refused = client
            .batch_execute(&sql)
            .await
            .expect_err("it is nobody's");
        assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    }
    let server = connect(&cell.superuser_dsn(&bucket)).await.unwrap();
    let open = format!("grant usage on schema {name} to waangu_stock");
    server.batch_execute(&open).await.unwrap();
    let found = cell.admin.inspect(&rules()).await.unwrap();
    let drifts: Vec<_> = found
        .iter()
        .flat_map(|inspected| &inspected.drifts)
        .collect();
    assert_eq!(drifts.len(), 1, "{drifts:?}");
    assert_eq!(drifts[0].object, format!("schema in stock {name}"));
    server
        .batch_execute(&drifts[0].mend.to_string())
        .await
        .unwrap();
    is_sound(&cell).await;
}

/// A function that was told the schema's name would go on looking for it when the name has changed.
#[tokio::test]
async fn what_writes_its_schema_down_is_not_made_in_advance() {
    let cell = stocked(&stock(), 0).await;
    let turn = cell.admin.stock_turn().await.unwrap().unwrap();
    let table =
        "create table t (tenant_id bigint not null primary key default waangu.tenant(), x text);";
    for written in [
        "execute format('create function f() returns name language sql as $f$select name %L$f$', current_schema())",
        "execute format('alter table t alter x set default %L', current_schema())",
        "execute format('alter table t add check (x <> %L)', current_schema())",
        "execute format('create view v with (security_invoker = true) as select x from t where x = %L', current_schema())",
    ] {
        let sql = format!("{table} do $$ begin {written}; end $$");
        let package = package("stock", &[], &[&sql]);
        let refused = turn.make_schema(BUCKET, &package).await.unwrap_err();
        assert_eq!(refused.code(), "module-manifest-invalid", "{written}");
    }
    assert_eq!(in_stock(&cell).await, []);
}
