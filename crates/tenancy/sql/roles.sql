-- Once per cell: roles that own things, and the groups that each module's two logins belong to: the
-- one for its own tenant's rows, and the one that reads a subtree.
-- Idempotent: run at each start of the control plane.
do $$
begin
    if to_regrole('waangu_owner') is null then create role waangu_owner nologin; end if;
    if to_regrole('waangu_context') is null then create role waangu_context nologin; end if;
    if to_regrole('waangu_module') is null then create role waangu_module nologin; end if;
    if to_regrole('waangu_tree') is null then create role waangu_tree nologin; end if;
end $$;
-- The seal of a tenant's transaction (core.sql).
grant set on parameter backtrace_functions to waangu_context;
-- In these databases a login could make temporary tables and stop other sessions' queries.
do $$
begin
    revoke all on database postgres, template1 from public;
exception when insufficient_privilege then
    raise warning 'databases postgres and template1 stay open to module logins';
end $$;
