-- What tenants use, how much of it a tier is meant for, and which better place follows from that.

-- From how much use on a tier is proposed; null: the platform's own default does not hold it back.
create table registry.threshold (
    tier text primary key constraint threshold_tier_check check (tier in ('schema', 'dedicated'))
  , bytes bigint check (bytes > 0)
  , row_count bigint check (row_count > 0)
  , requests_per_minute bigint check (requests_per_minute > 0)
  , database_ms_per_minute bigint check (database_ms_per_minute > 0)
  , window_hours integer not null check (window_hours between 1 and 720)
  , hold_minutes integer not null check (hold_minutes between 0 and 43200)
  , release_percent integer not null check (release_percent between 1 and 100)
);

-- Requests that gateways have passed on, and how long modules held a connection for them. One row for
-- each hour in which the tenant was there; old ones are removed by the advisor.
create table registry.tenant_traffic (
    hour timestamptz not null
  , tenant_id bigint not null
  , requests bigint not null
  , database_us bigint not null
  , primary key (tenant_id, hour)
);
create index tenant_traffic_hour on registry.tenant_traffic (hour);

-- What a tenant held when its cell was last measured.
create table registry.tenant_volume (
    tenant_id bigint primary key
  , measured_at timestamptz not null
  , bytes bigint not null
    -- Null: not counted. In the shared tier, both are estimated from a sample.
  , row_count bigint
);

-- A look at all tenants: who asked for it, and what it cost.
create table registry.advisor_round (
    id bigint generated always as identity primary key
  , wanted_by text not null
  , wanted_at timestamptz not null default now()
  , finished_at timestamptz
  , cost jsonb not null default '{}'
  , error text
);
create unique index advisor_round_open_key on registry.advisor_round ((true)) where finished_at is null;

-- Where a tenant would be better off. One row for each tier that something speaks for.
create table registry.advice (
    tenant_id bigint not null
  , tier text not null check (tier in ('shared', 'schema', 'dedicated'))
    -- Null: no cell would take it.
  , cell text
  , state text not null check (state in ('rising', 'open', 'falling'))
  , since timestamptz not null
  , measured boolean not null
  , criteria text[] not null
  , evidence text[] not null
  , reasons text[] not null
  , seen_at timestamptz not null
  , primary key (tenant_id, tier)
);

-- All that a gateway may write: sums that only grow. Whoever is not a tenant is left out. In the order
-- of numbers, so that two gateways don't wait for each other in a circle.
create function registry.record_traffic(tenants bigint[], requests bigint[], micros bigint[])
returns void language sql security definer set search_path = pg_catalog as $$
    insert into registry.tenant_traffic as known (hour, tenant_id, requests, database_us)
    select date_trunc('hour', now())
         , t.id
         , greatest(said.requests, 0)
         , greatest(said.micros, 0)
      from unnest(tenants, requests, micros) as said (tenant, requests, micros)
      join registry.tenant t on t.id = said.tenant and t.state <> 'deleted'
     order by t.id
        on conflict (tenant_id, hour) do update
       set requests = known.requests + excluded.requests
         , database_us = known.database_us + excluded.database_us
$$;
revoke all on function registry.record_traffic(bigint[], bigint[], bigint[]) from public;
grant execute on function registry.record_traffic(bigint[], bigint[], bigint[]) to waangu_gateway;
