-- What operators want done with the gateway's keys. The keys themselves never come here.
create table registry.key_rotation (
    id uuid primary key
  , kind text not null constraint key_rotation_kind_check check (kind in ('context', 'proof'))
  , wanted_by text not null
  , wanted_at timestamptz not null default now()
  , done_at timestamptz
);

-- One at a time: whoever asks again meanwhile means the same one.
create unique index key_rotation_open_key on registry.key_rotation (kind) where done_at is null;
