//! Values of every built-in type, copied and streamed.

use waangu_relocation::Relocation;
use waangu_testkit::{Tier, private_cell};

use crate::support::{Spot, Traveller, run};

const COLUMNS: &[(&str, &str)] = &[
    ("boolean", "true"),
    ("smallint", "-32768"),
    ("integer", "2147483647"),
    ("bigint", "-9223372036854775808"),
    ("real", "3.4028235e38"),
    ("double precision", "0.1::double precision + 0.2"),
    ("numeric", "'NaN'"),
    ("numeric(30,10)", "12345678901234567890.0123456789"),
    ("money", "'12.34'"),
    ("text", "E'a\\tb\\n\\\\N\\u00e9'"),
    ("varchar(5)", "'abc'"),
    ("char(5)", "'ab'"),
    ("\"char\"", "'x'"),
    ("name", "'a name'"),
    ("bytea", "'\\x00ff5c27'"),
    ("date", "'infinity'"),
    ("time", "'23:59:59.999999'"),
    ("timetz", "'12:00:00+05:30'"),
    ("timestamp", "'4713-01-01 BC'"),
    ("timestamptz", "'2026-11-23 10:00:00.123456+00'"),
    ("interval", "'-1 year 2 mons -3 days 04:05:06.7'"),
    ("uuid", "'00000000-0000-0000-0000-000000000001'"),
    ("json", "'{\"a\":  1}'"),
    ("jsonb", "'{\"a\": [1, null]}'"),
    ("jsonpath", "'$.a[*]'"),
    ("xml", "'<a>b</a>'"),
    ("inet", "'::1/64'"),
    ("cidr", "'10.0.0.0/8'"),
    ("macaddr", "'08:00:2b:01:02:03'"),
    ("macaddr8", "'08:00:2b:01:02:03:04:05'"),
    ("bit(3)", "B'101'"),
    ("varbit", "B'10101'"),
    ("tsvector", "'a:1A b'"),
    ("tsquery", "'a & !b'"),
    ("point", "'(1.5,2)'"),
    ("line", "'{1,2,3}'"),
    ("lseg", "'[(0,0),(1,1)]'"),
    ("box", "'(1,1),(0,0)'"),
    ("path", "'[(0,0),(1,1)]'"),
    ("polygon", "'((0,0),(1,1),(1,0))'"),
    ("circle", "'<(0,0),2>'"),
    ("pg_lsn", "'16/B374D848'"),
    ("xid8", "'42'"),
    ("pg_snapshot", "'10:20:10,14'"),
    ("oid", "7"),
    ("int4range", "'[1,5)'"),
    ("numrange", "'(1.5,)'"),
    ("tstzrange", "'[2026-01-01 00:00+00,)'"),
    ("daterange", "'empty'"),
    ("int8multirange", "'{[1,3),[7,9)}'"),
    ("integer[]", "'{{1,2},{3,null}}'"),
    ("text[]", "array['a,b', '\"', 'null', null, '']"),
    ("numeric[]", "'[0:1]={1,2}'"),
];

/// A type that does not travel well would change a customer's values.
#[tokio::test(flavor = "multi_thread")]
async fn every_built_in_type_arrives_unchanged() {
    let a = private_cell().await;
    let columns: Vec<String> = COLUMNS
        .iter()
        .enumerate()
        .map(|(n, (kind, _))| format!("c{n} {kind}"))
        .collect();
    let values: Vec<&str> = COLUMNS.iter().map(|(_, value)| *value).collect();
    let values = values.join(", ");
    let table = format!(
        "create table x (tenant_id bigint not null, id bigint, {}, primary key (tenant_id, id))",
        columns.join(", ")
    );
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), &table).await;
    let number = tenant.tenant.number();
    let superuser = tenant.superuser().await;
    let write = format!(
        "insert into stock.x values ({number}, 1, {values}); insert into stock.x (tenant_id, id) values ({number}, 2)"
    );
    superuser.batch_execute(&write).await.expect("copied rows");
    let to = Spot(&a, Tier::Schema);
    let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
    let step = relocation.next().await.expect("a step");
    relocation.apply(&step).await.expect("copy");
    let sets: Vec<String> = COLUMNS
        .iter()
        .enumerate()
        .map(|(n, (_, value))| format!("c{n} = {value}"))
        .collect();
    let write = format!(
        "insert into stock.x values ({number}, 3, {values}); insert into stock.x (tenant_id, id) values ({number}, 4);
         update stock.x set {} where tenant_id = {number} and id = 2",
        sets.join(", ")
    );
    superuser
        .batch_execute(&write)
        .await
        .expect("streamed rows");
    drop(relocation);
    let before = tenant.rows("x").await;
    run(tenant.request(to))
        .await
        .expect("a worker after the copy finishes");
    tenant.placement = tenant.placement_at(to.1);
    assert_eq!(before.len(), 4);
    assert_eq!(tenant.rows("x").await, before);
}

/// A bulk change would be applied in part, or overflow the worker.
#[tokio::test(flavor = "multi_thread")]
async fn one_large_transaction_is_applied_whole() {
    let a = private_cell().await;
    let table = "create table x (tenant_id bigint not null, id bigint, v text, primary key (tenant_id, id))";
    let mut tenant = Traveller::settle(Spot(&a, Tier::Dedicated), table).await;
    let number = tenant.tenant.number();
    let to = Spot(&a, Tier::Shared);
    let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
    let step = relocation.next().await.expect("a step");
    relocation.apply(&step).await.expect("copy");
    let write = format!(
        "begin; insert into stock.x select {number}, g, 'v' || g from generate_series(1, 12000) g;
         update stock.x set id = -id where id % 3 = 0; savepoint s; delete from stock.x; rollback to s;
         delete from stock.x where id % 5 = 0; commit"
    );
    tenant
        .superuser()
        .await
        .batch_execute(&write)
        .await
        .expect("a large transaction");
    let step = relocation.next().await.expect("a step");
    relocation.apply(&step).await.expect("cut over");
    let before = tenant.rows("x").await;
    drop(relocation);
    run(tenant.request(to)).await.expect("finish");
    tenant.placement = tenant.placement_at(to.1);
    assert_eq!(before.len(), 9600);
    assert_eq!(tenant.rows("x").await, before);
}
