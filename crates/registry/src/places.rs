//! Countries, regions, cells, profiles and modules: the world that tenants are placed in.

use std::collections::BTreeMap;
use std::str::FromStr;

use tokio_postgres::Row;
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{CellId, CountryCode, Fault, ModuleId, ProfileId, RegionId, Tier, fault};

use crate::db::{Tx, column, internal, parsed};

/// A country and its residency rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Country {
    /// ISO 3166-1 alpha-2.
    pub code: CountryCode,
    /// Its name.
    pub name: String,
    /// Whether parents and sub-tenants may be in another country.
    pub kin_abroad: bool,
    /// Regions where its tenants may live, best first.
    pub regions: Vec<RegionId>,
}

/// A place with a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Its id.
    pub id: RegionId,
    /// `aws`, `azure`, `hetzner` or `dc`.
    pub provider: String,
    /// The country it stands in.
    pub country: CountryCode,
    /// Its name, for people.
    pub name: String,
}

/// Whether a cell takes tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellState {
    /// Takes tenants.
    Active,
    /// Serves, takes no more.
    Full,
    /// Serves, is being emptied.
    Draining,
    /// Does not serve.
    Down,
}

impl CellState {
    /// The name in API and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Full => "full",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

impl FromStr for CellState {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        [Self::Active, Self::Full, Self::Draining, Self::Down]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| fault::INVALID_FIELD.fault(format!("`{text}` is not a cell state")))
    }
}

/// One PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Its id.
    pub id: CellId,
    /// Where it stands.
    pub region: RegionId,
    /// `dev`, `test`, `preprod` or `prod`.
    pub environment: String,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: i32,
    /// Whether it takes tenants.
    pub state: CellState,
    /// How many tenants it may hold.
    pub capacity: i32,
    /// How many it holds.
    pub tenants: i64,
}

/// A sector blueprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its id.
    pub id: ProfileId,
    /// Title by language.
    pub title: BTreeMap<String, String>,
    /// The tier its tenants get.
    pub tier: Tier,
    /// Whether data must stay in the tenant's own country.
    pub in_country: bool,
    /// Modules that are switched on at birth.
    pub modules: Vec<ModuleId>,
}

/// An installed module.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredModule {
    /// Its declaration, with id and version.
    pub manifest: Manifest,
}

