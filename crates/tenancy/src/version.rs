//! Which versions of PostgreSQL keep tenants apart.

/// The first version of each line without the known leaks.
const MINIMUM: [(i32, i32); 3] = [(15, 14), (16, 10), (17, 6)];

/// What is wrong with a server of this `server_version_num`.
pub(crate) fn problem(number: i32) -> Option<String> {
    let (major, minor) = (number / 10_000, number % 10_000);
    let too_old = major < 15
        || MINIMUM
            .iter()
            .any(|(line, least)| major == *line && minor < *least);
    too_old.then(|| {
        format!(
            "PostgreSQL {major}.{minor} has known leaks through statistics (CVE-2025-8713); \
             use 15.14, 16.10, 17.6 or newer"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2025-8713 shows samples of rows that a policy hides.
    #[test]
    fn leaking_versions_are_known() {
        for fine in [150_014, 150_018, 160_010, 170_006, 180_000] {
            assert_eq!(problem(fine), None, "{fine}");
        }
        for leaks in [140_019, 150_013, 160_009, 170_005] {
            assert!(problem(leaks).is_some(), "{leaks}");
        }
    }
}
