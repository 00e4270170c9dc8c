//! What errors, plans, statistics and keys tell, and writing for somebody else.

use super::Leak::{Counts, Fails, Says, Succeeds};
use super::{Attack, NO_POLICIES, TOGETHER, attack};

pub(super) const ATTACKS: &[Attack] = &[
    // What errors, plans and statistics tell.
    attack(
        "an error that quotes a row",
        Says,
        NO_POLICIES,
        &[
            "select t::text::integer from {table} t where tenant_id = {b}
             order by t::text like '%{secret}%' desc",
        ],
    ),
    attack(
        "an error that counts",
        Fails("22012"),
        NO_POLICIES,
        &["select 1 / (tenant_id - {b}) from {table} where tenant_id is not null"],
    ),
    attack(
        "samples in pg_stats",
        Counts,
        NO_POLICIES,
        &["select count(*) from pg_stats where schemaname = '{schema}'
             and tablename = '{name}'"],
    ),
    attack(
        "a scan by place on disk",
        Counts,
        NO_POLICIES,
        &["select count(*) filter (where tenant_id = {b}) from {table}
             where ctid >= '(0,0)'"],
    ),
    attack(
        "a random sample",
        Counts,
        NO_POLICIES,
        &["select count(*) filter (where tenant_id = {b}) from {table}
             tablesample system (100)"],
    ),
    attack(
        "a query as XML",
        Says,
        NO_POLICIES,
        &["select query_to_xml('select t::text from {table} t', true, false, '')"],
    ),
    attack(
        "COPY TO",
        Says,
        NO_POLICIES,
        &[
            "declare c cursor for select t::text from {table} t",
            "fetch all from c",
        ],
    ),
    attack(
        "a lock that finds rows",
        Counts,
        NO_POLICIES,
        &[
            "with l as (select from {table} where tenant_id = {b} for key
             share) select count(*) from l",
        ],
    )
    .needing("has_table_privilege('{login}', '{table}', 'update')"),
    attack(
        "a unique key over all tenants",
        Fails("23505"),
        "create unique index peep on {table} ({key})",
        &["insert into {table} select * from
             jsonb_populate_record(null::{table}, '{row}')"],
    )
    .needing(TOGETHER),
    attack(
        "ON CONFLICT over all tenants",
        Counts,
        "create unique index peep on {table} ({key})",
        &["with i as (insert into {table} select * from
             jsonb_populate_record(null::{table}, '{row}') on conflict do
             nothing returning 1) select 1 - count(*) from i"],
    )
    .needing(
        "'{database}' !~ '^waangu_t_' and not exists (select from
             pg_constraint where conrelid = '{table}'::regclass and contype
             = 'f')",
    ),
    attack(
        "a foreign key over all tenants",
        Succeeds,
        "create unique index peep on {parent} ({parent_columns});
             create function {schema}.peep() returns void language sql as
             'select'; do $$ declare k record; begin for k in select
             conname, pg_get_constraintdef(oid) as def from pg_constraint
             where conrelid = '{table}'::regclass and contype = 'f' loop
             execute format('alter table {table} drop constraint %I',
             k.conname); execute
             format('comment on function {schema}.peep() is %L' ,
             coalesce(obj_description('{schema}.peep()'::regprocedure), '')
             || format('alter table {table} add constraint %I %s; ',
             k.conname, k.def)); end loop; end $$; alter table {table} add
             constraint peep foreign key ({columns}) references {parent}
             ({parent_columns})",
        &["insert into {table} select * from
             jsonb_populate_record(null::{table}, '{row}')"],
    )
    .dropping(
        "alter table {table} drop constraint if exists peep; do $$
             begin execute
             obj_description('{schema}.peep()'::regprocedure); end $$; drop
             function {schema}.peep()",
    )
    .needing(TOGETHER),
    // Writing.
    Attack {
        everywhere: true,
        ..attack(
            "rows planted for another tenant",
            Succeeds,
            NO_POLICIES,
            &["insert into {table} select * from
             jsonb_populate_record(null::{table}, '{row}'::jsonb ||
             '{\"tenant_id\": {b}}') on conflict do nothing"],
        )
    },
    attack(
        "another tenant's rows changed",
        Counts,
        "alter table {table} disable row level security; grant update
             on {table} to {login}",
        &["with u as (update {table} set tenant_id = tenant_id where
             tenant_id = {b} returning 1) select count(*) from u"],
    ),
    attack(
        "another tenant's rows removed",
        Counts,
        "alter table {table} disable row level security; grant delete
             on {table} to {login}; alter table {table} disable trigger all",
        &[
            "with d as (delete from {table} where tenant_id = {b} returning
             1) select count(*) from d",
        ],
    ),
    attack(
        "TRUNCATE",
        Succeeds,
        "grant truncate on all tables in schema {schema} to {login}",
        &["truncate {table} cascade"],
    ),
    Attack {
        reads: true,
        savepoint: true,
        ..attack(
            "writing with a proof for reading",
            Counts,
            "alter policy tenant_insert on {table} with check (true); alter
             table {table} disable trigger all",
            &["with i as (insert into {table} select * from
             jsonb_populate_record(null::{table}, '{row}') returning 1)
             select count(*) from i"],
        )
    },
];
