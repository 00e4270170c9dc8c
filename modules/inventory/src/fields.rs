//! Rules that several bodies share. Each refusal names the field.

use std::borrow::Cow;

use waangu_sdk::{Fault, fault};

/// Largest integer that every JSON reader takes exactly (RFC 8259 §6).
pub(crate) const MAX_SAFE: i64 = (1 << 53) - 1;

/// A value that breaks a rule.
pub(crate) fn invalid(
    field: impl Into<Cow<'static, str>>,
    why: impl Into<Cow<'static, str>>,
) -> Fault {
    fault::INVALID_FIELD.fault(why).field(field)
}

/// A text of 1 to `max` characters, on one line and without spaces around it.
pub(crate) fn check_text(
    field: impl Into<Cow<'static, str>>,
    text: &str,
    max: usize,
) -> Result<(), Fault> {
    if text.is_empty() || text.chars().nth(max).is_some() {
        return Err(invalid(field, format!("must have 1 to {max} characters")));
    }
    // PostgreSQL refuses U+0000 in a text; the others would break lists, labels and logs.
    if text.contains(char::is_control) {
        return Err(invalid(field, "must not have control characters"));
    }
    if text.trim() != text {
        return Err(invalid(field, "must not begin or end with a space"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these would be refused by PostgreSQL, as an internal error, or make two codes look
    /// like one.
    #[test]
    fn texts_that_make_trouble_are_refused() {
        assert!(check_text("sku", "é€😀", 3).is_ok());
        for text in ["", "abcd", "a\0", "a\nb", " a", "a\u{a0}"] {
            let fault = check_text("sku", text, 3).unwrap_err();
            assert_eq!(fault.field_name(), Some("sku"), "{text:?}");
        }
    }
}
