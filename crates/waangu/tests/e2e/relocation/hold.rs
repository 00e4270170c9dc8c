//! Holding a move up where a test wants it: by a lock of somebody else's, never by a switch in the program.

use std::time::Duration;

use serde_json::Value;

use crate::support::db::in_database;
use crate::support::{Platform, Session, until};

/// Longest wait for a phase on a busy machine.
const PHASE: Duration = Duration::from_secs(40);

/// A tenant whose moves are held up.
pub(super) struct Stage<'a> {
    platform: &'a Platform,
    registry: Session,
    pub(super) slug: &'a str,
    pub(super) number: i64,
}

/// An open transaction; what it holds is free when it is dropped.
pub(super) struct Hold(#[expect(dead_code, reason = "it lives as long as the hold")] Session);

impl<'a> Stage<'a> {
    pub(super) async fn of(platform: &'a Platform, slug: &'a str) -> Self {
        let registry = Session::open(&platform.ready.control_dsn).await;
        let sql = format!("select id from registry.tenant where slug = '{slug}'");
        let number = registry.number(&sql).await;
        Self {
            platform,
            registry,
            slug,
            number,
        }
    }

    /// The phase of the tenant's newest move.
    pub(super) async fn phase(&self) -> String {
        let sql = "select phase from registry.relocation where tenant_id = $1
                    order by created_at desc limit 1";
        self.registry.rows(sql, &[&self.number]).await[0].get(0)
    }

    pub(super) async fn reaches(&self, phase: &str) {
        until(&format!("the move is {phase}"), PHASE, async || {
            (self.phase().await == phase).then_some(())
        })
        .await;
    }

    /// The database of a place, as its superuser.
    pub(super) fn dsn(&self, cell: &str, database: &str) -> String {
        let mut cells = self.platform.ready.cells.iter();
        let cell = cells.find(|known| known.id == cell).unwrap();
        in_database(&cell.superuser_dsn, database)
    }

    /// Where the tenant lives, as the registry says.
    pub(super) async fn home(&self) -> String {
        let place = super::placement(self.platform, self.slug).await;
        let text = |field: &str| place[field].as_str().unwrap().to_owned();
        self.dsn(&text("cell"), &text("database"))
    }

    /// No worker gets the move.
    pub(super) async fn keep_queued(&self) -> Hold {
        let sql = format!("select pg_advisory_xact_lock({})", self.number);
        Hold::of(&self.platform.ready.control_dsn, &sql).await
    }

    /// The tenant can't be frozen, as while one of its own transactions is open.
    pub(super) async fn keep_from_freezing(&self) -> Hold {
        let sql = format!("select pg_advisory_xact_lock_shared({})", self.number);
        Hold::of(&self.home().await, &sql).await
    }

    /// No slot can be made at the tenant's home, so no copy of anybody there gets beyond its beginning.
    pub(super) async fn keep_slots_away(&self) -> Hold {
        Hold::of(&self.home().await, "select pg_current_xact_id()::text").await
    }

    /// Workers take this tenant's move before those of others.
    pub(super) async fn prefer(&self) {
        let sql = "update registry.relocation set retry_at = retry_at - interval '1 hour'
                    where tenant_id = $1";
        self.registry.rows(sql, &[&self.number]).await;
    }

    /// The registry can't name another place.
    pub(super) async fn keep_from_switching(&self) -> Hold {
        let sql = format!(
            "select from registry.tenant where id = {} for no key update",
            self.number
        );
        Hold::of(&self.platform.ready.control_dsn, &sql).await
    }

    /// The new place can't be opened.
    pub(super) async fn keep_closed(&self, dsn: &str) -> Hold {
        let sql = format!(
            "insert into waangu.home (tenant_id, state, epoch) values ({}, 'moved', 0)
             on conflict (tenant_id) do update set epoch = waangu.home.epoch",
            self.number
        );
        Hold::of(dsn, &sql).await
    }

    /// What the move needs at its source can't be removed.
    pub(super) async fn keep_publication(&self) -> Hold {
        let home = self.home().await;
        let session = Session::open(&home).await;
        let sql = "select pubname::text from pg_publication where pubname like 'waangu\\_move\\_%'";
        let names = session.texts(sql).await;
        Hold::of(
            &home,
            &format!("comment on publication {} is 'held'", names[0]),
        )
        .await
    }

    /// Waits until the old place is closed for good.
    pub(super) async fn fenced(&self, home: &str) {
        let place = Session::open(home).await;
        let sql = format!(
            "select count(*) from waangu.home where tenant_id = {} and state = 'moved'",
            self.number
        );
        until("the old place is fenced", PHASE, async || {
            (place.number(&sql).await == 1).then_some(())
        })
        .await;
    }

    /// At how many places of all cells the tenant's door is open.
    pub(super) async fn open_doors(&self) -> i64 {
        let mut doors = 0;
        for cell in &self.platform.ready.cells {
            let server = Session::open(&cell.superuser_dsn).await;
            let databases = "select datname::text from pg_database
                              where datname ~ '^waangu(_t_[0-9]+|_schema_[0-9]+)?$'";
            for database in server.texts(databases).await {
                let dsn = in_database(&cell.superuser_dsn, &database);
                // It may be dropped just now, or while it is asked.
                if let Ok(place) = Session::try_open(&dsn).await {
                    let sql = format!(
                        "select count(*) from waangu.home where tenant_id = {} and state = 'active'",
                        self.number
                    );
                    doors += place.try_number(&sql).await.unwrap_or(0);
                }
            }
        }
        doors
    }
}

impl Hold {
    async fn of(dsn: &str, sql: &str) -> Self {
        let session = Session::open(dsn).await;
        for sql in ["begin", sql] {
            session.rows(sql, &[]).await;
        }
        Self(session)
    }
}

/// The shared database of the cell that a place is in.
pub(super) fn shared_of(stage: &Stage<'_>, place: &Value) -> String {
    stage.dsn(place["cell"].as_str().unwrap(), "waangu")
}
