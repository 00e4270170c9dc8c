//! From what somebody declares to the registry's types. Each refusal names the entry and its field,
//! such as `cells.sn-dakar-a.region`, so that it can be found in a file.

use std::collections::BTreeSet;

use waangu_api::world::{
    CellSpec, CountrySpec, PolicySpec, ProfileSpec, RegionSpec, ReportSpec, ThresholdSpec,
    WORLD_VERSION, World,
};
use waangu_kernel::{Fault, RoleName, Sla, Tier, fault};
use waangu_registry::{Cell, CellState, Country, Mfa, Policy, Profile, Region, Report, Threshold};

/// Who may run a region.
const PROVIDERS: [&str; 4] = ["aws", "azure", "hetzner", "dc"];

/// How often a report may be made.
const RHYTHMS: [&str; 5] = ["day", "week", "month", "quarter", "year"];

/// A declared world, understood.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) environments: Vec<String>,
    pub(crate) regions: Vec<Region>,
    pub(crate) countries: Vec<Country>,
    pub(crate) profiles: Vec<Profile>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) thresholds: Vec<Threshold>,
    pub(crate) policies: Vec<Policy>,
}

impl Declared {
    /// Parses a world. What a cell leaves open is as it is now, or at first this environment's.
    pub(crate) fn parse(world: &World, environment: &str, now: &[Cell]) -> Result<Self, Fault> {
        if world.version != WORLD_VERSION {
            return Err(invalid(format!(
                "version {} is not known here; {WORLD_VERSION} is",
                world.version
            ))
            .field("version"));
        }
        check_unique(world)?;
        Ok(Self {
            environments: all(
                "environments",
                &world.environments,
                |e| &e.id,
                |e| label(&e.id),
            )?,
            regions: all("regions", &world.regions, |r| &r.id, region)?,
            countries: all("countries", &world.countries, |c| &c.code, country)?,
            profiles: all("profiles", &world.profiles, |p| &p.id, profile)?,
            cells: all(
                "cells",
                &world.cells,
                |c| &c.id,
                |spec| cell(spec, environment, now),
            )?,
            thresholds: all("thresholds", &world.thresholds, |t| &t.id, threshold)?,
            policies: all("advisor", &world.advisor, |p| &p.id, policy)?,
        })
    }
}

/// Parses a section; a fault's field becomes `section.id.field`.
fn all<S, T>(
    section: &str,
    specs: &[S],
    id: impl Fn(&S) -> &String,
    parse: impl Fn(&S) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    specs
        .iter()
        .map(|spec| {
            parse(spec).map_err(|fault| {
                let field = fault.field_name().unwrap_or("id").to_owned();
                let entry = fault::excerpt(id(spec));
                fault.field(format!("{section}.{entry}.{field}"))
            })
        })
        .collect()
}

fn check_unique(world: &World) -> Result<(), Fault> {
    fn twice<'a>(section: &str, ids: impl Iterator<Item = &'a String>) -> Result<(), Fault> {
        let mut seen = BTreeSet::new();
        for id in ids {
            if !seen.insert(id) {
                let entry = fault::excerpt(id);
                return Err(invalid(format!("`{entry}` is declared twice"))
                    .field(format!("{section}.{entry}")));
            }
        }
        Ok(())
    }
    twice("environments", world.environments.iter().map(|e| &e.id))?;
    twice("regions", world.regions.iter().map(|r| &r.id))?;
    twice("countries", world.countries.iter().map(|c| &c.code))?;
    twice("profiles", world.profiles.iter().map(|p| &p.id))?;
    twice("cells", world.cells.iter().map(|c| &c.id))?;
    twice("thresholds", world.thresholds.iter().map(|t| &t.id))?;
    twice("advisor", world.advisor.iter().map(|p| &p.id))
}

