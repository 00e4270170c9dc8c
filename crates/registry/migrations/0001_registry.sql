-- The control database: what the platform wants, and what it last saw. Money, passwords of database
-- logins and private keys are never stored here.

create schema registry;

create table registry.environment (
    id text primary key
  , rank integer not null
);

create table registry.region (
    id text primary key
  , provider text not null
  , country text not null
  , name text not null
);

create table registry.country (
    code text primary key
  , name text not null
    -- Whether a tenant of this country may have its parent, or a sub-tenant, in another country.
  , kin_abroad boolean not null
);

-- The residency rule: the regions where a country's tenants may live, best first.
create table registry.country_region (
    country text not null references registry.country
  , region text not null references registry.region
  , rank integer not null
  , primary key (country, region)
);

create table registry.cell (
    id text primary key
  , region text not null references registry.region
  , environment text not null references registry.environment
  , host text not null
  , port integer not null
  , state text not null default 'active' check (state in ('active', 'full', 'draining', 'down'))
  , capacity integer not null check (capacity > 0)
);

create table registry.profile (
    id text primary key
  , title jsonb not null
  , tier text not null check (tier in ('shared', 'schema', 'dedicated'))
    -- Whether the data must stay in a region of the tenant's own country.
  , in_country boolean not null
  , modules text[] not null
);

create table registry.module (
    id text primary key
  , version text not null
  , manifest jsonb not null
);

create table registry.tenant (
    id bigint generated always as identity primary key
  , slug text not null
  , name text not null
  , country text not null references registry.country
  , parent_id bigint references registry.tenant
  , profile text references registry.profile
  , tier text not null check (tier in ('shared', 'schema', 'dedicated'))
  , cell text not null references registry.cell
  , bucket integer not null default 0
  , epoch bigint not null default 1
  , reasons text[] not null
  , desired text not null default 'active' check (desired in ('active', 'suspended', 'deleted'))
  , state text not null default 'provisioning'
        check (state in ('provisioning', 'active', 'suspended', 'deleting', 'deleted'))
  , generation bigint not null default 1
  , observed_generation bigint not null default 0
  , attempts integer not null default 0
  , retry_at timestamptz not null default now()
  , last_error text
  , created_at timestamptz not null default now()
  , deleted_at timestamptz
  , name_released boolean not null default false
  , changed_xid bigint not null default pg_current_xact_id()::text::bigint
  , constraint tenant_not_its_own_parent check (parent_id <> id)
);
create unique index tenant_slug_key on registry.tenant (slug) where not name_released;
create index tenant_parent on registry.tenant (parent_id) where parent_id is not null;
create index tenant_cell on registry.tenant (cell, tier, bucket) where state <> 'deleted';
create index tenant_work on registry.tenant (retry_at) where generation > observed_generation;
create index tenant_changed on registry.tenant (changed_xid);

create table registry.activation (
    tenant_id bigint not null references registry.tenant
  , module text not null references registry.module
  , version text not null
    -- What is wanted, and whether the tenant's place has been made ready for it.
  , enabled boolean not null
  , ready boolean not null default false
  , primary key (tenant_id, module)
);

create table registry.entitlement (
    tenant_id bigint not null references registry.tenant
  , key text not null
  , value jsonb not null
  , origin text not null check (origin in ('plan', 'profile', 'override'))
  , primary key (tenant_id, key)
);

create table registry.app_user (
    id uuid primary key
  , tenant_id bigint not null references registry.tenant
  , username text not null
  , display_name text not null
  , password_hash text not null
  , disabled boolean not null default false
  , created_at timestamptz not null default now()
  , constraint app_user_username_key unique (tenant_id, username)
  , constraint app_user_tenant_key unique (tenant_id, id)
);

create table registry.user_role (
    tenant_id bigint not null
  , user_id uuid not null
  , role text not null
  , primary key (user_id, role)
    -- A role is held in the user's own tenant only.
  , foreign key (tenant_id, user_id) references registry.app_user (tenant_id, id) on delete cascade
);
create index user_role_tenant on registry.user_role (tenant_id);

