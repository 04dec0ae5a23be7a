//! The public listener's routes: the socket, and with `--demo` the page.

use std::future::ready;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request};
use axum::http::header::{self, HeaderValue};
use axum::middleware::map_request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use roomcast::{Router, SocketIoUpgrade, UpgradeRejection};

use crate::client_address::TrustedProxies;

/// The page loads nothing from elsewhere and runs no script but its own.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'";

/// The WebSocket at `/socket`. The requests that open connections are kept if a backend gets their headers.
pub(crate) fn routes(router: Router, keep_requests: bool) -> axum::Router {
    let open = async move |upgrade: Result<SocketIoUpgrade, UpgradeRejection>| match upgrade {
        Ok(upgrade) if keep_requests => upgrade.keep_request().route(&router).await,
        Ok(upgrade) => upgrade.route(&router).await,
        Err(rejection) => router.reject(rejection),
    };
    axum::Router::new().route("/socket", get(open))
}

/// The same routes, for which a request comes from the client that these proxies name, and not from a proxy.
pub(crate) fn behind(proxies: TrustedProxies, routes: axum::Router) -> axum::Router {
    routes.layer(map_request(move |ConnectInfo(peer): ConnectInfo<SocketAddr>, mut request: Request| {
        let client = proxies.client(peer, request.headers());
        request.extensions_mut().insert(ConnectInfo(client));
        ready(request)
    }))
}

/// The demo's page at `/`, whole in the binary.
pub(crate) fn page() -> axum::Router {
    axum::Router::new()
        .route("/", get(async || file("text/html", include_str!("../page/index.html"))))
        .route("/style.css", get(async || file("text/css", include_str!("../page/style.css"))))
        .route("/app.js", get(async || file("text/javascript", include_str!("../page/app.js"))))
        .route("/client.js", get(async || file("text/javascript", include_str!("../page/client.js"))))
        .route("/icon.svg", get(async || file("image/svg+xml", include_str!("../page/icon.svg"))))
}

fn file(content_type: &'static str, content: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, content).into_response()
}
