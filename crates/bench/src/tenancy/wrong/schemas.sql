-- A schema for each tenant, as django-tenants has them; each with rows of the same ids.
do $$
begin
    for n in 1 .. :tenants loop
        execute format('create schema tenant_%s authorization bench_django', n);
        execute format('create table tenant_%s.note (id bigint primary key, tenant bigint not null)', n);
        execute format('insert into tenant_%s.note select i, %s from generate_series(1, 10) as i', n, n);
        execute format('grant select on tenant_%s.note to bench_django', n);
    end loop;
end $$
