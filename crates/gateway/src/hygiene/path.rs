//! One form of a path.
//!
//! Invariant: an accepted path begins with `/`, has no empty segment (but for a trailing slash), no
//! dot segment in any encoding, no encoded separator or control character, and no character encoded
//! that need not be. So gateway, module and log read it as the same path.

use waangu_kernel::{Fault, fault};

fn malformed(detail: &'static str) -> Fault {
    fault::MALFORMED_REQUEST.fault(detail)
}

/// Refuses paths that have more than one reading.
pub(super) fn inspect(path: &str) -> Result<(), Fault> {
    let rest = path
        .strip_prefix('/')
        .ok_or_else(|| malformed("the path must begin with a slash"))?;
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(malformed("the path has an empty segment"));
        }
        if segment == "." || segment == ".." {
            return Err(malformed("the path has a dot segment"));
        }
        inspect_segment(segment)?;
    }
    Ok(())
}

/// Characters of RFC 3986 §3.3 `pchar`, and percent-encodings of what is not one.
fn inspect_segment(segment: &str) -> Result<(), Fault> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            if is_plain(byte) {
                continue;
            }
            return Err(malformed(
                "the path has a character that must be percent-encoded",
            ));
        }
        let decoded = match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
            (Some(high), Some(low)) => high << 4 | low,
            _ => return Err(malformed("the path has a broken percent-encoding")),
        };
        // Some clients encode a tilde (RFC 3986 §2.3 knows them); nobody encodes these.
        let needless = decoded.is_ascii_alphanumeric() || matches!(decoded, b'.' | b'-' | b'_');
        let twice = decoded == b'%' && bytes.clone().take(2).filter_map(hex).count() == 2;
        let separator = matches!(decoded, b'/' | b'\\');
        if needless || twice || separator || decoded.is_ascii_control() {
            return Err(malformed(
                "the path has a percent-encoding that is not accepted",
            ));
        }
    }
    Ok(())
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A path with two readings is checked as one route and served as another.
    #[test]
    fn paths_with_two_readings_are_refused() {
        for fine in [
            "/",
            "/api/inventory/",
            "/a/b.c/d..e/~x",
            "/caf%C3%A9/a%20b",
            "/100%25",
            "/%7Ex",
            "/x:y@z;v=1",
        ] {
            assert!(inspect(fine).is_ok(), "{fine}");
        }
        for bad in [
            "",
            "*",
            "a",
            "//",
            "/a//b",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e%2e/a",
            "/.%2e/a",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0d%0a",
            "/a%",
            "/a%4",
            "/a%zz",
            "/%61dmin",
            "/a%252fb",
            "/a b",
            "/é",
            "/a%7f",
            "/a\"b",
            "/{id}",
        ] {
            assert!(inspect(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Whatever is accepted has no separator or dot segment hidden in it.
        #[test]
        fn accepted_paths_decode_to_themselves(path in "/[a-z./%25cCeEfF0-9\\\\]{0,12}") {
            if inspect(&path).is_ok() {
                let lower = path.to_ascii_lowercase();
                for hidden in ["%2f", "%5c", "%2e", "%252", "%255", "\\", "/../", "/./"] {
                    prop_assert!(!lower.contains(hidden), "{path}");
                }
            }
        }
    }
}
