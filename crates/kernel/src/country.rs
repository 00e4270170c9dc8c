//! Country codes: ISO 3166-1 alpha-2, checked against the published list (crate `rust_iso3166`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::fault::{self, Fault};

/// An assigned ISO 3166-1 alpha-2 code, upper case, such as `SN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct CountryCode(&'static str);

impl CountryCode {
    /// The two letters.
    pub fn as_str(&self) -> &'static str {
        self.0
    }

    /// The short English name from the standard.
    pub fn english_name(&self) -> &'static str {
        rust_iso3166::from_alpha2(self.0).map_or(self.0, |country| country.name)
    }
}

impl FromStr for CountryCode {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        rust_iso3166::from_alpha2(text)
            .map(|country| Self(country.alpha2))
            .ok_or_else(|| {
                fault::COUNTRY_UNKNOWN
                    .fault(format!(
                        "`{}` is not an ISO 3166-1 alpha-2 code",
                        fault::excerpt(text)
                    ))
                    .field("country")
            })
    }
}

// By hand: the derive would take the static text for one borrowed from the input.
impl<'de> Deserialize<'de> for CountryCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl From<CountryCode> for String {
    fn from(code: CountryCode) -> Self {
        code.0.to_owned()
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
