-- What may follow from an advice without an operator, and what has; packages that were refused.

create table registry.advisor_policy (
    -- `global`, `region/ID`, `cell/ID` or `profile/ID`.
    scope text primary key
  , act text not null constraint advisor_policy_act_check check (act in ('propose', 'move'))
    -- When a move may begin, hours of UTC; equal: at any time.
  , from_hour integer not null check (from_hour between 0 and 23)
  , until_hour integer not null check (until_hour between 0 and 23)
  , most_per_day integer not null check (most_per_day > 0)
  , most_at_once integer not null check (most_at_once > 0)
  , quiet_hours integer not null check (quiet_hours > 0)
);

-- An advice that was followed, or could not be.
create table registry.advisor_act (
    id bigint generated always as identity primary key
  , at timestamptz not null
  , tenant_id bigint not null references registry.tenant
  , tier text not null
  , cell text not null
  , criteria text[] not null
    -- The policies that it counts for.
  , policies text[] not null
    -- The move; null: it was refused.
  , relocation_id uuid
  , error text
);
create index advisor_act_at on registry.advisor_act (at);
create index advisor_act_relocation on registry.advisor_act (relocation_id);

-- Packages that a control process brings along and can't install; one that is not brought any more is
-- not seen any more.
create table registry.package_refusal (
    module text not null
  , hash text not null
  , version text not null
  , code text not null
  , reason text not null
  , since timestamptz not null default now()
  , seen_at timestamptz not null default now()
  , primary key (module, hash)
);
