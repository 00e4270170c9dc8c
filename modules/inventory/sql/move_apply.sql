-- Changes the levels, which the transaction has locked and found sufficient, and writes the journal.
with change as (
    update stock_level l
       set on_hand = l.on_hand + c.amount
      from unnest($1::uuid[], $2::uuid[], $3::bigint[]) as c (product_id, place_id, amount)
     where l.product_id = c.product_id
       and l.place_id = c.place_id
)
insert into stock_move (
    id
  , product_id
  , from_place
  , to_place
  , quantity
  , reason
  , reference
  , moved_at
  , actor
  , request_key
  , request_index
)
select m.id
     , m.product_id
     , m.from_place
     , m.to_place
     , m.quantity
     , m.reason
     , m.reference
     , coalesce(m.moved_at, now())
     , $12
     , $13
     , m.request_index
  from unnest(
           $4::uuid[]
         , $5::uuid[]
         , $6::uuid[]
         , $7::uuid[]
         , $8::bigint[]
         , $9::text[]
         , $10::text[]
         , $11::timestamptz[]
         , $14::integer[]
       ) as m (
           id
         , product_id
         , from_place
         , to_place
         , quantity
         , reason
         , reference
         , moved_at
         , request_index
       )
returning
       id
     , product_id
     , from_place
     , to_place
     , quantity
     , reason
     , reference
     , moved_at
     , recorded_at
     , actor
