-- Products, places, the journal of moves, and the stock on hand that follows from it.
--
-- Rules that the platform checks: every table and every key begins with tenant_id. Its default is the
-- tenant of the transaction, so that no statement of the module ever names a tenant.
--
-- Amounts and quantities stay below 2^53, because JSON readers hold numbers as IEEE 754 doubles
-- (RFC 8259 section 6). Codes are compared bytewise, so that lists have one order on every server.

create table product (
    tenant_id bigint not null default waangu.tenant()
  , id uuid not null
  , sku text collate "C" not null
  , name text not null
  , unit text not null
  , price_minor bigint
  , currency text
  , created_at timestamptz not null default now()
  , request_key text
  , constraint product_pkey primary key (tenant_id, id)
  , constraint product_sku_key unique (tenant_id, sku)
  , constraint product_sku_check check (char_length(sku) between 1 and 64)
  , constraint product_name_check check (char_length(name) between 1 and 200)
  , constraint product_unit_check check (char_length(unit) between 1 and 16)
  , constraint product_price_check check (price_minor between 0 and 9007199254740991)
  , constraint product_currency_check check (currency ~ '^[A-Z]{3}$')
  , constraint product_price_currency_check check ((price_minor is null) = (currency is null))
);

create unique index product_request_key
    on product (tenant_id, request_key) where request_key is not null;

create table place (
    tenant_id bigint not null default waangu.tenant()
  , id uuid not null
  , code text collate "C" not null
  , name text not null
  , kind text not null
  , created_at timestamptz not null default now()
  , request_key text
  , constraint place_pkey primary key (tenant_id, id)
  , constraint place_code_key unique (tenant_id, code)
  , constraint place_code_check check (char_length(code) between 1 and 32)
  , constraint place_name_check check (char_length(name) between 1 and 200)
  , constraint place_kind_check check (kind in ('warehouse', 'store'))
);

create unique index place_request_key
    on place (tenant_id, request_key) where request_key is not null;

-- One row for each product at each place where it has ever been. Updated by every move: on_hand is in
-- no index and pages keep room, so that an update touches no index (HOT).
create table stock_level (
    tenant_id bigint not null default waangu.tenant()
  , product_id uuid not null
  , place_id uuid not null
  , on_hand bigint not null
  , constraint stock_level_pkey primary key (tenant_id, product_id, place_id)
  , constraint stock_level_product_fkey foreign key (tenant_id, product_id)
        references product (tenant_id, id)
  , constraint stock_level_place_fkey foreign key (tenant_id, place_id)
        references place (tenant_id, id)
  , constraint stock_level_on_hand_check check (on_hand between 0 and 9007199254740991)
) with (fillfactor = 70);

create index stock_level_place on stock_level (tenant_id, place_id, product_id);

-- The journal. A move's foreign keys point at the levels that it changed, which the transaction has
-- locked anyway; through them they vouch for product and places.
create table stock_move (
    tenant_id bigint not null default waangu.tenant()
  , id uuid not null
  , product_id uuid not null
  , from_place uuid
  , to_place uuid
  , quantity bigint not null
  , reason text not null
  , reference text
  , moved_at timestamptz not null
  , recorded_at timestamptz not null default now()
  , actor text not null
  , request_key text
    -- 0: a move on its own; from 1: its number in its batch.
  , request_index integer not null
  , constraint stock_move_pkey primary key (tenant_id, id)
  , constraint stock_move_from_fkey foreign key (tenant_id, product_id, from_place)
        references stock_level (tenant_id, product_id, place_id)
  , constraint stock_move_to_fkey foreign key (tenant_id, product_id, to_place)
        references stock_level (tenant_id, product_id, place_id)
  , constraint stock_move_quantity_check check (quantity between 1 and 1000000000000)
  , constraint stock_move_somewhere_check check (from_place is not null or to_place is not null)
  , constraint stock_move_elsewhere_check check (from_place <> to_place)
  , constraint stock_move_reason_check check (
        reason in ('receipt', 'transfer', 'sale', 'adjustment', 'return'))
  , constraint stock_move_reference_check check (char_length(reference) between 1 and 100)
);

create index stock_move_product on stock_move (tenant_id, product_id, id);

create unique index stock_move_request_key
    on stock_move (tenant_id, request_key, request_index) where request_key is not null;
