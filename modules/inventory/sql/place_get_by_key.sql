select id
     , code
     , name
     , kind
     , created_at
  from place
 where request_key = $1
