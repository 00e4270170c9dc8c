//! Which host a request means.
//!
//! Invariants: names are compared without regard to case and with one trailing dot taken off; a name
//! is ours or unknown, never guessed; the port plays no part, because a port forwarded on the way is
//! not a different tenant.

use std::str::FromStr as _;

use waangu_kernel::Slug;

/// The host that a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// `{slug}.{domain}`.
    Tenant(Slug),
    /// `api.{domain}`.
    Api,
    /// `admin.{domain}`.
    Admin,
    /// `login.{domain}`.
    Login,
    /// The domain itself.
    Root,
}

impl Host {
    /// The class, for logs.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Tenant(_) => "tenant",
            Self::Api => "api",
            Self::Admin => "admin",
            Self::Login => "login",
            Self::Root => "root",
        }
    }
}

/// The names we answer.
#[derive(Debug)]
pub(crate) struct Hosts {
    domain: String,
}

impl Hosts {
    pub(crate) fn new(domain: &str) -> Self {
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        Self {
            domain: domain.to_ascii_lowercase(),
        }
    }

    /// Finds the host of an authority (`host` or `host:port`); `None` if it is not ours.
    pub(crate) fn resolve(&self, authority: &str) -> Option<Host> {
        let name = name_of(authority)?.to_ascii_lowercase();
        if name == self.domain {
            return Some(Host::Root);
        }
        match name.strip_suffix(self.domain.as_str())?.strip_suffix('.')? {
            "api" => Some(Host::Api),
            "admin" => Some(Host::Admin),
            "login" => Some(Host::Login),
            label => Slug::from_str(label).ok().map(Host::Tenant),
        }
    }
}

/// The name in an authority, without port and without one trailing dot.
pub(crate) fn name_of(authority: &str) -> Option<&str> {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) => return None,
        None => authority,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let fine = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    fine.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name read wrongly would show one tenant's people the door of another.
    #[test]
    fn names_resolve_to_one_host_or_none() {
        let hosts = Hosts::new("Waangu.localhost");
        let acme = Some(Host::Tenant("acme".parse().unwrap()));
        for same in [
            "acme.waangu.localhost",
            "ACME.waangu.LOCALHOST.",
            "acme.waangu.localhost:1",
        ] {
            assert_eq!(hosts.resolve(same), acme, "{same}");
        }
        assert_eq!(hosts.resolve("api.waangu.localhost:8443"), Some(Host::Api));
        assert_eq!(hosts.resolve("login.waangu.localhost"), Some(Host::Login));
        assert_eq!(hosts.resolve("admin.waangu.localhost."), Some(Host::Admin));
        assert_eq!(hosts.resolve("waangu.localhost"), Some(Host::Root));
        for unknown in [
            "",
            ".",
            ":443",
            "localhost",
            "evilwaangu.localhost",
            "a.acme.waangu.localhost",
            ".waangu.localhost",
            "acme.waangu.localhost..",
            "acme.waangu.localhost:8x",
            "acme.waangu.localhost:123456",
            "acme@waangu.localhost",
            "acme.waangu.localhost@evil.test",
            "www.waangu.localhost",
            "[::1]:443",
            "127.0.0.1",
            "acme .waangu.localhost",
            "acme.waangu.localhost.evil.test",
        ] {
            assert_eq!(hosts.resolve(unknown), None, "{unknown}");
        }
    }
}