impl Tx<'_> {
    /// Creates or updates an environment.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_environment(&self, id: &str, rank: i32) -> Result<(), Fault> {
        let sql = "insert into registry.environment values ($1, $2)
                   on conflict (id) do update set rank = excluded.rank";
        self.execute(sql, &[&id, &rank]).await.map(drop)
    }

    /// All environments, in the order of promotion.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_environments(&self) -> Result<Vec<String>, Fault> {
        let rows = self
            .rows("select id from registry.environment order by rank", &[])
            .await?;
        rows.iter().map(|row| column(row, "id")).collect()
    }

    /// Creates or updates a region.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_region(&self, region: &Region) -> Result<(), Fault> {
        let sql = "insert into registry.region values ($1, $2, $3, $4)
                   on conflict (id) do update
                   set provider = excluded.provider
                     , country = excluded.country
                     , name = excluded.name";
        let Region {
            id,
            provider,
            country,
            name,
        } = region;
        self.execute(sql, &[&id.as_str(), provider, &country.as_str(), name])
            .await
            .map(drop)
    }

    /// All regions.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_regions(&self) -> Result<Vec<Region>, Fault> {
        let rows = self
            .rows("select * from registry.region order by id", &[])
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Region {
                    id: parsed(row, "id")?,
                    provider: column(row, "provider")?,
                    country: parsed(row, "country")?,
                    name: column(row, "name")?,
                })
            })
            .collect()
    }

    /// Creates or updates a country with its residency rule.
    ///
    /// # Errors
    /// `internal` when a region of the rule does not exist; `database-unavailable`.
    pub async fn put_country(&self, country: &Country) -> Result<(), Fault> {
        let sql = "insert into registry.country values ($1, $2, $3)
                   on conflict (code) do update
                   set name = excluded.name
                     , kin_abroad = excluded.kin_abroad";
        let code = country.code.as_str();
        self.execute(sql, &[&code, &country.name, &country.kin_abroad])
            .await?;
        self.execute(
            "delete from registry.country_region where country = $1",
            &[&code],
        )
        .await?;
        let regions: Vec<&str> = country.regions.iter().map(RegionId::as_str).collect();
        let sql = "insert into registry.country_region
                   select $1, region, rank::integer
                     from unnest($2::text[]) with ordinality as r (region, rank)";
        self.execute(sql, &[&code, &regions]).await.map(drop)
    }

    /// All countries served, or the one with this code.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_countries(&self, only: Option<CountryCode>) -> Result<Vec<Country>, Fault> {
        let sql = "select c.code
                        , c.name
                        , c.kin_abroad
                        , coalesce(array_agg(r.region order by r.rank)
                                   filter (where r.region is not null), '{}') as regions
                     from registry.country c
                     left join registry.country_region r on r.country = c.code
                    where $1::text is null or c.code = $1
                    group by c.code
                    order by c.code";
        let only = only.map(|code| code.as_str());
        let rows = self.rows(sql, &[&only]).await?;
        rows.iter()
            .map(|row| {
                Ok(Country {
                    code: parsed(row, "code")?,
                    name: column(row, "name")?,
                    kin_abroad: column(row, "kin_abroad")?,
                    regions: parsed_list(row, "regions")?,
                })
            })
            .collect()
    }

    /// Creates a cell or updates where it answers and how much it holds.
    ///
    /// # Errors
    /// `internal` when its region or environment does not exist; `database-unavailable`.
    pub async fn put_cell(&self, cell: &Cell) -> Result<(), Fault> {
        let sql = "insert into registry.cell
                   (id, region, environment, host, port, state, capacity)
                   values ($1, $2, $3, $4, $5, $6, $7)
                   on conflict (id) do update
                   set host = excluded.host
                     , port = excluded.port
                     , capacity = excluded.capacity";
        self.execute(
            sql,
            &[
                &cell.id.as_str(),
                &cell.region.as_str(),
                &cell.environment,
                &cell.host,
                &cell.port,
                &cell.state.as_str(),
                &cell.capacity,
            ],
        )
        .await
        .map(drop)
    }

    /// All cells with the number of tenants they hold.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_cells(&self) -> Result<Vec<Cell>, Fault> {
        let sql = "select c.*
                        , (select count(*) from registry.tenant t
                            where t.cell = c.id and t.state <> 'deleted') as tenants
                     from registry.cell c
                    order by c.id";
        let rows = self.rows(sql, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(Cell {
                    id: parsed(row, "id")?,
                    region: parsed(row, "region")?,
                    environment: column(row, "environment")?,
                    host: column(row, "host")?,
                    port: column(row, "port")?,
                    state: parsed(row, "state")?,
                    capacity: column(row, "capacity")?,
                    tenants: column(row, "tenants")?,
                })
            })
            .collect()
    }

    /// Creates or updates a profile.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_profile(&self, profile: &Profile) -> Result<(), Fault> {
        let sql = "insert into registry.profile values ($1, $2, $3, $4, $5)
                   on conflict (id) do update
                   set title = excluded.title
                     , tier = excluded.tier
                     , in_country = excluded.in_country
                     , modules = excluded.modules";
        let title = serde_json::to_value(&profile.title).map_err(internal)?;
        let modules: Vec<&str> = profile.modules.iter().map(ModuleId::as_str).collect();
        self.execute(
            sql,
            &[
                &profile.id.as_str(),
                &title,
                &profile.tier.as_str(),
                &profile.in_country,
                &modules,
            ],
        )
        .await
        .map(drop)
    }

    /// The profile of this id.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn get_profile(&self, id: &ProfileId) -> Result<Option<Profile>, Fault> {
        let sql = "select * from registry.profile where id = $1";
        self.row(sql, &[&id.as_str()])
            .await?
            .as_ref()
            .map(profile_from)
            .transpose()
    }

    /// Installs a module, or another version of it.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_module(&self, manifest: &Manifest) -> Result<(), Fault> {
        let sql = "insert into registry.module values ($1, $2, $3)
                   on conflict (id) do update
                   set version = excluded.version
                     , manifest = excluded.manifest
                   where registry.module.manifest <> excluded.manifest";
        let document = serde_json::to_value(manifest).map_err(internal)?;
        self.execute(sql, &[&manifest.id.as_str(), &manifest.version, &document])
            .await
            .map(drop)
    }

    /// All installed modules.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_modules(&self) -> Result<Vec<StoredModule>, Fault> {
        let rows = self
            .rows("select manifest from registry.module order by id", &[])
            .await?;
        rows.iter().map(module_from).collect()
    }
}

pub(crate) fn module_from(row: &Row) -> Result<StoredModule, Fault> {
    let document: serde_json::Value = column(row, "manifest")?;
    let manifest = serde_json::from_value(document).map_err(internal)?;
    Ok(StoredModule { manifest })
}

fn profile_from(row: &Row) -> Result<Profile, Fault> {
    let title: serde_json::Value = column(row, "title")?;
    Ok(Profile {
        id: parsed(row, "id")?,
        title: serde_json::from_value(title).map_err(internal)?,
        tier: parsed(row, "tier")?,
        in_country: column(row, "in_country")?,
        modules: parsed_list(row, "modules")?,
    })
}

/// Reads a `text[]` column into domain types.
pub(crate) fn parsed_list<T>(row: &Row, name: &'static str) -> Result<Vec<T>, Fault>
where
    T: FromStr<Err = Fault>,
{
    let texts: Vec<&str> = column(row, name)?;
    texts.into_iter().map(str::parse).collect()
}
