//! Environments, countries, regions and modules: the world that tenants are placed in. Cells and
//! profiles have files of their own.

use std::str::FromStr;

use tokio_postgres::Row;
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{CountryCode, Fault, RegionId};

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

/// Reads a `text[]` column into domain types.
pub(crate) fn parsed_list<T>(row: &Row, name: &'static str) -> Result<Vec<T>, Fault>
where
    T: FromStr<Err = Fault>,
{
    let texts: Vec<&str> = column(row, name)?;
    texts.into_iter().map(str::parse).collect()
}
