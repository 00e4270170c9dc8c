//! The SQL attacks, as data: what is taken away, what is tried, and what a success looks like.
//!
//! The attacker is the module's own login, in the victim's database, inside a transaction that the
//! attacker's own tenant has entered – or, in the dedicated tier, could not enter.

mod contexts;
mod oracles;
mod surroundings;

/// What a success looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leak {
    /// The last statement counts something.
    Counts,
    /// Every statement is carried out.
    Succeeds,
    /// The victim's secret stands in an answer or an error.
    Says,
    /// It fails in a way that tells that the victim's row is there.
    Fails(&'static str),
}

/// One attack. In braces stand names that are filled in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// Takes the defence away.
    pub(super) weaken: &'static str,
    /// Takes back what the catalogue check's mends leave.
    pub(super) restore: &'static str,
    /// A condition without which the attack makes no sense on this server.
    pub(super) needs: &'static str,
    pub(super) script: &'static [&'static str],
    pub(super) leak: Leak,
    /// On every table, not on one of them.
    pub(super) everywhere: bool,
    /// With a proof for reading.
    pub(super) reads: bool,
    /// After going back to a savepoint from before `enter`, which undoes its settings.
    pub(super) savepoint: bool,
}

const fn attack(
    name: &'static str,
    leak: Leak,
    weaken: &'static str,
    script: &'static [&'static str],
) -> Attack {
    Attack {
        name,
        weaken,
        restore: "",
        needs: "true",
        script,
        leak,
        everywhere: false,
        reads: false,
        savepoint: false,
    }
}

const NO_POLICIES: &str = "alter table {table} disable row level security";
const BARE_SETTING: &str = "alter policy tenant on {table} using (tenant_id =
             nullif(current_setting('app.current_tenant', true),
             '')::bigint)";
/// Two tenants write in one database.
const TOGETHER: &str = "'{database}' !~ '^waangu_t_'";
const COUNT: &str = "select count(*) from {table} where tenant_id = {b}";

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Attack> {
    [contexts::ATTACKS, oracles::ATTACKS, surroundings::ATTACKS]
        .into_iter()
        .flatten()
}

impl Attack {
    const fn dropping(self, restore: &'static str) -> Self {
        Self { restore, ..self }
    }

    const fn needing(self, needs: &'static str) -> Self {
        Self { needs, ..self }
    }
}
