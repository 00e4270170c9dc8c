-- Gateways are told of a tenant when it can be served, not of each step before. A notification makes them
-- read, and makes its transaction commit alone: PostgreSQL takes one after another of those that notify.

create or replace function registry.mark_tenant() returns trigger language plpgsql as $$
begin
    new.changed_xid := pg_current_xact_id()::text::bigint;
    if new.state <> 'provisioning' or old.state is distinct from new.state and tg_op = 'UPDATE' then
        perform pg_notify('waangu_change', '');
    end if;
    return new;
end $$;

-- A tenant that this transaction has marked already need not be written again.
create or replace function registry.mark_owner() returns trigger language plpgsql as $$
declare
    v_tenant bigint := case tg_op when 'DELETE' then old.tenant_id else new.tenant_id end;
begin
    update registry.tenant
       set changed_xid = 0
     where id = v_tenant and changed_xid <> pg_current_xact_id()::text::bigint;
    return null;
end $$;
