-- The declared world: what cells can hold and promise, what profiles give, where tenants differ from
-- them, and which version of a module ran in which environment.

alter table registry.cell
    -- The best service level that the cell is run for.
    add column sla text not null default 'standard' check (sla in ('standard', 'high'))
    -- Null: no bound.
  , add column capacity_bytes bigint check (capacity_bytes > 0)
  , add column capacity_connections integer check (capacity_connections > 0)
    -- Tenants in one database of the schema tier.
  , add column bucket_limit integer not null default 400 check (bucket_limit > 0);

-- What the cell held when it was last measured.
create table registry.cell_usage (
    cell text primary key references registry.cell on delete cascade
  , measured_at timestamptz not null default now()
  , bytes bigint not null
  , connections integer not null
);

alter table registry.profile
    add column sla text not null default 'standard' check (sla in ('standard', 'high'))
  , add column roles text[] not null default '{}'
    -- How long the audit of its tenants is kept at least; null: for ever.
  , add column retention_days integer check (retention_days > 0)
  , add column mfa text not null default 'optional' check (mfa in ('optional', 'required'))
  , add column reports jsonb not null default '[]'
  , add column limits jsonb not null default '{}';

-- Where a tenant differs from its profile because somebody said so. Flags and limits are entitlements.
create table registry.tenant_override (
    tenant_id bigint not null references registry.tenant
  , key text not null
  , value jsonb not null
  , primary key (tenant_id, key)
);

-- A deleted tenant's row keeps the names of where it lived, which may be gone since. Whoever removes a
-- place looks for live tenants under the lock that creations hold (`lock_placement`).
alter table registry.tenant
    drop constraint tenant_cell_fkey
  , drop constraint tenant_country_fkey
  , drop constraint tenant_profile_fkey;

-- Which version of a module an environment has run, and since when. Rows of other environments come
-- from the records that their installations export.
create table registry.module_run (
    environment text not null references registry.environment on delete cascade
  , module text not null
  , version text not null
  , since timestamptz not null default now()
  , primary key (environment, module, version)
);

-- Which version an environment may receive.
create table registry.promotion (
    environment text not null references registry.environment on delete cascade
  , module text not null
  , version text not null
  , actor text not null
  , at timestamptz not null default now()
  , primary key (environment, module, version)
);
