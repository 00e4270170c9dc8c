-- No further than the limit: it costs as much as the limit is large, and nothing where there is none.
select count(*) as held
  from (select from product limit $1) as counted
