-- The sweeper asks again and again which moves have ended lately.
create index relocation_ended on registry.relocation (finished_at) where finished_at is not null;
