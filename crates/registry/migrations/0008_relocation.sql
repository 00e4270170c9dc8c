-- Moves of tenants between places: what is wanted, how far it is, and what is left to clean up.

create table registry.relocation (
    id uuid primary key
  , tenant_id bigint not null references registry.tenant
  , from_cell text not null
  , from_tier text not null check (from_tier in ('shared', 'schema', 'dedicated'))
  , from_bucket integer not null
  , to_cell text not null
  , to_tier text not null check (to_tier in ('shared', 'schema', 'dedicated'))
  , to_bucket integer not null
    -- The tenant's epoch at the source; it has one more at the target.
  , epoch bigint not null
    -- The commit point lies between `following` and `switching`.
  , phase text not null default 'queued'
        check (phase in ('queued', 'copying', 'following', 'switching', 'finishing', 'undoing'
                       , 'done', 'cancelled', 'failed'))
    -- Why that place, and why at all.
  , reasons text[] not null
  , why text
  , actor text not null
  , max_pause_ms integer not null check (max_pause_ms > 0)
    -- Bytes in a second.
  , rate bigint check (rate > 0)
  , cancel_wanted boolean not null default false
    -- What became of it in figures; estimates until it is over.
  , done_rows bigint not null default 0
  , done_bytes bigint not null default 0
  , total_bytes bigint
  , lag_bytes bigint
  , pause_us bigint
  , table_name text
  , attempts integer not null default 0
  , retry_at timestamptz not null default now()
  , error text
  , created_at timestamptz not null default now()
  , started_at timestamptz
  , switched_at timestamptz
  , finished_at timestamptz
    -- When the rows that stayed behind may go, and when they went.
  , clean_at timestamptz
  , cleaned_at timestamptz
);
create unique index relocation_open_key on registry.relocation (tenant_id) where finished_at is null;
create index relocation_tenant on registry.relocation (tenant_id, created_at);
create index relocation_left on registry.relocation (clean_at)
    where clean_at is not null and cleaned_at is null;

create table registry.relocation_event (
    relocation_id uuid not null references registry.relocation
  , seq integer not null
  , at timestamptz not null default clock_timestamp()
  , phase text not null
  , message text not null
  , primary key (relocation_id, seq)
);
create function registry.refuse_forgetting() returns trigger language plpgsql as $$
begin
    raise exception 'the history of a move only grows' using errcode = 'insufficient_privilege';
end $$;
create trigger relocation_event_grows before update or delete on registry.relocation_event
    for each row execute function registry.refuse_forgetting();

-- Whether a tenant's tables may be changed by somebody else than a move: not once the move has begun.
create function registry.holds_still(p_tenant bigint) returns boolean
language sql stable
return not exists (
    select from registry.relocation r
     where r.tenant_id = p_tenant and r.finished_at is null and r.phase <> 'queued'
);

-- The same of one namespace; a cell's shared one moves with each of its tenants.
create function registry.namespace_holds_still(p_tenant bigint, p_cell text, p_tier text)
returns boolean
language sql stable
return case
    when p_tier = 'shared' and p_tenant is null then not exists (
        select from registry.relocation r
         where r.finished_at is null
           and r.phase <> 'queued'
           and ((r.from_cell, r.from_tier) = (p_cell, p_tier)
                or (r.to_cell, r.to_tier) = (p_cell, p_tier)))
    else registry.holds_still(p_tenant)
end;
