//! From the registry's types to what somebody would declare.

use waangu_api::world::{
    CellSpec, CountrySpec, EnvironmentSpec, PolicySpec, ProfileSpec, RegionSpec, ReportSpec,
    ThresholdSpec, WORLD_VERSION, World,
};
use waangu_kernel::Fault;
use waangu_registry::{Cell, Policy, Profile, Report, Threshold, Tx};

/// All of it.
pub(crate) async fn world(tx: &Tx<'_>) -> Result<World, Fault> {
    let environments = tx.list_environments().await?;
    let regions = tx.list_regions().await?;
    let countries = tx.list_countries(None).await?;
    Ok(World {
        version: WORLD_VERSION,
        environments: environments
            .into_iter()
            .map(|id| EnvironmentSpec { id })
            .collect(),
        regions: regions
            .into_iter()
            .map(|region| RegionSpec {
                id: region.id.into(),
                provider: region.provider,
                country: region.country.into(),
                name: region.name,
            })
            .collect(),
        countries: countries
            .into_iter()
            .map(|country| CountrySpec {
                code: country.code.into(),
                regions: country.regions.into_iter().map(Into::into).collect(),
                kin_abroad: country.kin_abroad,
            })
            .collect(),
        profiles: tx
            .list_profiles()
            .await?
            .into_iter()
            .map(profile_spec)
            .collect(),
        cells: tx.list_cells().await?.into_iter().map(cell_spec).collect(),
        thresholds: tx
            .list_thresholds()
            .await?
            .into_iter()
            .map(threshold_spec)
            .collect(),
        advisor: tx.list_policies().await?.iter().map(policy_spec).collect(),
    })
}

/// A profile.
pub(crate) fn profile_spec(profile: Profile) -> ProfileSpec {
    let report = |Report { kind, every }| ReportSpec { kind, every };
    ProfileSpec {
        id: profile.id.into(),
        title: profile.title,
        tier: profile.tier.to_string(),
        sla: profile.sla.to_string(),
        in_country: profile.in_country,
        modules: profile.modules.into_iter().map(Into::into).collect(),
        roles: profile.roles.into_iter().map(Into::into).collect(),
        retention_days: profile.retention_days,
        mfa: profile.mfa.as_str().to_owned(),
        reports: profile.reports.into_iter().map(report).collect(),
        limits: profile.limits,
    }
}

/// A threshold.
pub(crate) fn threshold_spec(threshold: Threshold) -> ThresholdSpec {
    ThresholdSpec {
        id: threshold.tier.to_string(),
        bytes: threshold.bytes,
        rows: threshold.rows,
        requests_per_minute: threshold.requests_per_minute,
        database_ms_per_minute: threshold.database_ms_per_minute,
        window_hours: threshold.window_hours,
        hold_minutes: threshold.hold_minutes,
        release_percent: threshold.release_percent,
    }
}

/// A policy.
pub(crate) fn policy_spec(policy: &Policy) -> PolicySpec {
    PolicySpec {
        id: policy.scope.to_string(),
        act: policy.act.as_str().to_owned(),
        from_hour: policy.from_hour,
        until_hour: policy.until_hour,
        most_per_day: policy.most_per_day,
        most_at_once: policy.most_at_once,
        quiet_hours: policy.quiet_hours,
    }
}

/// A cell.
fn cell_spec(cell: Cell) -> CellSpec {
    CellSpec {
        id: cell.id.into(),
        region: cell.region.into(),
        sla: cell.sla.to_string(),
        capacity: cell.capacity,
        capacity_bytes: cell.capacity_bytes,
        capacity_connections: cell.capacity_connections,
        bucket_limit: cell.bucket_limit,
        environment: Some(cell.environment),
        state: Some(cell.state.as_str().to_owned()),
        host: Some(cell.host),
        port: u16::try_from(cell.port).ok(),
    }
}
