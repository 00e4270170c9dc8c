-- The way back from a move: whether it is one without a copy, what that costs, and whether a move was one.

alter table registry.relocation
    -- Whether its old place's rows can be brought up to date by a slot at the new one.
    add column way_back boolean not null default false
    -- Bytes of the new place's log that the slot held back when it was last looked at.
  , add column held_bytes bigint
    -- Whether this move found such rows at its target, so that none had to be copied.
  , add column adopted boolean not null default false;

create index relocation_way_back on registry.relocation (to_cell) where way_back;
