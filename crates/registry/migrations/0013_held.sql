-- What a move holds still, as rows to look among: a function is asked for each row, and a rollout has thousands.

-- The places of the moves that have begun.
create view registry.held as
select r.tenant_id, p.cell, p.tier
  from registry.relocation r
 cross join lateral (values (r.from_cell, r.from_tier), (r.to_cell, r.to_tier)) p (cell, tier)
 where r.finished_at is null and r.phase <> 'queued';

-- What is left of the rollouts, and whether a move holds it; a cell's shared namespace with each of its tenants.
-- Two questions, so that the first goes by the index however many moves are open.
create view registry.pending_item as
select i.rollout_id, i.seq, i.wave, i.cell, i.tier, i.tenant_id, i.lock_key, i.attempts, i.retry_at, i.error
     , exists (select from registry.held h where h.tenant_id = i.tenant_id)
       or i.tenant_id is null
          and exists (select from registry.held h where (h.cell, h.tier) = (i.cell, i.tier)) as held
  from registry.rollout_item i
 where i.state = 'pending';

create or replace function registry.holds_still(p_tenant bigint) returns boolean
language sql stable
return not exists (select from registry.held h where h.tenant_id = p_tenant);

-- For control planes of the version before.
create or replace function registry.namespace_holds_still(p_tenant bigint, p_cell text, p_tier text)
returns boolean
language sql stable
return not exists (select from registry.held h where h.tenant_id = p_tenant)
   and not (p_tenant is null
            and exists (select from registry.held h where (h.cell, h.tier) = (p_cell, p_tier)));
