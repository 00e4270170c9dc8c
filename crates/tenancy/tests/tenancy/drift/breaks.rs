//! What somebody with too much right and too little time does to a database.

/// One statement, and the drift that it makes.
pub(super) struct Break {
    pub(super) sql: &'static str,
    pub(super) object: &'static str,
    /// A part of what is reported.
    pub(super) found: &'static str,
    /// How many findings it makes.
    pub(super) count: usize,
}

const fn breaks(sql: &'static str, object: &'static str, found: &'static str) -> Break {
    several(1, sql, object, found)
}

const fn several(
    count: usize,
    sql: &'static str,
    object: &'static str,
    found: &'static str,
) -> Break {
    Break {
        sql,
        object,
        found,
        count,
    }
}

const PRODUCT: &str = "table stock.product";
const MOVEMENT: &str = "append-only table stock.movement";
const STOCK: &str = "schema stock";
const LOGIN: &str = "login waangu_stock";

pub(super) const BREAKS: [Break; 105] = [
    // Row-level security.
    breaks("alter table stock.product disable row level security", PRODUCT, "row-level security"),
    breaks("alter table stock.product no force row level security", PRODUCT, "not forced"),
    breaks("alter table stock.movement disable row level security", MOVEMENT, "row-level security"),
    breaks("drop policy tenant on stock.product", PRODUCT, "policy tenant: none"),
    breaks("drop policy tree on stock.product", PRODUCT, "policy tree: none"),
    breaks("create policy mine on stock.product using (true)", PRODUCT, "policy mine"),
    breaks("create policy mine on stock.product as restrictive using (true)", PRODUCT, "policy mine"),
    breaks("alter policy tenant on stock.product using (true)", PRODUCT, "policy tenant"),
    breaks("alter policy tenant on stock.product to public", PRODUCT, "policy tenant"),
    breaks(
        "alter policy tenant on stock.product
         using (tenant_id = current_setting('app.current_tenant')::bigint)",
        PRODUCT,
        "policy tenant",
    ),
    breaks("alter policy tenant_insert on stock.product with check (true)", PRODUCT, "policy tenant_insert"),
    breaks("alter policy tenant_update on stock.product with check (true)", PRODUCT, "policy tenant_update"),
    breaks("alter policy tree on stock.movement using (true)", MOVEMENT, "policy tree"),
    several(2, "alter policy tenant on stock.product rename to renter", PRODUCT, "policy renter"),
    // Rights on tables.
    breaks("grant select on stock.product to public", PRODUCT, "right SELECT of public"),
    breaks("grant truncate on stock.product to waangu_stock", PRODUCT, "right TRUNCATE of waangu_stock"),
    breaks("grant references on stock.product to waangu_stock", PRODUCT, "right REFERENCES"),
    breaks("grant trigger on stock.product to waangu_stock", PRODUCT, "right TRIGGER"),
    breaks("grant update on stock.movement to waangu_stock", MOVEMENT, "right UPDATE"),
    breaks("grant delete on stock.movement to waangu_stock", MOVEMENT, "right DELETE"),
    breaks("grant update (product_id) on stock.movement to waangu_stock", MOVEMENT, "right UPDATE of column product_id"),
    breaks("grant insert on stock.product to waangu_stock_tree", PRODUCT, "right INSERT of waangu_stock_tree"),
    breaks("grant select on stock.product to waangu_crm", PRODUCT, "right SELECT of waangu_crm"),
    breaks("grant select on stock.product to waangu_module", PRODUCT, "right SELECT of waangu_module"),
    breaks("grant select on stock.product to waangu_stock with grant option", PRODUCT, "may be passed on"),
    breaks("revoke select on stock.product from waangu_stock", PRODUCT, "right SELECT of waangu_stock: none"),
    several(6, "alter table stock.product owner to waangu_stock", PRODUCT, "owner: waangu_stock"),
    breaks("alter table stock.movement owner to postgres", MOVEMENT, "owner: postgres"),
    breaks("grant insert on stock.shown to waangu_stock", "view stock.shown", "right INSERT"),
    breaks("alter view stock.shown reset (security_invoker)", "view stock.shown", "security_invoker"),
    breaks("alter view stock.shown owner to postgres", "view stock.shown", "owner"),
    // Keys, indexes, columns.
    breaks("create index on stock.product (name)", PRODUCT, "does not begin with tenant_id"),
    breaks("create unique index on stock.product (name)", PRODUCT, "does not begin with tenant_id"),
    breaks("alter table stock.product add constraint n unique (name)", PRODUCT, "index n"),
    several(12,
        "create table stock.other (tenant_id bigint not null, id bigint, primary key (tenant_id, id)
            , foreign key (id, tenant_id) references stock.product);
         alter table stock.other enable row level security, force row level security",
        "table stock.other",
        "",
    ),
    breaks(
        "alter table stock.product add constraint p foreign key (id, tenant_id) references stock.product (tenant_id, id)",
        PRODUCT,
        "foreign key p: does not begin with tenant_id on both sides",
    ),
    breaks(
        "alter table stock.movement add constraint p foreign key (tenant_id, product_id)
         references stock.product on delete cascade",
        MOVEMENT,
        "foreign key p: changes rows of an append-only table",
    ),
    breaks(
        "alter table stock.product add constraint p foreign key (tenant_id, id) references stock.product not valid",
        PRODUCT,
        "is not validated",
    ),
    breaks("alter table stock.product alter tenant_id set default 1", PRODUCT, "default of tenant_id: 1"),
    breaks("alter table stock.product add n bigserial", STOCK, "sequence product_n_seq"),
    breaks("alter table stock.product add m bigint generated always as identity", STOCK, "sequence product_m_seq"),
    breaks("create sequence stock.s", STOCK, "sequence s"),
    // What runs in a module's schema.
    breaks("create materialized view stock.m as select * from stock.product", STOCK, "materialized view m"),
    breaks(
        "create function stock.f() returns bigint language sql security definer return 1",
        STOCK,
        "runs with its owner's rights",
    ),
    breaks("create function stock.g() returns bigint language sql leakproof return 1", STOCK, "leakproof"),
    breaks(
        "create function stock.h(internal) returns internal language internal as 'int8in'",
        STOCK,
        "untrusted language internal",
    ),
    breaks("create rule r as on delete to stock.product do also select 1", PRODUCT, "rule r"),
    several(2, "alter table stock.movement disable trigger all", MOVEMENT, "is disabled"),
    several(3, "alter schema stock owner to waangu_stock", STOCK, "owner: waangu_stock"),
    breaks("grant create on schema stock to waangu_stock", STOCK, "right CREATE of waangu_stock"),
    breaks("grant usage on schema stock to waangu_crm", STOCK, "right USAGE of waangu_crm"),
    breaks("create schema stranger authorization waangu_owner", "schema stranger", "not installed"),
    // The helper schema.
    breaks("grant select on waangu.context_key to waangu_module", "table waangu.context_key", "right SELECT"),
    breaks("grant update on waangu.home to waangu_stock", "table waangu.home", "right UPDATE"),
    breaks("grant select on waangu.closure to waangu_tree", "table waangu.closure", "right SELECT"),
    breaks("alter table waangu.home owner to waangu_owner", "table waangu.home", "owner"),
    breaks("alter table waangu.home drop constraint home_state_check", "table waangu.home", "home_state_check: none"),
    breaks("alter table waangu.home alter state set default 'active'", "table waangu.home", "column state"),
    breaks("create index surplus on waangu.home (state)", "table waangu.home", "index surplus"),
    breaks("grant update on sequence waangu.seal_tenant to waangu_module", "sequence waangu.seal_tenant", "right UPDATE"),
    breaks("grant usage on sequence waangu.seal_time to waangu_module", "sequence waangu.seal_time", "right USAGE"),
    breaks("grant select on sequence waangu.seal_tree to waangu_module", "sequence waangu.seal_tree", "right SELECT"),
    breaks("alter sequence waangu.seal_time set logged", "sequence waangu.seal_time", "storage: logged"),
    breaks("alter sequence waangu.seal_time cycle", "sequence waangu.seal_time", "cycles"),
    breaks("alter function waangu.enter(text, integer, text) security invoker", "function waangu.enter(text,integer,text)", "rights of"),
    breaks("alter function waangu.enter(text, integer, text) reset search_path", "function waangu.enter(text,integer,text)", "settings: none"),
    breaks("alter function waangu.enter(text, integer, text) owner to postgres", "function waangu.enter(text,integer,text)", "owner"),
    breaks("alter function waangu.tenant() stable", "function waangu.tenant()", "volatility: stable"),
    breaks("alter function waangu.tenant() leakproof", "function waangu.tenant()", "leakproof"),
    breaks("alter function waangu.tenant() parallel safe", "function waangu.tenant()", "parallel safe"),
    breaks("create or replace function waangu.tenant() returns bigint language sql volatile parallel restricted
            return current_setting('app.current_tenant')::bigint", "function waangu.tenant()", "body"),
    breaks("create or replace function waangu.subtree() returns bigint[] language plpgsql stable
            parallel restricted security definer set search_path = pg_catalog, pg_temp
            as 'begin return array[1, 2]; end'", "function waangu.subtree()", "body"),
    breaks("grant execute on function waangu.migrate(text, text) to waangu_stock", "function waangu.migrate(text,text)", "right EXECUTE"),
    breaks("grant execute on procedure waangu.protect(text, text, text[]) to public", "procedure waangu.protect(text,text,text[])", "right EXECUTE"),
    breaks("create function waangu.f() returns bigint language sql return 1; revoke execute on function waangu.f() from public", "function waangu.f()", ""),
    breaks("drop function waangu.migrate(text, text)", "function waangu.migrate(text,text)", "is missing"),
    breaks("create trigger t before insert on waangu.home for each row execute function suppress_redundant_updates_trigger()", "table waangu.home", "trigger t"),
    breaks("grant create on schema waangu to waangu_module", "schema waangu", "right CREATE"),
    breaks("grant usage on schema public to public", "schema public", "right USAGE of public"),
    breaks("create table public.t ()", "table public.t", ""),
    // Roles.
    breaks("alter role waangu_stock bypassrls", LOGIN, "bypassrls"),
    breaks("alter role waangu_stock createrole createdb", LOGIN, "createrole"),
    breaks("alter role waangu_stock replication", LOGIN, "replication"),
    breaks("alter role waangu_stock_tree bypassrls", "login for reading waangu_stock_tree", "bypassrls"),
    breaks("alter role waangu_crm superuser", "login waangu_crm", "superuser"),
    breaks("alter role waangu_module login", "role waangu_module", "login"),
    breaks("alter role waangu_owner bypassrls", "role waangu_owner", "bypassrls"),
    several(
        2,"grant waangu_owner to waangu_stock", LOGIN, "member of waangu_owner"),
    breaks("grant pg_read_all_data to waangu_stock", LOGIN, "member of pg_read_all_data"),
    breaks("grant pg_signal_backend to waangu_module", "role waangu_module", "member of pg_signal_backend"),
    breaks("grant waangu_tree to waangu_stock", LOGIN, "member of waangu_tree"),
    breaks("grant waangu_module to waangu_stock with admin option", LOGIN, "with admin option"),
    breaks("alter role waangu_stock set row_security = off", LOGIN, "setting row_security"),
    breaks("alter role waangu_stock set search_path = public", LOGIN, "setting search_path"),
    breaks("alter role waangu_stock in database waangu set search_path = public", LOGIN, "in database waangu"),
    // The database and the server.
    breaks("grant temporary on database waangu to public", "database", "right TEMPORARY of public"),
    breaks("grant connect on database waangu to public", "database", "right CONNECT of public"),
    breaks("grant create on database waangu to waangu_module", "database", "right CREATE"),
    breaks("alter database waangu set session_replication_role = replica", "database", "setting session_replication_role"),
    breaks("grant connect on database postgres to public", "database postgres", "right CONNECT"),
    breaks("grant execute on function pg_advisory_lock(bigint) to public", "function pg_advisory_lock(bigint)", "expected: none"),
    breaks("grant execute on function pg_read_file(text) to waangu_stock", "function pg_read_file(text)", "waangu_stock"),
    breaks("grant select on pg_stat_activity to waangu_stock", "view pg_stat_activity", "SELECT of waangu_stock"),
    breaks("grant select on pg_authid to public", "table pg_authid", "SELECT of public"),
    breaks("alter function pg_catalog.pg_ls_dir(text) security definer", "routine pg_ls_dir(text)", "owner's rights"),
];
