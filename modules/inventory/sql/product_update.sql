update product
   set name = coalesce($2, name)
     , unit = coalesce($3, unit)
     , price_minor = case when $4 then $5 else price_minor end
     , currency = case when $6 then $7 else currency end
 where id = $1
returning
       id
     , sku
     , name
     , unit
     , price_minor
     , currency
     , created_at
