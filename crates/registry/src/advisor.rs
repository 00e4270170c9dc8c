//! What tenants use, from how much of it on another tier is better for them, and what is proposed.
//!
//! Invariants: sums of traffic come from gateways ([`Traffic`]), sizes from whoever measures the cells;
//! both are of the past and decide nothing here. An advice that is put or taken back is recorded in
//! the audit by its caller.

use std::str::FromStr;

use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use waangu_kernel::{CellId, CountryCode, Fault, ProfileId, Sla, Slug, TenantId, Tier};

use crate::db::{Session, Tx, column, from_driver, internal, parsed};

/// From how much use on a tier is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// The tier.
    pub tier: Tier,
    /// Bytes on disk.
    pub bytes: Option<i64>,
    /// Rows in all of its tables.
    pub rows: Option<i64>,
    /// Requests, on average over the window.
    pub requests_per_minute: Option<i64>,
    /// Milliseconds for which a connection was held, likewise.
    pub database_ms_per_minute: Option<i64>,
    /// The window, in hours.
    pub window_hours: i32,
    /// How long it must hold before it counts, and be over before it doesn't.
    pub hold_minutes: i32,
    /// Below this share of the threshold it is over.
    pub release_percent: i32,
}

/// What is known of a tenant that may be placed otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its number.
    pub id: TenantId,
    /// Its slug.
    pub slug: Slug,
    /// Its country.
    pub country: CountryCode,
    /// Its profile.
    pub profile: Option<ProfileId>,
    /// Where it lives: cell.
    pub cell: CellId,
    /// Where it lives: tier.
    pub tier: Tier,
    /// The tier that somebody asked for.
    pub asked_tier: Option<Tier>,
    /// The service level that somebody asked for.
    pub asked_sla: Option<Sla>,
    /// What it holds, once measured.
    pub volume: Option<Volume>,
}

/// What a tenant holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// When that was so.
    pub measured_at: OffsetDateTime,
    /// Bytes on disk.
    pub bytes: i64,
    /// Rows in all of its tables, if they were counted.
    pub rows: Option<i64>,
}

/// What a tenant asked for in some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests passed on to modules.
    pub requests: i64,
    /// Microseconds for which modules held a connection for it.
    pub database_us: i64,
}

/// How far an advice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdviceState {
    /// Its criteria hold, not long enough yet.
    Rising,
    /// Proposed.
    Open,
    /// Proposed; its criteria don't hold any more, not long enough yet.
    Falling,
}

impl AdviceState {
    /// The name in API and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rising => "rising",
            Self::Open => "open",
            Self::Falling => "falling",
        }
    }
}

impl FromStr for AdviceState {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        [Self::Rising, Self::Open, Self::Falling]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| internal(format!("state of an advice {text}")))
    }
}

/// A place where a tenant would be better off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The tenant.
    pub tenant: TenantId,
    /// The tier.
    pub tier: Tier,
    /// The cell; none would take it if it is missing.
    pub cell: Option<CellId>,
    /// How far it is.
    pub state: AdviceState,
    /// Since when it is so far.
    pub since: OffsetDateTime,
    /// Whether something measured speaks for it, not only rules.
    pub measured: bool,
    /// Which criteria: `compliance`, `volume`, `traffic`, `sla`.
    pub criteria: Vec<String>,
    /// What was seen, for people.
    pub evidence: Vec<String>,
    /// Why that cell, for people.
    pub reasons: Vec<String>,
    /// When it was last looked at.
    pub seen_at: OffsetDateTime,
}

/// An advice with the tenant as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdviceOf {
    /// The tenant's slug.
    pub slug: Slug,
    /// Its tier.
    pub tier: Tier,
    /// Its cell.
    pub cell: CellId,
    /// Its profile.
    pub profile: Option<ProfileId>,
    /// The advice.
    pub advice: Advice,
}

/// A look at all tenants.
#[derive(Debug, Clone, PartialEq)]
pub struct AdvisorRound {
    /// Its number.
    pub id: i64,
    /// Who asked for it.
    pub wanted_by: String,
    /// When.
    pub wanted_at: OffsetDateTime,
    /// When it was over.
    pub finished_at: Option<OffsetDateTime>,
    /// What it cost.
    pub cost: Value,
    /// What it could not look at, and why.
    pub error: Option<String>,
}

/// Advisory lock of the process that looks.
const ROUND_LOCK: i64 = -8;

/// How many rounds are remembered.
const REMEMBERED: i64 = 100;

