insert into product (
    id
  , sku
  , name
  , unit
  , price_minor
  , currency
  , request_key
)
values ($1, $2, $3, $4, $5, $6, $7)
-- Either the SKU or the request's key is taken; which of them, the next statement looks up.
on conflict do nothing
returning
       id
     , sku
     , name
     , unit
     , price_minor
     , currency
     , created_at
