select id
     , sku
     , name
     , unit
     , price_minor
     , currency
     , created_at
  from product
 where request_key = $1
