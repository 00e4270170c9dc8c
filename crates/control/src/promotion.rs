//! Module versions go `dev → test → preprod → prod`: whether an environment may receive one. Pure.
//!
//! One installation is one environment. It knows what it runs itself; what others ran it is told by
//! their records, which an operator carries over.

use waangu_kernel::{Fault, ModuleId, fault};
use waangu_registry::{ModuleRun, Promotion};

/// What is known of versions and environments.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The environments, in the order of promotion.
    pub environments: &'a [String],
    /// What ran where, oldest first.
    pub runs: &'a [ModuleRun],
    /// What may go where.
    pub promotions: &'a [Promotion],
}

impl Known<'_> {
    /// The version that would be promoted, if none is named: the last that the environment before has
    /// begun to run.
    ///
    /// # Errors
    /// `environment-unknown`; `version-not-run-before`, if it has run none.
    pub fn newest(&self, module: &ModuleId, to: &str) -> Result<String, Fault> {
        let before = self.before(to)?.unwrap_or(to);
        let runs = self.runs.iter().rev();
        let mut runs = runs.filter(|run| run.environment == before && run.module == *module);
        match runs.next() {
            Some(run) => Ok(run.version.clone()),
            None => Err(not_run(before, module, None)),
        }
    }

    /// Refuses a version that the environment before `to` has not run.
    ///
    /// # Errors
    /// `environment-unknown`; `version-not-run-before`.
    pub fn check(&self, module: &ModuleId, version: &str, to: &str) -> Result<(), Fault> {
        match self.before(to)? {
            Some(before) if !self.ran(before, module, version) => {
                Err(not_run(before, module, Some(version)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether an environment may have a version: it is the first one, it has run the version before,
    /// or the version was promoted to it.
    pub fn admits(&self, module: &ModuleId, version: &str, to: &str) -> bool {
        let promoted = self.promotions.iter().any(|promotion| {
            promotion.environment == to
                && promotion.module == *module
                && promotion.version == version
        });
        promoted || self.ran(to, module, version) || matches!(self.before(to), Ok(None))
    }

    fn ran(&self, environment: &str, module: &ModuleId, version: &str) -> bool {
        self.runs.iter().any(|run| {
            run.environment == environment && run.module == *module && run.version == version
        })
    }

    /// The environment before this one; none before the first.
    fn before(&self, environment: &str) -> Result<Option<&str>, Fault> {
        let at = self.environments.iter().position(|id| id == environment);
        let at = at.ok_or_else(|| {
            fault::ENVIRONMENT_UNKNOWN
                .fault(format!(
                    "there is no environment `{}`",
                    fault::excerpt(environment)
                ))
                .field("to")
        })?;
        let before = at.checked_sub(1).and_then(|at| self.environments.get(at));
        Ok(before.map(String::as_str))
    }
}

fn not_run(before: &str, module: &ModuleId, version: Option<&str>) -> Fault {
    let version = version.map_or_else(|| "any version".to_owned(), fault::excerpt);
    fault::VERSION_NOT_RUN_BEFORE.fault(format!(
        "environment {before} has not run {version} of module {module}, as far as is known here"
    ))
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn run(environment: &str, version: &str) -> ModuleRun {
        ModuleRun {
            environment: environment.to_owned(),
            module: "stock".parse().unwrap(),
            version: version.to_owned(),
            since: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// A version that nobody has tried would reach production.
    #[test]
    fn no_environment_is_left_out() {
        let environments = ["dev", "test", "prod"].map(str::to_owned);
        let runs = [
            run("dev", "0.9.0"),
            run("dev", "1.0.0"),
            run("test", "0.9.0"),
        ];
        let stock = "stock".parse().unwrap();
        let promotions = [Promotion {
            environment: "test".to_owned(),
            module: "stock".parse().unwrap(),
            version: "1.0.0".to_owned(),
            actor: "operator:up".to_owned(),
            at: OffsetDateTime::UNIX_EPOCH,
        }];
        let known = Known {
            environments: &environments,
            runs: &runs,
            promotions: &promotions,
        };
        assert_eq!(known.newest(&stock, "test").unwrap(), "1.0.0");
        assert_eq!(known.newest(&stock, "prod").unwrap(), "0.9.0");
        assert!(known.check(&stock, "1.0.0", "test").is_ok());
        let refused = known.check(&stock, "1.0.0", "prod").unwrap_err();
        assert_eq!(refused.code(), "version-not-run-before");
        let unknown = known.check(&stock, "1.0.0", "moon").unwrap_err();
        assert_eq!(unknown.code(), "environment-unknown");

        assert!(
            known.admits(&stock, "7.0.0", "dev"),
            "what is built comes here first"
        );
        assert!(known.admits(&stock, "1.0.0", "test"));
        assert!(
            known.admits(&stock, "0.9.0", "test"),
            "a way back is always open"
        );
        assert!(
            !known.admits(&stock, "0.9.0", "prod"),
            "run before, but not promoted"
        );
        assert!(!known.admits(&stock, "7.0.0", "test"));
    }
}
