select id
     , product_id
     , from_place
     , to_place
     , quantity
     , reason
     , reference
     , moved_at
     , recorded_at
     , actor
  from stock_move
 where id < $1
 order by id desc
 limit $2
