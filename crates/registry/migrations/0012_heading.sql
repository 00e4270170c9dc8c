-- While a move follows a tenant's changes, gateways are told where it is heading, so that modules open
-- connections there before it arrives.

create or replace view registry.tenant_route as
select t.id
     , t.slug
     , t.state = 'active' and t.desired = 'active' as active
     , t.state = 'deleted' as gone
     , t.cell
     , t.tier
     , t.bucket
     , t.epoch
     , t.parent_id
     , t.changed_xid
     , coalesce(
           (select array_agg(a.module order by a.module)
              from registry.activation a
             where a.tenant_id = t.id and a.enabled and a.ready)
         , '{}') as modules
     , coalesce(
           (select jsonb_object_agg(r.user_id, r.roles)
              from (select ur.user_id
                         , jsonb_agg(ur.role order by ur.role) as roles
                      from registry.user_role ur
                      join registry.app_user u on u.id = ur.user_id and not u.disabled
                     where ur.tenant_id = t.id
                     group by ur.user_id) r)
         , '{}') as grants
     , t.plan
     , t.profile
     , (select jsonb_object_agg(e.key, e.value)
          from registry.entitlement e
         where e.tenant_id = t.id) as own
     , r.to_cell as heading_cell
     , r.to_tier as heading_tier
     , r.to_bucket as heading_bucket
     , r.epoch + 1 as heading_epoch
  from registry.tenant t
  left join registry.relocation r
         on r.tenant_id = t.id and r.finished_at is null and r.phase = 'following';

-- The switch to the new place marks the tenant itself. The move's row is locked before the tenant's, so nobody
-- may lock a tenant first and then an open move of it.
create trigger relocation_marks after update of phase on registry.relocation
    for each row when (new.phase <> old.phase and (new.phase = 'following' or old.phase = 'following' and new.phase <> 'switching'))
    execute function registry.mark_owner();
