insert into place (
    id
  , code
  , name
  , kind
  , request_key
)
values ($1, $2, $3, $4, $5)
-- Either the code or the request's key is taken; which of them, the next statement looks up.
on conflict do nothing
returning
       id
     , code
     , name
     , kind
     , created_at