create table registry.operation (
    id uuid primary key
  , tenant_id bigint not null references registry.tenant
  , kind text not null
  , generation bigint not null
  , status text not null default 'pending'
        check (status in ('pending', 'running', 'succeeded', 'failed'))
  , step text not null default 'queued'
  , percent integer not null default 0 check (percent between 0 and 100)
  , error text
  , created_at timestamptz not null default now()
  , finished_at timestamptz
);
create index operation_open on registry.operation (tenant_id, generation)
    where status in ('pending', 'running');

create table registry.operation_event (
    operation_id uuid not null references registry.operation
  , seq integer not null
  , at timestamptz not null default clock_timestamp()
  , step text not null
  , percent integer not null
  , message text not null
  , primary key (operation_id, seq)
);

create table registry.audit_event (
    id bigint generated always as identity primary key
  , at timestamptz not null default clock_timestamp()
  , actor text not null
  , action text not null
  , tenant_id bigint
  , slug text
  , detail jsonb not null
);
create index audit_event_tenant on registry.audit_event (tenant_id, id);

create table registry.idempotency_key (
    principal text not null
  , key text not null
  , fingerprint text not null
  , status integer
  , location text
  , body jsonb
  , created_at timestamptz not null default now()
  , primary key (principal, key)
);
create index idempotency_key_age on registry.idempotency_key (created_at);

create table registry.operator_token (
    token_sha256 text primary key
  , name text not null unique
);

create table registry.login_attempt (
    subject_sha256 text primary key
  , failures integer not null
  , blocked_until timestamptz not null
  , last_at timestamptz not null
);

create table registry.authorization_code (
    code_sha256 text primary key
  , user_id uuid not null references registry.app_user on delete cascade
  , client_id text not null
  , redirect_uri text not null
  , challenge text not null
  , nonce text
  , expires_at timestamptz not null
);

-- The audit outlives whatever it tells about, and nobody rewrites it.
create function registry.refuse_rewrite() returns trigger language plpgsql as $$
begin
    raise exception 'the audit log only grows' using errcode = 'insufficient_privilege';
end $$;
create trigger audit_event_grows before update or delete on registry.audit_event
    for each row execute function registry.refuse_rewrite();
create trigger audit_event_stays before truncate on registry.audit_event
    for each statement execute function registry.refuse_rewrite();

-- Whatever changes about a tenant marks its row with the transaction's id and wakes the listeners:
-- gateways read every row whose mark is not older than the oldest transaction they could not see.
create function registry.mark_tenant() returns trigger language plpgsql as $$
begin
    new.changed_xid := pg_current_xact_id()::text::bigint;
    perform pg_notify('waangu_change', '');
    return new;
end $$;
create trigger tenant_marked before insert or update on registry.tenant
    for each row execute function registry.mark_tenant();

create function registry.mark_owner() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        update registry.tenant set changed_xid = 0 where id = old.tenant_id;
    else
        update registry.tenant set changed_xid = 0 where id = new.tenant_id;
    end if;
    return null;
end $$;
create trigger activation_marks after insert or update or delete on registry.activation
    for each row execute function registry.mark_owner();
create trigger app_user_marks after insert or update or delete on registry.app_user
    for each row execute function registry.mark_owner();
create trigger user_role_marks after insert or update or delete on registry.user_role
    for each row execute function registry.mark_owner();

create function registry.notify_change() returns trigger language plpgsql as $$
begin
    perform pg_notify('waangu_change', '');
    return null;
end $$;
create trigger module_notifies after insert or update or delete on registry.module
    for each statement execute function registry.notify_change();

-- All that a gateway may know: no names of people, no password hashes.
create view registry.tenant_route as
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
  from registry.tenant t;

-- A module's login on the same server must not take the control plane's locks.
do $$ begin
    execute format('revoke all on database %I from public', current_database());
    execute format('grant connect on database %I to waangu_gateway', current_database());
end $$;
grant usage on schema registry to waangu_gateway;
grant select on registry.tenant_route, registry.module to waangu_gateway;
