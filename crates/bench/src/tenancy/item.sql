create table item (
    tenant_id bigint not null default waangu.tenant()
  , id bigint not null
  , name text not null
  , amount bigint not null
  , constraint item_pkey primary key (tenant_id, id)
) with (fillfactor = 80)
