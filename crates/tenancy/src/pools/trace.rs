//! Which statements leave nothing behind in a session.
//!
//! A hostile statement that sets something, prepares, listens, declares a holdable cursor or takes the
//! place of one of the driver's prepared statements would wait there for the next tenant. All of these
//! are commands of their own; the extended protocol takes one command at a time, and no function that
//! a module may call does the same (`core.sql` takes away PostgreSQL's, `protect` refuses a module's).
//! So the first word tells.
//!
//! Deliberately narrow: what is not known to be harmless is not, and costs its connection.

/// Commands that change rows and nothing of a session. `COPY` and savepoints are this crate's own ways.
const HARMLESS: [&str; 10] = [
    "select",
    "insert",
    "update",
    "delete",
    "merge",
    "with",
    "values",
    "copy",
    "savepoint",
    "release",
];

/// Commands that do the same with BEGIN and without it, as long as nothing ends the transaction
/// between them.
const ALONE: [&str; 7] = [
    "select", "insert", "update", "delete", "merge", "with", "values",
];

/// Whether a statement, sent by itself, leaves nothing behind.
pub(super) fn leaves_none(sql: &str) -> bool {
    let Some((word, rest)) = first_word(sql) else {
        return false;
    };
    HARMLESS.contains(&word.as_str())
        || word == "rollback" && rest.trim_start().to_ascii_lowercase().starts_with("to ")
}

/// Whether a statement has a meaning only between BEGIN and COMMIT, or is not known to have one without.
pub(super) fn needs_a_block(sql: &str) -> bool {
    let word = first_word(sql).map(|(word, _)| word);
    word.is_none_or(|word| !ALONE.contains(&word.as_str()))
}

/// The first word, in small letters, and what follows it.
fn first_word(sql: &str) -> Option<(String, &str)> {
    let sql = after_comments(sql);
    let end = sql.find(|c: char| !c.is_ascii_alphabetic());
    let (word, rest) = sql.split_at(end.unwrap_or(sql.len()));
    // Part of a longer name, perhaps in another alphabet.
    if rest.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()) {
        return None;
    }
    Some((word.to_ascii_lowercase(), rest))
}

/// What follows white space and comments as PostgreSQL reads them (documentation §4.1.5), except that
/// a comment within a comment is left where it is, as something unknown.
fn after_comments(sql: &str) -> &str {
    let mut sql = sql;
    loop {
        sql = sql.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
        let rest = if let Some(line) = sql.strip_prefix("--") {
            line.find(['\n', '\r']).and_then(|end| line.get(end..))
        } else if let Some(block) = sql.strip_prefix("/*") {
            let end = block.split_once("*/");
            // `/*/` opens another comment for PostgreSQL, where `*/` would overlap with its opening.
            end.filter(|(comment, _)| !(comment.contains("/*") || comment.ends_with('/')))
                .map(|(_, rest)| rest)
        } else {
            None
        };
        match rest {
            Some(rest) => sql = rest,
            None => return sql,
        }
    }
}

#[cfg(test)]
mod disguises;

#[cfg(test)]
mod tests {
    use super::*;

    /// A module whose every query cost a connection would be slow for no reason.
    #[test]
    fn ordinary_statements_are_harmless() {
        for sql in [
            "select 1",
            "  \n\tSELECT*from t",
            "-- name: all\nselect 1",
            "/* why */ with a as (select 1) select 1",
            "Insert into t values (1)",
            "update t set a = 1",
            "delete from t",
            "merge into t using s on true when matched then delete",
            "values(1)",
            "copy (select 1) to stdout",
            "savepoint waangu_1",
            "rollback to savepoint waangu_1",
        ] {
            assert!(leaves_none(sql), "{sql}");
        }
    }

    /// What one of these leaves behind would serve the next tenant.
    #[test]
    fn everything_else_costs_the_connection() {
        for sql in [
            "",
            "prepare s0 as select 2",
            "deallocate all",
            "declare c cursor with hold for select 1",
            "listen x",
            "set role waangu_module",
            "set local jit = on",
            "reset all",
            "do $$ begin end $$",
            "execute s0",
            "explain analyze execute s0",
            "rollback",
            "rollback; to",
            "rollback prepared 'to '",
            "commit",
            "discard all",
            "; prepare s0 as select 2",
            "selectx",
            "select_1",
            "selecté",
            "/* /* */ select 1 */ prepare s0 as select 2",
            "/*/*/select 1 */ */ prepare s0 as select 2",
            "-- select\rprepare s0 as select 2",
            "-- select",
            "/* select 1",
            "/**/prepare s0 as select 2",
            "\u{a0}select 1",
            "(select 1)",
        ] {
            assert!(!leaves_none(sql), "{sql}");
        }
    }

    /// A savepoint without a block would be refused; a procedure could commit.
    #[test]
    fn only_plain_statements_do_without_a_block() {
        assert!(!needs_a_block("/* why */ select 1"));
        for sql in [
            "savepoint a",
            "release a",
            "rollback to a",
            "call p()",
            "do $$$$",
            "lock t",
            "",
        ] {
            assert!(needs_a_block(sql), "{sql}");
        }
    }
}
