-- A page of each tenant by its own index, then the first of all: under `tenant_id = any (…)` alone
-- PostgreSQL would read and sort the levels of all tenants (data-plane design §1).
with page as (
    select here.tenant_id
         , level.product_id
         , level.place_id
         , level.on_hand
      from unnest(waangu.subtree()) as here (tenant_id)
     cross join lateral (
           select product_id
                , place_id
                , on_hand
             from stock_level l
            where l.tenant_id = here.tenant_id
              and (l.product_id, l.place_id) > ($1, $2)
            order by l.product_id
                   , l.place_id
            limit $3
           ) level
     order by level.product_id
            , level.place_id
     limit $3
)
select g.tenant_id
     , g.product_id
     , p.sku
     , p.name
     , p.unit
     , g.place_id
     , a.code
     , g.on_hand
  from page g
  join product p on p.tenant_id = g.tenant_id and p.id = g.product_id
  join place a on a.tenant_id = g.tenant_id and a.id = g.place_id
 order by g.product_id
        , g.place_id
