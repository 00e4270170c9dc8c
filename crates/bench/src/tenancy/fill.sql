-- Rows of every tenant, in the order in which tenants write: side by side, not one after the other.
-- Every tenant has the same ids, so that a read in the wrong tenant finds a row and is noticed.
insert into goods.item (tenant_id, id, name, amount)
select t, n, 'item ' || n || ' of tenant ' || t, n
  from generate_series(1, :rows) as n, generate_series(1, :tenants) as t;

-- The same SQL without row-level security.
create role bench_bare login bypassrls password ':password';

-- The way people write it: the setting itself decides, and anybody can set it.
create role bench_today login password ':password';
create policy today on goods.item to bench_today
    using (tenant_id = current_setting('app.current_tenant')::bigint)
    with check (tenant_id = current_setting('app.current_tenant')::bigint);

grant connect on database waangu to bench_bare, bench_today;
grant usage on schema goods to bench_bare, bench_today;
-- What people do today; no login of a module may.
grant execute on function set_config(text, text, boolean) to bench_bare, bench_today;
grant select, insert, update, delete on goods.item to bench_bare, bench_today;
alter role bench_bare set search_path = goods;
alter role bench_today set search_path = goods;
