//! A server of one client, over a stream in memory, so that nothing waits for real time.

use std::io;

use axum::serve::Listener;
use tokio::io::DuplexStream;

/// A listener that accepts this stream and nothing else.
pub struct One(pub Option<DuplexStream>);

impl Listener for One {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.take() {
            Some(stream) => (stream, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}
