//! The access log: one line for each request, and one for each connection that has ended, which the library logs.

use std::net::SocketAddr;
use std::time::Instant;

use axum::extract::{ConnectInfo, OriginalUri, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use roomcast::ACCESS;
use tracing::Level;

/// The most characters that a line contains of a method or a path, which the client chooses.
const MAX_SHOWN: usize = 256;

/// Logs the requests that these routes answer. The path is without its query, which may contain a token.
pub(crate) fn log_requests(routes: axum::Router) -> axum::Router {
    routes.layer(from_fn(async |request: Request, next: Next| -> Response {
        if !tracing::enabled!(target: ACCESS, Level::DEBUG) {
            return next.run(request).await;
        }
        let started = Instant::now();
        let method = shown(request.method().as_str());
        // Of the whole request, as the API is nested in other routes.
        let uri = request.extensions().get::<OriginalUri>().map_or(request.uri(), |uri| &uri.0);
        let path = shown(uri.path());
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| tracing::field::display(info.0));
        let response = next.run(request).await;
        let (status, duration_ms) = (response.status().as_u16(), started.elapsed().as_secs_f64() * 1e3);
        tracing::debug!(target: ACCESS, method, path, status, duration_ms, peer, "a request was answered");
        response
    }))
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}
