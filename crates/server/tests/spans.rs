//! Spans, in a process of their own: whether anybody wants a span is remembered for the whole process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io;
use std::sync::Arc;

use common::wait_until;
use parking_lot::Mutex;
use roomcast::trace::{Propagator, set_propagator};
use roomcast::{CallError, Code, Node, Options, Router, TraceContext, testing};
use tracing::{Instrument, Span};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// All spans belong to one trace.
#[derive(Debug)]
struct OneTrace;

impl Propagator for OneTrace {
    fn samples_next(&self) -> bool {
        true
    }

    fn context_of(&self, _: &Span) -> Option<TraceContext> {
        Some(TraceContext { trace: [7; 16], span: [8; 8] })
    }

    fn state_of(&self, _: &Span) -> String {
        String::new()
    }

    fn set_parent(&self, _: &Span, _: TraceContext, _: &str) {}
}

#[tokio::test]
async fn what_a_handler_logs_is_in_the_spans_of_its_request_connection_and_call() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false);
    subscriber.with_max_level(tracing::Level::DEBUG).init();
    set_propagator(Box::new(OneTrace)).unwrap();
    let router = Router::new(Node::embedded(Options::default()))
        .call("greet", async || {
            tokio::task::yield_now().await;
            tracing::info!("greeting");
        })
        .notify("wave", async || tracing::info!("waving"))
        .call("fails", async || Err::<(), _>(CallError::new(Code::Internal, "the shop is on fire")));
    let request = tracing::info_span!("request", id = 7);
    let (mut client, socket) = testing::connect(&router).instrument(request).await.unwrap();
    client.call("greet", ()).await.unwrap();
    client.notify("wave", ()).await;
    client.call("fails", ()).await.unwrap_err();
    client.close().await;
    let text = || String::from_utf8(log.0.lock().clone()).unwrap();
    wait_until("the end is logged", || text().contains("the connection has ended")).await;
    let text = text();
    let of_connection = format!("request{{id=7}}:connection{{id={}}}:", socket.id());
    let trace_id = format!("trace_id=\"{}\"", "07".repeat(16));
    let call = format!("call{{call=1 method=\"greet\" {trace_id}}}");
    for (message, span) in [("greeting", &*call), ("waving", "notification{event=\"wave\"}")] {
        let line = text.lines().find(|line| line.contains(message)).unwrap();
        assert!(line.contains(&format!("{of_connection}{span}")), "{line}");
    }
    let failure = text.lines().find(|line| line.contains("the shop is on fire")).unwrap();
    assert!(failure.contains("WARN") && failure.contains("\"fails\""), "{failure}");
    assert!(failure.contains("call=") && failure.contains(&trace_id), "{failure}");
}
