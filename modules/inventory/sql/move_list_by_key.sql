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
     , request_index
  from stock_move
 where request_key = $1
 order by request_index
