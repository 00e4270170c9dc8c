-- As in stock_by_product.sql, the page is cut out first.
with page as (
    select product_id
         , place_id
         , on_hand
      from stock_level
     where place_id = $5
       and (product_id, place_id) > ($1, $2)
       and product_id <= $3
     order by product_id
     limit $4
)
select l.product_id
     , p.sku
     , p.name
     , p.unit
     , l.place_id
     , a.code
     , l.on_hand
  from page l
  join product p on p.id = l.product_id
  join place a on a.id = l.place_id
 order by l.product_id
