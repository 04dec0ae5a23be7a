//! What handlers take from a request; what is wrong with it is told as [`Failure`], not as plain text.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use roomcast::{CloseCode, Code};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::api::Failure;

/// How long a client may take for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts of the path.
pub(crate) struct InPath<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::from_request_parts(parts, state).await;
        let Path(path) = path.map_err(|error| refused(error.status(), error.body_text()))?;
        Ok(Self(path))
    }
}

/// The parameters behind the `?`.
pub(crate) struct InQuery<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = Query::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|error| refused(error.status(), error.body_text()))?;
        Ok(Self(query))
    }
}

/// A body in JSON.
pub(crate) struct InBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for InBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let Payload(body) = Payload::from_request(request, state).await?;
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| refused(StatusCode::BAD_REQUEST, format!("the body is not valid: {error}")))
    }
}

/// A body of any bytes.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(crate) struct Payload(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
            Ok(Ok(body)) => Ok(Self(body)),
            Ok(Err(error)) => Err(refused(error.status(), error.body_text())),
            Err(_) => {
                let message = format!("the body did not arrive within {BODY_TIMEOUT:?}");
                Err(Failure::new(StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded, message))
            }
        }
    }
}

fn refused(status: StatusCode, message: String) -> Failure {
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
        status if status.is_server_error() => Code::Internal,
        _ => Code::InvalidArgument,
    };
    Failure::new(status, code, message)
}

/// With which code and reason connections are closed.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct CloseParams {
    /// The WebSocket close code: 1000 to 1003, 1007 to 1014, or 3000 to 4999
    #[param(default = 4409)]
    code: u16,
    /// The reason in the Close frame, at most 123 bytes
    #[param(default = "disconnected by an operator")]
    pub(crate) reason: String,
}

impl CloseParams {
    pub(crate) fn code(&self) -> CloseCode {
        CloseCode(self.code)
    }
}

impl Default for CloseParams {
    fn default() -> Self {
        Self { code: CloseCode::DISCONNECTED.0, reason: "disconnected by an operator".to_owned() }
    }
}
