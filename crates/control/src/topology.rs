//! The world as a file: environments, regions, countries, profiles, cells. Applied at each start;
//! what is in the file is created or updated, what is not is left alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use waangu_kernel::{CellId, CountryCode, Fault, ModuleId, ProfileId, RegionId, Tier};
use waangu_registry::{Cell, CellState, Country, Profile, Region, Tx};

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// In the order of promotion.
    #[serde(default)]
    pub environments: Vec<EnvironmentSpec>,
    /// Places with a provider.
    #[serde(default)]
    pub regions: Vec<RegionSpec>,
    /// Countries with their residency rule.
    #[serde(default)]
    pub countries: Vec<CountrySpec>,
    /// Sector blueprints.
    #[serde(default)]
    pub profiles: Vec<ProfileSpec>,
    /// PostgreSQL servers.
    #[serde(default)]
    pub cells: Vec<CellSpec>,
}

/// An environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentSpec {
    /// `dev`, `test`, `preprod` or `prod`.
    pub id: String,
}

/// A region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionSpec {
    /// Its id.
    pub id: RegionId,
    /// `aws`, `azure`, `hetzner` or `dc`.
    pub provider: String,
    /// The country it stands in.
    pub country: CountryCode,
    /// Its name.
    pub name: String,
}

/// A country.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountrySpec {
    /// ISO 3166-1 alpha-2.
    pub code: CountryCode,
    /// Regions where its tenants may live, best first.
    pub regions: Vec<RegionId>,
    /// Whether parents and sub-tenants may be in another country.
    #[serde(default)]
    pub kin_abroad: bool,
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileSpec {
    /// Its id.
    pub id: ProfileId,
    /// Title by language.
    pub title: BTreeMap<String, String>,
    /// The tier its tenants get.
    pub tier: Tier,
    /// Whether data must stay in the tenant's own country.
    #[serde(default)]
    pub in_country: bool,
    /// Modules that are switched on at birth.
    pub modules: Vec<ModuleId>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellSpec {
    /// Its id.
    pub id: CellId,
    /// Where it stands.
    pub region: RegionId,
    /// How many tenants it may hold.
    pub capacity: i32,
    /// Host name or address; filled in by whoever starts the server.
    #[serde(default)]
    pub host: String,
    /// TCP port, likewise.
    #[serde(default)]
    pub port: u16,
}

impl Topology {
    /// Writes the world into the registry.
    pub(crate) async fn apply(&self, tx: &Tx<'_>, environment: &str) -> Result<(), Fault> {
        for (rank, spec) in (0_i32..).zip(&self.environments) {
            tx.put_environment(&spec.id, rank).await?;
        }
        for spec in self.regions.clone() {
            let RegionSpec {
                id,
                provider,
                country,
                name,
            } = spec;
            tx.put_region(&Region {
                id,
                provider,
                country,
                name,
            })
            .await?;
        }
        for CountrySpec {
            code,
            regions,
            kin_abroad,
        } in self.countries.clone()
        {
            let name = code.english_name().to_owned();
            tx.put_country(&Country {
                code,
                name,
                kin_abroad,
                regions,
            })
            .await?;
        }
        for spec in self.profiles.clone() {
            let ProfileSpec {
                id,
                title,
                tier,
                in_country,
                modules,
            } = spec;
            tx.put_profile(&Profile {
                id,
                title,
                tier,
                in_country,
                modules,
            })
            .await?;
        }
        for CellSpec {
            id,
            region,
            capacity,
            host,
            port,
        } in self.cells.clone()
        {
            let environment = environment.to_owned();
            let (state, port) = (CellState::Active, i32::from(port));
            let cell = Cell {
                id,
                region,
                environment,
                host,
                port,
                state,
                capacity,
                tenants: 0,
            };
            tx.put_cell(&cell).await?;
        }
        Ok(())
    }
}
