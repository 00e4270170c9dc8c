-- The page is cut out of the levels first: joined before, PostgreSQL reads and sorts all of them.
with page as (
    select product_id
         , place_id
         , on_hand
      from stock_level
     where (product_id, place_id) > ($1, $2)
       and product_id <= $3
     order by product_id
            , place_id
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
        , l.place_id