impl Session {
    /// Takes the round that is open, or returns `None` if there is none or another process is at it.
    /// It is held until [`Session::release_all`] or the end of the session.
    ///
    /// # Errors
    /// `database-unavailable`; drop the session then.
    pub async fn claim_advisor_round(&mut self) -> Result<Option<AdvisorRound>, Fault> {
        self.claims.push(ROUND_LOCK);
        let sql = "select pg_try_advisory_lock($1) as taken";
        let row = self.client()?.query_one(sql, &[&ROUND_LOCK]).await;
        if !column::<bool>(&row.map_err(from_driver)?, "taken")? {
            self.claims.retain(|held| *held != ROUND_LOCK);
            return Ok(None);
        }
        let sql = "select * from registry.advisor_round where finished_at is null";
        let row = self.client()?.query_opt(sql, &[]).await;
        let row = row.map_err(from_driver)?;
        if row.is_none() {
            self.release_all().await?;
        }
        row.as_ref().map(round_from).transpose()
    }
}

impl Tx<'_> {
    /// Asks for a look at all tenants, or joins the one that is asked for already.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn want_advisor_round(&self, actor: &str) -> Result<AdvisorRound, Fault> {
        let sql = "delete from registry.advisor_round
                    where finished_at is not null
                      and id <= (select max(id) from registry.advisor_round) - $1";
        self.execute(sql, &[&REMEMBERED]).await?;
        let sql = "insert into registry.advisor_round (wanted_by) values ($1)
                   on conflict ((true)) where finished_at is null do nothing";
        self.execute(sql, &[&actor]).await?;
        let sql = "select * from registry.advisor_round where finished_at is null";
        round_from(&self.one(sql, &[]).await?)
    }

    /// The newest round.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn get_advisor_round(&self) -> Result<Option<AdvisorRound>, Fault> {
        let sql = "select * from registry.advisor_round order by id desc limit 1";
        self.row(sql, &[])
            .await?
            .as_ref()
            .map(round_from)
            .transpose()
    }

    /// Whether nobody has asked for a round for so long.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn is_advisor_round_due(&self, seconds: i32) -> Result<bool, Fault> {
        let sql = "select not exists (
                       select from registry.advisor_round
                        where finished_at is null
                           or wanted_at > now() - make_interval(secs => $1::integer)) as due";
        column(&self.one(sql, &[&seconds]).await?, "due")
    }

    /// Ends a round, and forgets traffic and acts of before `forget`, and what is of nobody any more.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn finish_advisor_round(
        &self,
        id: i64,
        cost: &Value,
        error: Option<&str>,
        forget: OffsetDateTime,
    ) -> Result<(), Fault> {
        let sql = "update registry.advisor_round
                      set finished_at = now()
                        , cost = $2
                        , error = $3
                    where id = $1";
        self.execute(sql, &[&id, cost, &error]).await?;
        let sql = "delete from registry.tenant_traffic where hour < $1";
        self.execute(sql, &[&forget]).await?;
        let sql = "delete from registry.advisor_act where at < $1";
        self.execute(sql, &[&forget]).await?;
        for table in ["tenant_volume", "advice"] {
            let sql = format!(
                "delete from registry.{table} as held
                  using registry.tenant t
                  where t.id = held.tenant_id and t.state = 'deleted'"
            );
            self.execute(&sql, &[]).await?;
        }
        Ok(())
    }

    /// The thresholds that were declared.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_thresholds(&self) -> Result<Vec<Threshold>, Fault> {
        let sql = "select * from registry.threshold order by tier desc";
        let rows = self.rows(sql, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(Threshold {
                    tier: parsed(row, "tier")?,
                    bytes: column(row, "bytes")?,
                    rows: column(row, "row_count")?,
                    requests_per_minute: column(row, "requests_per_minute")?,
                    database_ms_per_minute: column(row, "database_ms_per_minute")?,
                    window_hours: column(row, "window_hours")?,
                    hold_minutes: column(row, "hold_minutes")?,
                    release_percent: column(row, "release_percent")?,
                })
            })
            .collect()
    }

    /// Creates or updates a threshold.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_threshold(&self, threshold: &Threshold) -> Result<(), Fault> {
        let sql = "insert into registry.threshold
                   (tier, bytes, row_count, requests_per_minute, database_ms_per_minute
                   , window_hours, hold_minutes, release_percent)
                   values ($1, $2, $3, $4, $5, $6, $7, $8)
                   on conflict (tier) do update
                   set bytes = excluded.bytes
                     , row_count = excluded.row_count
                     , requests_per_minute = excluded.requests_per_minute
                     , database_ms_per_minute = excluded.database_ms_per_minute
                     , window_hours = excluded.window_hours
                     , hold_minutes = excluded.hold_minutes
                     , release_percent = excluded.release_percent";
        self.execute(
            sql,
            &[
                &threshold.tier.as_str(),
                &threshold.bytes,
                &threshold.rows,
                &threshold.requests_per_minute,
                &threshold.database_ms_per_minute,
                &threshold.window_hours,
                &threshold.hold_minutes,
                &threshold.release_percent,
            ],
        )
        .await
        .map(drop)
    }

    /// Up to `limit` served or suspended tenants with numbers above `after`, by number; or only one.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_subjects(
        &self,
        only: Option<TenantId>,
        after: i64,
        limit: i64,
    ) -> Result<Vec<Subject>, Fault> {
        let sql = "select t.id
                        , t.slug
                        , t.country
                        , t.profile
                        , t.tier
                        , t.cell
                        , (select o.value #>> '{}' from registry.tenant_override o
                            where o.tenant_id = t.id and o.key = 'tier') as asked_tier
                        , (select o.value #>> '{}' from registry.tenant_override o
                            where o.tenant_id = t.id and o.key = 'sla') as asked_sla
                        , v.measured_at
                        , v.bytes
                        , v.row_count
                     from registry.tenant t
                     left join registry.tenant_volume v on v.tenant_id = t.id
                    where t.id > $1
                      and t.desired <> 'deleted'
                      and t.state in ('active', 'suspended')
                      and ($2::bigint is null or t.id = $2)
                    order by t.id
                    limit $3";
        let only = only.map(TenantId::number);
        let rows = self.rows(sql, &[&after, &only, &limit]).await?;
        rows.iter().map(subject_from).collect()
    }

    /// What each tenant, or only one, asked for since an hour.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_traffic(
        &self,
        only: Option<TenantId>,
        since: OffsetDateTime,
    ) -> Result<Vec<(TenantId, Traffic)>, Fault> {
        let sql = "select tenant_id
                        , sum(requests)::bigint as requests
                        , sum(database_us)::bigint as database_us
                     from registry.tenant_traffic
                    where hour >= $1 and ($2::bigint is null or tenant_id = $2)
                    group by tenant_id";
        let only = only.map(TenantId::number);
        let rows = self.rows(sql, &[&since, &only]).await?;
        rows.iter()
            .map(|row| {
                let traffic = Traffic {
                    requests: column(row, "requests")?,
                    database_us: column(row, "database_us")?,
                };
                Ok((TenantId::new(column(row, "tenant_id")?)?, traffic))
            })
            .collect()
    }

    /// Adds to what tenants have asked for in this hour. The gateway's login may do this and nothing
    /// else.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_traffic(&self, sums: &[(TenantId, Traffic)]) -> Result<(), Fault> {
        let tenants: Vec<i64> = sums.iter().map(|(tenant, _)| tenant.number()).collect();
        let requests: Vec<i64> = sums.iter().map(|(_, sum)| sum.requests).collect();
        let micros: Vec<i64> = sums.iter().map(|(_, sum)| sum.database_us).collect();
        let sql = "select registry.record_traffic($1, $2, $3)";
        self.rows(sql, &[&tenants, &requests, &micros])
            .await
            .map(drop)
    }

    /// Records what a cell's tenants hold: number, bytes, rows. Who does not live there any more, or
    /// not at all, is left out.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_volumes(
        &self,
        cell: &CellId,
        volumes: &[(i64, i64, Option<i64>)],
    ) -> Result<u64, Fault> {
        let sql = "insert into registry.tenant_volume (tenant_id, measured_at, bytes, row_count)
                   select t.id, now(), seen.bytes, seen.row_count
                     from unnest($2::bigint[], $3::bigint[], $4::bigint[])
                          as seen (tenant, bytes, row_count)
                     join registry.tenant t
                       on t.id = seen.tenant and t.cell = $1 and t.state <> 'deleted'
                       on conflict (tenant_id) do update
                      set measured_at = excluded.measured_at
                        , bytes = excluded.bytes
                        , row_count = excluded.row_count";
        let tenants: Vec<i64> = volumes.iter().map(|(tenant, ..)| *tenant).collect();
        let bytes: Vec<i64> = volumes.iter().map(|(_, bytes, _)| *bytes).collect();
        let rows: Vec<Option<i64>> = volumes.iter().map(|(_, _, rows)| *rows).collect();
        self.execute(sql, &[&cell.as_str(), &tenants, &bytes, &rows])
            .await
    }

    /// Advice for all tenants, or for one: by tenant, the strongest tier first.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_advice(
        &self,
        only: Option<TenantId>,
        limit: i64,
    ) -> Result<Vec<AdviceOf>, Fault> {
        let sql = "select a.*
                        , t.slug
                        , t.tier as tier_now
                        , t.cell as cell_now
                        , t.profile
                     from registry.advice a
                     join registry.tenant t on t.id = a.tenant_id and t.state <> 'deleted'
                    where $1::bigint is null or a.tenant_id = $1
                    order by a.tenant_id
                           , array_position(array['dedicated', 'schema', 'shared'], a.tier)
                    limit $2";
        let only = only.map(TenantId::number);
        let rows = self.rows(sql, &[&only, &limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(AdviceOf {
                    slug: parsed(row, "slug")?,
                    tier: parsed(row, "tier_now")?,
                    cell: parsed(row, "cell_now")?,
                    profile: column::<Option<&str>>(row, "profile")?
                        .map(str::parse)
                        .transpose()?,
                    advice: advice_from(row)?,
                })
            })
            .collect()
    }

    /// Writes an advice.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_advice(&self, advice: &Advice) -> Result<(), Fault> {
        let sql = "insert into registry.advice
                   (tenant_id, tier, cell, state, since, measured
                   , criteria, evidence, reasons, seen_at)
                   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                   on conflict (tenant_id, tier) do update
                   set cell = excluded.cell
                     , state = excluded.state
                     , since = excluded.since
                     , measured = excluded.measured
                     , criteria = excluded.criteria
                     , evidence = excluded.evidence
                     , reasons = excluded.reasons
                     , seen_at = excluded.seen_at";
        self.execute(
            sql,
            &[
                &advice.tenant.number(),
                &advice.tier.as_str(),
                &advice.cell.as_ref().map(CellId::as_str),
                &advice.state.as_str(),
                &advice.since,
                &advice.measured,
                &advice.criteria,
                &advice.evidence,
                &advice.reasons,
                &advice.seen_at,
            ],
        )
        .await
        .map(drop)
    }

    /// Takes an advice back.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn delete_advice(&self, tenant: TenantId, tier: Tier) -> Result<(), Fault> {
        let sql = "delete from registry.advice where tenant_id = $1 and tier = $2";
        self.execute(sql, &[&tenant.number(), &tier.as_str()])
            .await
            .map(drop)
    }
}

