-- Locks the levels that a request changes, and tells what is known about each.
--
-- The locks are taken in the order of the key, whoever asks: two transfers in opposite directions
-- wait for each other once and not in a circle. LockRows stands above the Sort in the plan.
with wanted as (
    select product_id
         , place_id
      from unnest($1::uuid[], $2::uuid[]) as asked (product_id, place_id)
), locked as materialized (
    select l.product_id
         , l.place_id
         , l.on_hand
      from stock_level l
      join wanted w on w.product_id = l.product_id and w.place_id = l.place_id
     order by l.product_id
            , l.place_id
       for no key update of l
)
select w.product_id
     , w.place_id
     , p.sku
     , a.code
     , l.on_hand
  from wanted w
  left join product p on p.id = w.product_id
  left join place a on a.id = w.place_id
  left join locked l on l.product_id = w.product_id and l.place_id = w.place_id
