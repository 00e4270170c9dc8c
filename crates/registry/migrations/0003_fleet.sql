-- What stands where, and how it gets newer: packages, namespaces, rollouts, and what was found out of
-- order.

-- Every package that this installation has had. The hash is of what a package makes of a database
-- (migrations and append-only tables), so a release that changes no table has the hash of the one
-- before it. Kept whole: what stands on an older package is looked after by its own rules.
create table registry.package (
    module text not null references registry.module
  , hash text not null
  , version text not null
  , steps integer not null
  , content jsonb not null
  , primary key (module, hash)
);

-- The package that a new namespace gets.
alter table registry.module add column package_hash text not null default '';

-- The tables of one module in one place: one for all tenants of a cell's shared tier, else one for each
-- tenant. An empty hash says that they were made before anybody wrote it down.
create table registry.namespace (
    module text not null references registry.module
  , cell text not null references registry.cell
  , tier text not null check (tier in ('shared', 'schema', 'dedicated'))
  , tenant_id bigint references registry.tenant
  , package_hash text not null
  , migrated_at timestamptz not null default now()
  , constraint namespace_key unique nulls not distinct (module, cell, tier, tenant_id)
  , constraint namespace_shared_by_all check ((tier = 'shared') = (tenant_id is null))
);
-- "Is anything behind?" looks at the two ends of a module's range, however many namespaces there are.
create index namespace_package on registry.namespace (module, package_hash);
create index namespace_tenant on registry.namespace (tenant_id) where tenant_id is not null;

insert into registry.namespace (module, cell, tier, tenant_id, package_hash)
select distinct a.module, t.cell, t.tier, case when t.tier <> 'shared' then t.id end, ''
  from registry.activation a
  join registry.tenant t on t.id = a.tenant_id
 where a.ready and t.state <> 'deleted';

-- One package on its way to every namespace that stands on another.
create table registry.rollout (
    id uuid primary key
  , module text not null references registry.module
  , package_hash text not null
  , state text not null default 'running'
        check (state in ('running', 'paused', 'stopped', 'succeeded', 'partial', 'cancelled', 'superseded'))
    -- Wave 0 are the canaries; wave n ends at the n-th percentage.
  , waves integer[] not null
  , wave integer not null
  , stop_percent integer not null check (stop_percent between 0 and 100)
  , reason text
  , actor text not null
  , created_at timestamptz not null default now()
  , finished_at timestamptz
  , foreign key (module, package_hash) references registry.package
);
create unique index rollout_open_key on registry.rollout (module)
    where state in ('running', 'paused', 'stopped');

-- One namespace of it. Claimed by an advisory lock, a tenant's own by the tenant's number: whoever
-- reconciles a tenant and whoever upgrades it can't be at work at once.
create table registry.rollout_item (
    rollout_id uuid not null references registry.rollout
  , seq integer not null
  , wave integer not null
  , cell text not null
  , tier text not null
  , tenant_id bigint
  , lock_key bigint not null
  , state text not null default 'pending' check (state in ('pending', 'done', 'failed', 'skipped'))
  , attempts integer not null default 0
  , retry_at timestamptz not null default now()
  , error text
  , finished_at timestamptz
  , primary key (rollout_id, seq)
);
create index rollout_item_due on registry.rollout_item (rollout_id, wave, cell, seq)
    where state = 'pending';
create index rollout_item_failed on registry.rollout_item (rollout_id, seq) where state = 'failed';
create index rollout_item_pace on registry.rollout_item (rollout_id, finished_at)
    where finished_at is not null;

create table registry.rollout_event (
    rollout_id uuid not null references registry.rollout
  , seq integer not null
  , at timestamptz not null default clock_timestamp()
  , message text not null
  , primary key (rollout_id, seq)
);

-- One look at all cells for what has drifted from what is wanted.
create table registry.repair (
    id uuid primary key
  , state text not null default 'pending' check (state in ('pending', 'running', 'succeeded', 'failed'))
    -- Only tells.
  , dry_run boolean not null
  , actor text not null
  , created_at timestamptz not null default now()
  , finished_at timestamptz
  , summary jsonb not null default '{}'
  , error text
);
create index repair_time on registry.repair (created_at);
create unique index repair_open_key on registry.repair ((true)) where state in ('pending', 'running');

create table registry.repair_finding (
    repair_id uuid not null references registry.repair on delete cascade
  , seq integer not null
  , cell text not null
  , database text not null
  , object text not null
  , found text not null
    -- What was done or, if nothing was, what a person can do.
  , mend text not null
  , mended boolean not null
  , primary key (repair_id, seq)
);