fn subject_from(row: &Row) -> Result<Subject, Fault> {
    let measured_at: Option<OffsetDateTime> = column(row, "measured_at")?;
    let volume = match measured_at {
        Some(measured_at) => Some(Volume {
            measured_at,
            bytes: column(row, "bytes")?,
            rows: column(row, "row_count")?,
        }),
        None => None,
    };
    let asked = |name| column::<Option<&str>>(row, name);
    Ok(Subject {
        id: TenantId::new(column(row, "id")?)?,
        slug: parsed(row, "slug")?,
        country: parsed(row, "country")?,
        profile: asked("profile")?.map(str::parse).transpose()?,
        cell: parsed(row, "cell")?,
        tier: parsed(row, "tier")?,
        asked_tier: asked("asked_tier")?.map(str::parse).transpose()?,
        asked_sla: asked("asked_sla")?.map(str::parse).transpose()?,
        volume,
    })
}

fn advice_from(row: &Row) -> Result<Advice, Fault> {
    let cell: Option<&str> = column(row, "cell")?;
    Ok(Advice {
        tenant: TenantId::new(column(row, "tenant_id")?)?,
        tier: parsed(row, "tier")?,
        cell: cell.map(str::parse).transpose()?,
        state: parsed(row, "state")?,
        since: column(row, "since")?,
        measured: column(row, "measured")?,
        criteria: column(row, "criteria")?,
        evidence: column(row, "evidence")?,
        reasons: column(row, "reasons")?,
        seen_at: column(row, "seen_at")?,
    })
}

fn round_from(row: &Row) -> Result<AdvisorRound, Fault> {
    Ok(AdvisorRound {
        id: column(row, "id")?,
        wanted_by: column(row, "wanted_by")?,
        wanted_at: column(row, "wanted_at")?,
        finished_at: column(row, "finished_at")?,
        cost: column(row, "cost")?,
        error: column(row, "error")?,
    })
}
