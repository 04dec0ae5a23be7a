//! Echoes WebSocket messages through exactly the layer that connections use, for conformance suites.
//!
//! `cargo run --release --example ws_echo -- 127.0.0.1:9001`, then any path.

use roomcast::Options;
use roomcast::raw::EchoUpgrade;

/// Autobahn's largest message.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let options = Options::default().with(|options| {
        options.max_payload = MAX_MESSAGE;
        options.max_outbound = 4 * MAX_MESSAGE;
    });
    let app = axum::Router::new().fallback(async move |upgrade: EchoUpgrade| upgrade.echo(options));
    axum::serve(tokio::net::TcpListener::bind(address).await?, app).await
}
