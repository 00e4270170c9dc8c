//! Reading JSON bodies and query strings so that a mistake is named: which field, and what about it.

use std::fmt;

use serde::de::{self, DeserializeOwned};
use waangu_kernel::{Fault, fault};

/// Parses a JSON body.
///
/// # Errors
/// `unsupported-media-type`, `unknown-field` or `malformed-json`, each naming the field if it can.
pub fn parse_json<T: DeserializeOwned>(
    content_type: Option<&str>,
    body: &[u8],
) -> Result<T, Fault> {
    let essence = content_type
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if !essence.is_some_and(is_json) {
        return Err(fault::UNSUPPORTED_MEDIA_TYPE.fault(match essence {
            Some(other) => format!(
                "`{}` is not accepted; send application/json",
                fault::excerpt(other)
            ),
            None => "there is no Content-Type; send application/json".to_owned(),
        }));
    }
    if body.trim_ascii_start().starts_with(b"[") && asks_for_object::<T>() {
        return Err(fault::MALFORMED_JSON.fault("a JSON object is expected, not an array"));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| mistake(&error))?;
    reader
        .end()
        .map_err(|error| fault::MALFORMED_JSON.fault(error.to_string()))?;
    Ok(value)
}

/// Whether a type is a struct. serde also takes an array for one, its values for the fields in their
/// order; `[null, ""]` would make a tenant a root.
fn asks_for_object<T: DeserializeOwned>() -> bool {
    matches!(T::deserialize(Probe), Err(Wanted::Struct))
}

/// Gives nothing and tells what it was asked for.
struct Probe;

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Struct,
    Another,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Wanted {}

impl de::Error for Wanted {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self::Another
    }
}

impl<'de> de::Deserializer<'de> for Probe {
    type Error = Wanted;

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Wanted> {
        Err(Wanted::Struct)
    }

    fn deserialize_any<V: de::Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Wanted> {
        Err(Wanted::Another)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn is_json(essence: &str) -> bool {
    let essence = essence.to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn mistake(error: &serde_path_to_error::Error<serde_json::Error>) -> Fault {
    let message = error.inner().to_string();
    let path = error.path().to_string();
    // serde has no typed form of these errors; their text is part of its documented behaviour.
    let named = |prefix: &str| Some(message.strip_prefix(prefix)?.split('`').next()?.to_owned());
    if let Some(name) = named("unknown field `") {
        let detail = format!("there is no field `{}`", fault::excerpt(&name));
        return fault::UNKNOWN_FIELD.fault(detail).field(name);
    }
    let lost = named("missing field `").or_else(|| named("duplicate field `"));
    let field = match lost {
        Some(name) if path == "." => name,
        Some(name) => format!("{path}.{name}"),
        None => path,
    };
    let fault = fault::MALFORMED_JSON.fault(message);
    // `.` is the body itself, `?` a place that broken syntax hides.
    if field == "." || field.contains('?') {
        fault
    } else {
        fault.field(field)
    }
}

/// What is wrong with a query string, by axum's rejection of it: its source is `serde_path_to_error`'s
/// `name: what is wrong`.
pub fn query_mistake(rejection: &dyn std::error::Error) -> Fault {
    let message = rejection
        .source()
        .map_or_else(|| rejection.to_string(), ToString::to_string);
    if let Some((_, rest)) = message.split_once("unknown field `") {
        let name = rest.split('`').next().unwrap_or_default().to_owned();
        return fault::INVALID_FIELD
            .fault(format!("there is no parameter `{}`", fault::excerpt(&name)))
            .field(name);
    }
    match message.split_once(": ") {
        Some((name, why)) if !name.contains(' ') => fault::INVALID_FIELD
            .fault(why.to_owned())
            .field(name.to_owned()),
        _ => fault::MALFORMED_REQUEST.fault(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[serde(rename = "count")]
        _count: u32,
    }

    /// An array whose values land in the fields by chance changes what nobody named.
    #[test]
    fn an_array_is_no_object_and_stays_an_array() {
        let json = Some("application/json");
        let refused = parse_json::<Body>(json, b" [1]").unwrap_err();
        assert_eq!(refused.code(), "malformed-json");
        assert!(parse_json::<Body>(json, br#"{"count":1}"#).is_ok());
        assert_eq!(parse_json::<Vec<u8>>(json, b"[1]").unwrap(), [1]);
        assert_eq!(
            parse_json::<Vec<Body>>(json, br#"[{"count":1}]"#)
                .unwrap()
                .len(),
            1
        );
        let value = parse_json::<serde_json::Value>(json, b"[]").unwrap();
        assert!(value.is_array());
    }

    fn parse(content_type: Option<&str>, body: &str) -> Fault {
        parse_json::<Body>(content_type, body.as_bytes()).unwrap_err()
    }

    /// Somebody who mistypes a field must be told which one, or loses an afternoon.
    #[test]
    fn mistakes_are_named() {
        let json = Some("application/json");
        assert!(
            parse_json::<Body>(Some("application/json; charset=utf-8"), b"{\"count\":1}").is_ok()
        );
        assert_eq!(parse(None, "{}").code(), "unsupported-media-type");
        assert_eq!(
            parse(Some("text/plain"), "{}").code(),
            "unsupported-media-type"
        );
        assert_eq!(parse(json, "{").code(), "malformed-json");
        assert_eq!(parse(json, "{\"count\":1} x").code(), "malformed-json");
        let unknown = parse(json, "{\"count\":1,\"colour\":2}");
        assert_eq!(
            (unknown.code(), unknown.field_name()),
            ("unknown-field", Some("colour"))
        );
        let missing = parse(json, "{}");
        assert_eq!(
            (missing.code(), missing.field_name()),
            ("malformed-json", Some("count"))
        );
        let wrong = parse(json, "{\"count\":\"one\"}");
        assert_eq!(
            (wrong.code(), wrong.field_name()),
            ("malformed-json", Some("count"))
        );
    }

    /// A body of nested brackets must not end the process.
    #[test]
    fn depth_bombs_are_refused() {
        let bomb = "[".repeat(100_000);
        assert_eq!(
            parse(Some("application/json"), &bomb).code(),
            "malformed-json"
        );
    }
}