fn region(spec: &RegionSpec) -> Result<Region, Fault> {
    if !PROVIDERS.contains(&spec.provider.as_str()) {
        return Err(invalid(format!(
            "`{}` is not a provider: {}",
            fault::excerpt(&spec.provider),
            PROVIDERS.join(", ")
        ))
        .field("provider"));
    }
    Ok(Region {
        id: named(&spec.id, "id")?,
        provider: spec.provider.clone(),
        country: named(&spec.country, "country")?,
        name: text(&spec.name, "name")?,
    })
}

fn country(spec: &CountrySpec) -> Result<Country, Fault> {
    let code: waangu_kernel::CountryCode = named(&spec.code, "code")?;
    let mut seen = BTreeSet::new();
    if let Some(id) = spec.regions.iter().find(|id| !seen.insert(*id)) {
        return Err(invalid(format!("`{}` is there twice", fault::excerpt(id))).field("regions"));
    }
    Ok(Country {
        code,
        name: code.english_name().to_owned(),
        kin_abroad: spec.kin_abroad,
        regions: list(&spec.regions, "regions")?,
    })
}

fn profile(spec: &ProfileSpec) -> Result<Profile, Fault> {
    for title in spec.title.values() {
        text(title, "title")?;
    }
    // PostgreSQL keeps no U+0000 in JSON.
    if let Some(key) = spec.limits.iter().find_map(|(key, value)| {
        let null = key.contains('\0') || value.to_string().contains("\\u0000");
        null.then_some(key)
    }) {
        let detail = format!("`{}` has a null character", fault::excerpt(key));
        return Err(invalid(detail).field("limits"));
    }
    Ok(Profile {
        id: named(&spec.id, "id")?,
        title: spec.title.clone(),
        tier: named(&spec.tier, "tier")?,
        sla: named(&spec.sla, "sla")?,
        in_country: spec.in_country,
        modules: list(&spec.modules, "modules")?,
        roles: roles(&spec.roles)?,
        retention_days: retention_days(spec.retention_days)?,
        mfa: mfa(&spec.mfa)?,
        reports: reports(&spec.reports)?,
        limits: spec.limits.clone(),
    })
}

/// Parses a cell. What it leaves open is as it is now, or at first this environment's.
fn cell(spec: &CellSpec, environment: &str, now: &[Cell]) -> Result<Cell, Fault> {
    let id = named(&spec.id, "id")?;
    let now = now.iter().find(|cell| cell.id == id);
    let state = match &spec.state {
        Some(state) => named::<CellState>(state, "state")?,
        None => now.map_or(CellState::Active, |cell| cell.state),
    };
    let kept = |given: &Option<String>, now: Option<&String>, first: &str| {
        let kept = given.as_ref().or(now);
        kept.map_or_else(|| first.to_owned(), Clone::clone)
    };
    let sla: Sla = named(&spec.sla, "sla")?;
    Ok(Cell {
        id,
        region: named(&spec.region, "region")?,
        environment: kept(
            &spec.environment,
            now.map(|cell| &cell.environment),
            environment,
        ),
        host: kept(&spec.host, now.map(|cell| &cell.host), ""),
        port: match spec.port {
            Some(port) => i32::from(port),
            None => now.map_or(0, |cell| cell.port),
        },
        state,
        sla,
        capacity: positive(spec.capacity, "capacity")?,
        capacity_bytes: spec
            .capacity_bytes
            .map(|bytes| positive(bytes, "capacity_bytes"))
            .transpose()?,
        capacity_connections: spec
            .capacity_connections
            .map(|connections| positive(connections, "capacity_connections"))
            .transpose()?,
        bucket_limit: positive(spec.bucket_limit, "bucket_limit")?,
        tenants: now.map_or(0, |cell| cell.tenants),
        usage: None,
    })
}

