select id
     , code
     , name
     , kind
     , created_at
  from place
 where code > $1
 order by code
 limit $2
