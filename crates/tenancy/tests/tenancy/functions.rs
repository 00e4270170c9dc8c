//! PostgreSQL's own functions: each that may change something and that a module may call was judged.

use waangu_kernel::placement::Tier;

use crate::support::Home;

/// Why it does no harm, and the names of 15 to 18; `*` stands for any end.
const JUDGED: [(&str, &str); 7] = [
    (
        "answers something, and changes nothing that lasts",
        "clock_timestamp current_query currtid2 currval gen_random_uuid lastval timeofday txid_status
         uuidv4 uuidv7 pg_available_wal_summaries pg_blocking_pids pg_collation_actual_version
         pg_control_* pg_current_wal_* pg_database_collation_actual_version pg_database_size
         pg_get_* pg_indexes_size pg_is_* pg_isolation_test_session_is_blocked pg_jit_available
         pg_last_* pg_notification_queue_usage pg_partition_* pg_prepared_xact pg_relation_size
         pg_safe_snapshot_blocking_pids pg_sequence_last_value pg_sleep* pg_stat_* pg_table_size
         pg_tablespace_size pg_total_relation_size pg_wal_summary_contents pg_xact_* amvalidate",
    ),
    (
        "looks for the rights of an owner, of replication or of a superuser",
        "brin_* gin_clean_pending_list nextval setval pg_clear_* pg_copy_* pg_create_*
         pg_drop_replication_slot pg_extension_config_dump pg_import_system_collations pg_logical_slot_*
         pg_nextoid pg_read_file_old pg_replication_slot_advance pg_restore_* pg_rotate_logfile_old
         pg_stop_making_pinned_objects pg_sync_replication_slots binary_upgrade_*",
    ),
    (
        "works on what a module can't make: large objects, locks of a session",
        "lo_* loread lowrite pg_advisory_unlock*",
    ),
    (
        "runs a query in a text, but none that is more than a query",
        "cursor_to_xml* query_to_xml* ts_rewrite ts_stat",
    ),
    (
        "is called by the server",
        "bernoulli system brinhandler bthandler dsnowball_* ginhandler gisthandler hashhandler heap_tableam_handler spghandler
         plpgsql_*",
    ),
    (
        "draws from what another tenant's draws tell: not for secrets (limits.rs of the contract)",
        "array_sample array_shuffle random random_normal",
    ),
    (
        "lets others share one's own snapshot, under their own context (likewise)",
        "pg_export_snapshot",
    ),
];

/// A new PostgreSQL brings functions that nobody has thought of: one of them might set something, lock
/// somebody or leave something behind.
#[tokio::test]
async fn each_function_that_a_module_may_call_was_judged() {
    let home = Home::new(Tier::Shared).await;
    let outsider = home.outsider().await;
    let sql = "select distinct proname::text from pg_proc
                where pronamespace in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
                  and provolatile = 'v' and has_function_privilege(oid, 'execute')
                  and prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
                order by 1";
    let rows = outsider.query(sql, &[]).await.unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(names.iter().any(|name| name == "pg_sleep"), "{names:?}");
    let is_judged = |name: &String| {
        let mut words = JUDGED
            .iter()
            .flat_map(|(_, words)| words.split_whitespace());
        words.any(|word| match word.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => name == word,
        })
    };
    let unknown: Vec<_> = names.iter().filter(|name| !is_judged(name)).collect();
    assert!(unknown.is_empty(), "not judged: {unknown:?}");
}
