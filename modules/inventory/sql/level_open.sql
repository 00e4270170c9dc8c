-- Opens levels, in the order of the key for the same reason as the locks: whoever inserts a row that
-- another transaction is inserting waits for it.
insert into stock_level (
    product_id
  , place_id
  , on_hand
)
select product_id
     , place_id
     , 0
  from unnest($1::uuid[], $2::uuid[]) as asked (product_id, place_id)
 order by product_id
        , place_id
on conflict do nothing
