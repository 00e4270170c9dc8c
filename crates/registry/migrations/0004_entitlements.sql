-- Flags and limits: plans, what a profile gives, what a tenant has of its own; and the way of all three
-- to the gateways.

-- What tenants subscribe to: values by key, as a profile's `limits` and a tenant's own entitlements are.
create table registry.plan (
    id text primary key
  , title jsonb not null
  , entitlements jsonb not null
    -- Grows by one at each change; its ETag.
  , revision bigint not null default 1
);

alter table registry.profile add column if not exists limits jsonb not null default '{}';

alter table registry.tenant
    add column plan text constraint tenant_plan_fkey references registry.plan
    -- Grows by one at each change of the tenant's own values; the part of its ETag that is not about
    -- its place, which is the generation's.
  , add column revision bigint not null default 1;
create index tenant_plan on registry.tenant (plan) where plan is not null;

-- Only a tenant's own values are stored with it; plan and profile are looked up where they stand.
delete from registry.entitlement where origin <> 'override';
alter table registry.entitlement drop column origin;

create function registry.revise_owner() returns trigger language plpgsql as $$
begin
    update registry.tenant
       set revision = revision + 1
     where id = case when tg_op = 'DELETE' then old.tenant_id else new.tenant_id end;
    return null;
end $$;
create trigger entitlement_revises after insert or update or delete on registry.entitlement
    for each row execute function registry.revise_owner();

create trigger plan_notifies after insert or update or delete on registry.plan
    for each statement execute function registry.notify_change();
create trigger profile_notifies after insert or update or delete on registry.profile
    for each statement execute function registry.notify_change();

-- What many tenants share, once.
create view registry.entitlement_set as
select 'plan' as kind
     , id
     , entitlements
  from registry.plan
 union all
select 'profile'
     , id
     , limits
  from registry.profile;

create or replace view registry.tenant_route as
select t.id
     , t.slug
     , t.state = 'active' and t.desired = 'active' as active
     , t.state = 'deleted' as gone
     , t.cell
     , t.tier
     , t.bucket
     , t.epoch
     , t.parent_id
     , t.changed_xid
     , coalesce(
           (select array_agg(a.module order by a.module)
              from registry.activation a
             where a.tenant_id = t.id and a.enabled and a.ready)
         , '{}') as modules
     , coalesce(
           (select jsonb_object_agg(r.user_id, r.roles)
              from (select ur.user_id
                         , jsonb_agg(ur.role order by ur.role) as roles
                      from registry.user_role ur
                      join registry.app_user u on u.id = ur.user_id and not u.disabled
                     where ur.tenant_id = t.id
                     group by ur.user_id) r)
         , '{}') as grants
     , t.plan
     , t.profile
     , (select jsonb_object_agg(e.key, e.value)
          from registry.entitlement e
         where e.tenant_id = t.id) as own
  from registry.tenant t;

grant select on registry.entitlement_set to waangu_gateway;
