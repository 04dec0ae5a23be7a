mod room;
mod socket;
use axum::{
    Router,
    extract::ConnectInfo,
    http::header::CONTENT_TYPE,
    response::{Html, IntoResponse},
    routing::get,
};
use roomcast::SocketIoUpgrade;
use std::{io, net::SocketAddr};
use tokio::net::TcpListener;

/// The page loads the client from this server, so the tutorial works without internet access.
const CLIENT: &str = include_str!("../../../crates/node/page/client.js");

#[tokio::main]
async fn main() -> io::Result<()> {
    let app = Router::new()
        .route("/", get(|| async { Html(include_str!("../index.html")) }))
        .route("/client.js", get(|| async { ([(CONTENT_TYPE, "text/javascript")], CLIENT) }))
        .route("/socket", get(ws_handler));
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
}

async fn ws_handler(ws: SocketIoUpgrade, info: ConnectInfo<SocketAddr>) -> impl IntoResponse {
    ws.on_upgrade(16, move |socket| socket::handle_socket(socket, info.0))
}
