-- The tenant's number is in the name, too: like ids, names of turns are nobody else's.
insert into turn (name, subject)
values ('product of ' || waangu.tenant(), $1)
on conflict (tenant_id, name) do update set subject = excluded.subject
