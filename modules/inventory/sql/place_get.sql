select id
     , code
     , name
     , kind
     , created_at
  from place
 where id = $1
