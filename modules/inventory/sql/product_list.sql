select id
     , sku
     , name
     , unit
     , price_minor
     , currency
     , created_at
  from product
 where sku > $1
 order by sku
 limit $2
