//! Reading requests: the same extractors as axum's, with problems for rejections.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::{Code, FieldError, Problem};

/// The largest body here is a scale request of a hundred bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// A client that sends slower than this is holding a connection, not talking.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The query, with unknown names refused by the type's `deny_unknown_fields`.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|query| Self(query.0))
            .map_err(|rejection| Problem::new(Code::InvalidQuery, rejection.body_text()))
    }
}

/// One segment of the path, decoded.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|rejection| Problem::new(Code::InvalidPath, rejection.body_text()))
    }
}

/// A JSON object; an absent or empty body is no object at all.
#[derive(Clone, Debug)]
pub struct JsonObject(pub Map<String, Value>);

impl<S: Send + Sync> OptionalFromRequest<S> for JsonObject {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Option<Self>, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        if !is_json(&parts.headers) {
            let detail = "send the body with the header content-type: application/json";
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) => Ok(Some(Self(object))),
            Ok(_) => Err(Problem::new(Code::InvalidBody, "the body must be a JSON object")),
            Err(error) => Err(Problem::new(Code::InvalidJson, error.to_string())),
        }
    }
}

/// For a route that takes no body: one that is sent all the same is refused.
#[derive(Clone, Copy, Debug)]
pub struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let object = <JsonObject as OptionalFromRequest<S>>::from_request(request, state).await?;
        let fields: Vec<FieldError> =
            object.map_or_else(Vec::new, |object| unknown_fields(&object.0, &[]));
        if fields.is_empty() {
            return Ok(Self);
        }
        Err(Problem::new(Code::InvalidBody, "this route takes no fields").with_errors(fields))
    }
}

/// The fields of `object` that are not among `known`.
#[must_use]
pub fn unknown_fields(object: &Map<String, Value>, known: &[&str]) -> Vec<FieldError> {
    object
        .keys()
        .filter(|name| !known.contains(&name.as_str()))
        .map(|name| FieldError {
            field: name.chars().take(64).collect(),
            detail: match known {
                [] => "unknown field".to_owned(),
                known => format!("unknown field; known are {}", known.join(", ")),
            },
        })
        .collect()
}

/// A body up to [`BODY_BYTES_MAX`].
///
/// # Errors
/// It is larger, breaks off, or does not come in time.
pub async fn read(body: Body) -> Result<Bytes, Problem> {
    let whole = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Code::InvalidBody, "the body broke off")),
        Err(_) => {
            let seconds = BODY_TIMEOUT.as_secs();
            let detail = format!("the body did not arrive within {seconds} s");
            Err(Problem::new(Code::BodyTimeout, detail))
        }
    }
}

/// The problem of a body over the limit.
#[must_use]
pub fn too_large() -> Problem {
    Problem::new(Code::BodyTooLarge, format!("at most {BODY_BYTES_MAX} bytes are read"))
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
