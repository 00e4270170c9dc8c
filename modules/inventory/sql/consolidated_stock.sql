-- Over several tenants: tables are joined by tenant_id too. What is counted in another unit is another
-- thing, even under the same SKU.
select p.sku
     , p.unit collate "C" as unit
     , min(p.name) as name
     , sum(l.on_hand)::bigint as on_hand
     , count(distinct p.tenant_id) as tenants
  from stock_level l
  join product p on p.tenant_id = l.tenant_id and p.id = l.product_id
 where (p.sku, p.unit collate "C") > ($1, $2)
 group by p.sku
        , p.unit
 order by p.sku
        , p.unit collate "C"
 limit $3
