//! The look at a module's schema goes by what depends on the schema. Nothing that stands in it may escape.

use tokio_postgres::Client;
use waangu_kernel::placement::Tier;

use crate::support::Home;

/// One of everything that can stand in a schema, made there, moved there, or brought by an extension.
const EVERYTHING: &str = "
create schema {s} authorization waangu_owner;
create schema {s}_x authorization waangu_owner;
create table {s}.plain (tenant_id bigint not null, id bigint not null, body text, primary key (tenant_id, id));
create index on {s}.plain (tenant_id, body);
create table {s}.parted (tenant_id bigint not null, id bigint) partition by hash (tenant_id);
create index on {s}.parted (tenant_id);
create table {s}.part partition of {s}.parted for values with (modulus 1, remainder 0);
create table {s}.child () inherits ({s}.plain);
create unlogged table {s}.unlogged (tenant_id bigint not null);
create table {s}.copied as select 1 as one;
create table {s}.identity (id bigint generated always as identity, n bigserial);
create sequence {s}.free;
create view {s}.shown as select * from {s}.plain;
create materialized view {s}.kept as select 1 as one;
create foreign data wrapper {s}_w;
create server {s}_s foreign data wrapper {s}_w;
create foreign table {s}.afar (a bigint) server {s}_s;
create type {s}.pair as (a bigint, b bigint);
create function {s}.f() returns bigint language sql return 1;
create function {s}.d() returns bigint language sql security definer return 1;
create procedure {s}.p() language sql as 'select 1';
create aggregate {s}.total (bigint) (sfunc = int8pl, stype = bigint);
create type {s}.span as range (subtype = bigint);
create table {s}_x.moved (tenant_id bigint not null, id bigserial);
create function {s}_x.moved() returns bigint language sql return 1;
create view {s}_x.moved_view as select 1 as one;
create materialized view {s}_x.moved_kept as select 1 as one;
create sequence {s}_x.moved_free;
alter table {s}_x.moved set schema {s};
alter function {s}_x.moved() set schema {s};
alter view {s}_x.moved_view set schema {s};
alter materialized view {s}_x.moved_kept set schema {s};
alter sequence {s}_x.moved_free set schema {s};
create table public.from_public (tenant_id bigint not null);
alter table public.from_public set schema {s};
create function pg_catalog.{s}_pinned() returns bigint language sql return 1;
set local allow_system_table_mods = on;
alter function pg_catalog.{s}_pinned() set schema {s};
alter table {s}.plain owner to waangu_owner;
do $$ begin
    if exists (select from pg_available_extensions where name = 'hstore') then
        create extension hstore schema {s};
    end if;
end $$";

/// What stands in the schema by its columns and does not depend on it, and the other way round.
const MISSED: &str = "
with place (oid) as (
    select to_regnamespace($1)::oid
)
, stands (classid, objid) as (
    select 'pg_class'::regclass, c.oid from pg_class c, place p
     where c.relnamespace = p.oid and c.relkind not in ('i', 'I', 't', 'c')
    union
    select 'pg_proc'::regclass, f.oid from pg_proc f, place p where f.pronamespace = p.oid
)
, depends (classid, objid) as (
    select d.classid::regclass, d.objid from pg_depend d, place p
     where d.refclassid = 'pg_namespace'::regclass and d.refobjid = p.oid
       and d.classid in ('pg_class'::regclass, 'pg_proc'::regclass)
)
, different as (
    (select * from stands except all select * from depends)
    union all
    (select * from depends except all select * from stands)
)
select (select count(*) from stands)
     , array(select pg_describe_object(classid, objid, 0) from different)";

async fn missed(client: &Client, schema: &str) -> (i64, Vec<String>) {
    let row = client.query_one(MISSED, &[&schema]).await;
    let row = row.expect("compare the catalogue with itself");
    (row.get(0), row.get(1))
}

/// An object that PostgreSQL did not note as its schema's would pass every rule of isolation unseen.
#[tokio::test]
async fn whatever_stands_in_a_schema_depends_on_it() {
    let home = Home::new(Tier::Dedicated).await;
    let mut client = home.superuser().await;
    let none: [String; 0] = [];
    assert_eq!(missed(&client, &home.schema()).await, (2, none.to_vec()));
    let tx = client.transaction().await.expect("begin");
    let sql = EVERYTHING.replace("{s}", "everything");
    tx.batch_execute(&sql).await.expect("make one of each");
    tx.commit().await.expect("commit");
    let (stand, different) = missed(&client, "everything").await;
    assert_eq!(different, none);
    assert!(stand >= 29, "{stand} objects");
    // The control experiment.
    let forget = "delete from pg_depend
                   where refclassid = 'pg_namespace'::regclass
                     and refobjid = 'everything'::regnamespace
                     and objid = 'everything.plain'::regclass";
    client.batch_execute(forget).await.expect("forget a table");
    let (_, different) = missed(&client, "everything").await;
    assert_eq!(different, ["table everything.plain"]);
}

/// A look that asks the whole catalogue takes the longer the more tenants stand in the database: it took
/// five times as long as the migration in front of it.
#[tokio::test]
async fn a_look_reads_this_schema_and_nothing_else() {
    let home = Home::new(Tier::Dedicated).await;
    let client = home.superuser().await;
    let sql = format!(
        "select whole from waangu.look('{}', 'waangu_stock', '{{movement}}')",
        home.schema()
    );
    assert!(
        client
            .query_one(&sql, &[])
            .await
            .expect("look")
            .get::<_, bool>(0)
    );
    let (few, many) = (
        scans(&client, &sql, 1).await,
        scans(&client, &sql, 11).await,
    );
    assert_eq!(few, many, "scans of a whole catalogue");
    // The control experiment.
    let all = "select count(*) from pg_class where relnamespace = 'stock'::regnamespace";
    let (few, many) = (scans(&client, all, 1).await, scans(&client, all, 11).await);
    assert_eq!(many - few, 10);
}

/// How often a catalogue was read from end to end while this ran so many times, and our questions.
async fn scans(client: &Client, sql: &str, times: usize) -> i64 {
    let count = "select pg_stat_force_next_flush()::text
                      , (select sum(seq_scan)::bigint from pg_stat_sys_tables
                          where relname in ('pg_class', 'pg_proc', 'pg_depend', 'pg_attribute', 'pg_index'
                                          , 'pg_constraint', 'pg_policy', 'pg_trigger'))";
    let scanned = async || -> i64 {
        client.query_one(count, &[]).await.expect("flush");
        client.query_one(count, &[]).await.expect("count").get(1)
    };
    let before = scanned().await;
    for _ in 0..times {
        client.query_one(sql, &[]).await.expect("run it");
    }
    scanned().await - before
}
