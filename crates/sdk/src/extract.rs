//! What a request says outside its body: path, query string, `Idempotency-Key`.
//!
//! Invariant: a mistake is answered as problem+json that names the parameter, like one in a body.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{self, FromRequestParts};
use axum::http::HeaderValue;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use waangu_kernel::fault::excerpt;
use waangu_kernel::{Fault, fault};

use crate::json::Refusal;

/// Header of a key that makes a POST repeatable.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Longest key.
const KEY_LENGTH: usize = 255;

/// The variable segments of the path.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(path_mistake(rejection).into()),
        }
    }
}

/// The query string. Give the type `#[serde(deny_unknown_fields)]`.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        match extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(waangu_api::query_mistake(&rejection).into()),
        }
    }
}

/// The `Idempotency-Key` header, if there is one: 1 to 255 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(Option<String>);

impl IdempotencyKey {
    /// The key.
    pub fn as_deref(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(Self(None)),
            (Some(value), None) => Ok(Self(Some(key(value)?))),
            (Some(_), Some(_)) => Err(bad_key("the header may stand once only").into()),
        }
    }
}

fn key(value: &HeaderValue) -> Result<String, Fault> {
    let bytes = value.as_bytes();
    let printable = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
    if bytes.is_empty() || bytes.len() > KEY_LENGTH || !printable {
        return Err(bad_key("it must have 1 to 255 printable ASCII characters"));
    }
    Ok(bytes.iter().copied().map(char::from).collect())
}

fn bad_key(why: &'static str) -> Fault {
    fault::IDEMPOTENCY_KEY_INVALID
        .fault(why)
        .field("Idempotency-Key")
}

fn path_mistake(rejection: PathRejection) -> Fault {
    let PathRejection::FailedToDeserializePathParams(failure) = rejection else {
        return fault::INTERNAL
            .fault("the route has other segments than its handler expects")
            .cause(rejection);
    };
    match failure.into_kind() {
        ErrorKind::ParseErrorAtKey { key, value, .. }
        | ErrorKind::DeserializeError { key, value, .. } => fault::INVALID_FIELD
            .fault(format!("`{}` is not a valid {key}", excerpt(&value)))
            .field(key),
        ErrorKind::InvalidUtf8InPathParam { key } => fault::MALFORMED_REQUEST
            .fault("the path is not UTF-8 after percent-decoding")
            .field(key),
        kind @ (ErrorKind::WrongNumberOfParameters { .. } | ErrorKind::UnsupportedType { .. }) => {
            fault::INTERNAL
                .fault("the route has other segments than its handler expects")
                .cause(kind)
        }
        other => fault::INVALID_FIELD.fault(excerpt(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use uuid::Uuid;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Filter {
        #[serde(rename = "product")]
        _product: Option<Uuid>,
        #[serde(rename = "limit")]
        _limit: Option<i64>,
    }

    fn parts(uri: &str, keys: &[&[u8]]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for key in keys {
            request = request.header(IDEMPOTENCY_KEY, *key);
        }
        request.body(Body::empty()).unwrap().into_parts().0
    }

    async fn refused(uri: &str) -> (&'static str, String) {
        let refusal = Query::<Filter>::from_request_parts(&mut parts(uri, &[]), &())
            .await
            .unwrap_err();
        let field = refusal.0.field_name().unwrap_or_default().to_owned();
        (refusal.0.code(), field)
    }

    /// A misspelt filter that is ignored gives everything instead of what was asked for.
    #[tokio::test]
    async fn parameters_to_blame_are_named() {
        let limit = ("invalid-field", "limit".to_owned());
        assert_eq!(refused("/x?limit=ten").await, limit);
        assert_eq!(refused("/x?limit=1&limit=2").await.0, "malformed-request");
        let product = ("invalid-field", "product".to_owned());
        assert_eq!(refused("/x?product=1").await, product);
        let unknown = ("invalid-field", "produkt".to_owned());
        assert_eq!(refused("/x?produkt=1").await, unknown);
    }

    /// A key that PostgreSQL or a log can't take would end as an internal error.
    #[tokio::test]
    async fn keys_are_checked() {
        let read = async |keys: &[&[u8]]| {
            let found = IdempotencyKey::from_request_parts(&mut parts("/x", keys), &()).await;
            found.map_err(|refusal| refusal.0.code())
        };
        assert_eq!(read(&[]).await.unwrap().as_deref(), None);
        assert_eq!(read(&[b"a b"]).await.unwrap().as_deref(), Some("a b"));
        let refused = Err("idempotency-key-invalid");
        assert_eq!(read(&[b""]).await, refused);
        assert_eq!(read(&[b"a", b"b"]).await, refused);
        assert_eq!(read(&["é".as_bytes()]).await, refused);
        assert_eq!(read(&[&[b'k'; 256]]).await, refused);
        assert!(read(&[&[b'k'; 255]]).await.is_ok());
    }
}