fn threshold(spec: &ThresholdSpec) -> Result<Threshold, Fault> {
    let bound = |given: Option<i64>, field| given.map(|most| positive(most, field)).transpose();
    let tier: Tier = named(&spec.id, "id")?;
    if tier == Tier::Shared {
        return Err(invalid("shared is what tenants are moved away from").field("id"));
    }
    Ok(Threshold {
        tier,
        bytes: bound(spec.bytes, "bytes")?,
        rows: bound(spec.rows, "rows")?,
        requests_per_minute: bound(spec.requests_per_minute, "requests_per_minute")?,
        database_ms_per_minute: bound(spec.database_ms_per_minute, "database_ms_per_minute")?,
        window_hours: between(spec.window_hours, 1, 720, "window_hours")?,
        hold_minutes: between(spec.hold_minutes, 0, 43_200, "hold_minutes")?,
        release_percent: between(spec.release_percent, 1, 100, "release_percent")?,
    })
}

fn policy(spec: &PolicySpec) -> Result<Policy, Fault> {
    Ok(Policy {
        scope: named(&spec.id, "id")?,
        act: named(&spec.act, "act")?,
        from_hour: between(spec.from_hour, 0, 23, "from_hour")?,
        until_hour: between(spec.until_hour, 0, 23, "until_hour")?,
        most_per_day: between(spec.most_per_day, 1, 1_000, "most_per_day")?,
        most_at_once: between(spec.most_at_once, 1, 20, "most_at_once")?,
        quiet_hours: between(spec.quiet_hours, 1, 720, "quiet_hours")?,
    })
}

fn between(given: i32, least: i32, most: i32, field: &'static str) -> Result<i32, Fault> {
    if (least..=most).contains(&given) {
        return Ok(given);
    }
    Err(invalid(format!("it has to be from {least} to {most}")).field(field))
}

/// Roles; whether a module declares them shows when they are given to somebody.
pub(crate) fn roles(given: &[String]) -> Result<Vec<RoleName>, Fault> {
    list(given, "roles")
}

/// Days, at least one.
pub(crate) fn retention_days(given: Option<i32>) -> Result<Option<i32>, Fault> {
    given
        .map(|days| positive(days, "retention_days"))
        .transpose()
}

/// Whether a second factor is needed.
pub(crate) fn mfa(given: &str) -> Result<Mfa, Fault> {
    named(given, "mfa")
}

/// Reports with a name and a rhythm.
pub(crate) fn reports(given: &[ReportSpec]) -> Result<Vec<Report>, Fault> {
    given
        .iter()
        .map(|ReportSpec { kind, every }| {
            if !RHYTHMS.contains(&every.as_str()) {
                return Err(invalid(format!(
                    "a report is made every {}, not every `{}`",
                    RHYTHMS.join(", "),
                    fault::excerpt(every)
                ))
                .field("reports"));
            }
            Ok(Report {
                kind: label(kind).map_err(|fault| fault.field("reports"))?,
                every: every.clone(),
            })
        })
        .collect()
}

fn named<T>(given: &str, field: &'static str) -> Result<T, Fault>
where
    T: std::str::FromStr<Err = Fault>,
{
    given.parse().map_err(|fault: Fault| fault.field(field))
}

fn list<T>(given: &[String], field: &'static str) -> Result<Vec<T>, Fault>
where
    T: std::str::FromStr<Err = Fault>,
{
    given.iter().map(|text| named(text, field)).collect()
}

fn positive<N: Copy + Default + PartialOrd>(given: N, field: &'static str) -> Result<N, Fault> {
    if given > N::default() {
        return Ok(given);
    }
    Err(invalid("it has to be at least 1").field(field))
}

/// A short name of lower-case letters, digits and hyphens.
fn label(given: &str) -> Result<String, Fault> {
    let fine = (1..=40).contains(&given.len())
        && given.starts_with(|c: char| c.is_ascii_lowercase())
        && given
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if fine {
        return Ok(given.to_owned());
    }
    Err(invalid(format!(
        "`{}` is not a name: a-z, 0-9 and hyphens, at most 40",
        fault::excerpt(given)
    )))
}

/// A text for people.
fn text(given: &str, field: &'static str) -> Result<String, Fault> {
    crate::admin::check_name(given.to_owned()).map_err(|fault| fault.field(field))
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    fault::INVALID_FIELD.fault(detail)
}
