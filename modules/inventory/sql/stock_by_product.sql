select l.product_id
     , p.sku
     , p.name
     , p.unit
     , l.place_id
     , a.code
     , l.on_hand
  from stock_level l
  join product p on p.id = l.product_id
  join place a on a.id = l.place_id
 where (l.product_id, l.place_id) > ($1, $2)
   and l.product_id <= $3
 order by l.product_id
        , l.place_id
 limit $4
