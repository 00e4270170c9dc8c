//! In a module's own schema.

use super::{Break, MOVEMENT, PRODUCT, STOCK, breaks, several};

pub(super) const BREAKS: &[Break] = &[
    // Row-level security.
    breaks(
        "alter table stock.product disable row level security",
        PRODUCT,
        "row-level security",
    ),
    breaks(
        "alter table stock.product no force row level security",
        PRODUCT,
        "not forced",
    ),
    breaks(
        "alter table stock.movement disable row level security",
        MOVEMENT,
        "row-level security",
    ),
    breaks(
        "drop policy tenant on stock.product",
        PRODUCT,
        "policy tenant: none",
    ),
    breaks(
        "drop policy tree on stock.product",
        PRODUCT,
        "policy tree: none",
    ),
    breaks(
        "create policy mine on stock.product using (true)",
        PRODUCT,
        "policy mine",
    ),
    breaks(
        "create policy mine on stock.product as restrictive using (true)",
        PRODUCT,
        "policy mine",
    ),
    breaks(
        "alter policy tenant on stock.product using (true)",
        PRODUCT,
        "policy tenant",
    ),
    breaks(
        "alter policy tenant on stock.product to public",
        PRODUCT,
        "policy tenant",
    ),
    breaks(
        "alter policy tenant on stock.product
         using (tenant_id = current_setting('app.current_tenant')::bigint)",
        PRODUCT,
        "policy tenant",
    ),
    breaks(
        "alter policy tenant_insert on stock.product with check (true)",
        PRODUCT,
        "policy tenant_insert",
    ),
    breaks(
        "alter policy tenant_update on stock.product with check (true)",
        PRODUCT,
        "policy tenant_update",
    ),
    breaks(
        "alter policy tree on stock.movement using (true)",
        MOVEMENT,
        "policy tree",
    ),
    several(
        2,
        "alter policy tenant on stock.product rename to renter",
        PRODUCT,
        "policy renter",
    ),
    // Rights on tables.
    breaks(
        "grant select on stock.product to public",
        PRODUCT,
        "right SELECT of public",
    ),
    breaks(
        "grant truncate on stock.product to waangu_stock",
        PRODUCT,
        "right TRUNCATE of waangu_stock",
    ),
    breaks(
        "grant references on stock.product to waangu_stock",
        PRODUCT,
        "right REFERENCES",
    ),
    breaks(
        "grant trigger on stock.product to waangu_stock",
        PRODUCT,
        "right TRIGGER",
    ),
    breaks(
        "grant update on stock.movement to waangu_stock",
        MOVEMENT,
        "right UPDATE",
    ),
    breaks(
        "grant delete on stock.movement to waangu_stock",
        MOVEMENT,
        "right DELETE",
    ),
    breaks(
        "grant update (product_id) on stock.movement to waangu_stock",
        MOVEMENT,
        "right UPDATE of column product_id",
    ),
    breaks(
        "grant insert on stock.product to waangu_stock_tree",
        PRODUCT,
        "right INSERT of waangu_stock_tree",
    ),
    breaks(
        "grant select on stock.product to waangu_crm",
        PRODUCT,
        "right SELECT of waangu_crm",
    ),
    breaks(
        "grant select on stock.product to waangu_module",
        PRODUCT,
        "right SELECT of waangu_module",
    ),
    breaks(
        "grant select on stock.product to waangu_stock with grant option",
        PRODUCT,
        "may be passed on",
    ),
    breaks(
        "revoke select on stock.product from waangu_stock",
        PRODUCT,
        "right SELECT of waangu_stock: none",
    ),
    several(
        6,
        "alter table stock.product owner to waangu_stock",
        PRODUCT,
        "owner: waangu_stock",
    ),
    breaks(
        "alter table stock.movement owner to postgres",
        MOVEMENT,
        "owner: postgres",
    ),
    breaks(
        "grant insert on stock.shown to waangu_stock",
        "view stock.shown",
        "right INSERT",
    ),
    breaks(
        "alter view stock.shown reset (security_invoker)",
        "view stock.shown",
        "security_invoker",
    ),
    breaks(
        "alter view stock.shown owner to postgres",
        "view stock.shown",
        "owner",
    ),
    // Keys, indexes, columns.
    breaks(
        "create index on stock.product (name)",
        PRODUCT,
        "does not begin with tenant_id",
    ),
    breaks(
        "create unique index on stock.product (name)",
        PRODUCT,
        "does not begin with tenant_id",
    ),
    breaks(
        "alter table stock.product add constraint n unique (name)",
        PRODUCT,
        "index n",
    ),
    several(
        12,
        "create table stock.other (tenant_id bigint not null, id bigint,
         primary key (tenant_id, id) , foreign key (id, tenant_id)
         references stock.product); alter table stock.other enable row
         level security, force row level security",
        "table stock.other",
        "",
    ),
    breaks(
        "alter table stock.product add constraint p foreign key (id,
         tenant_id) references stock.product (tenant_id, id)",
        PRODUCT,
        "foreign key p: does not begin with tenant_id on both sides",
    ),
    breaks(
        "alter table stock.movement add constraint p foreign key
         (tenant_id, product_id) references stock.product on delete cascade",
        MOVEMENT,
        "foreign key p: changes rows of an append-only table",
    ),
    breaks(
        "alter table stock.product add constraint p foreign key (tenant_id,
         id) references stock.product not valid",
        PRODUCT,
        "is not validated",
    ),
    breaks(
        "alter table stock.product alter tenant_id set default 1",
        PRODUCT,
        "default of tenant_id: 1",
    ),
    breaks(
        "alter table stock.product add n bigserial",
        STOCK,
        "sequence product_n_seq",
    ),
    breaks(
        "alter table stock.product add m bigint generated always as identity",
        STOCK,
        "sequence product_m_seq",
    ),
    breaks("create sequence stock.s", STOCK, "sequence s"),
    // What runs in a module's schema.
    breaks(
        "create materialized view stock.m as select * from stock.product",
        STOCK,
        "materialized view m",
    ),
    breaks(
        "create function stock.f() returns bigint language sql security
         definer return 1",
        STOCK,
        "runs with its owner's rights",
    ),
    breaks(
        "create function stock.g() returns bigint language sql leakproof return 1",
        STOCK,
        "leakproof",
    ),
    breaks(
        "create function stock.h(internal) returns internal language
         internal as 'int8in'",
        STOCK,
        "untrusted language internal",
    ),
    breaks(
        "create rule r as on delete to stock.product do also select 1",
        PRODUCT,
        "rule r",
    ),
    several(
        2,
        "alter table stock.movement disable trigger all",
        MOVEMENT,
        "is disabled",
    ),
    several(
        3,
        "alter schema stock owner to waangu_stock",
        STOCK,
        "owner: waangu_stock",
    ),
    breaks(
        "grant create on schema stock to waangu_stock",
        STOCK,
        "right CREATE of waangu_stock",
    ),
    breaks(
        "grant usage on schema stock to waangu_crm",
        STOCK,
        "right USAGE of waangu_crm",
    ),
    breaks(
        "create schema stranger authorization waangu_owner",
        "schema stranger",
        "not installed",
    ),
];
