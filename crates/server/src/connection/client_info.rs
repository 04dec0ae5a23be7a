//! What a connection keeps of its upgrade.

use std::sync::Arc;

use axum::http::Extensions;
use axum::http::request::Parts;
use roomcast_core::TraceContext;
use tracing::Span;

/// What a connection keeps of its upgrade.
#[derive(Debug, Default)]
pub(crate) struct ClientInfo {
    /// The application's own data, and other data that few connections have. Connections without
    /// any use no memory for it.
    pub(crate) extensions: Extensions,
}

#[derive(Debug, Clone)]
struct KeptRequest(Arc<Parts>);

#[derive(Debug, Clone)]
struct ConnectionSpan(Span);

#[derive(Debug, Clone)]
struct ConnectionTrace(TraceContext);

impl ClientInfo {
    pub(crate) fn keep_request(&mut self, request: Arc<Parts>) {
        self.extensions.insert(KeptRequest(request));
    }

    /// Returns the request, if the application keeps it.
    pub(crate) fn request(&self) -> Option<&Parts> {
        self.extensions.get().map(|KeptRequest(request)| &**request)
    }

    /// Sets the span of the connection, or of its request, if a subscriber enables it.
    pub(crate) fn set_span(&mut self, span: Span) {
        if !span.is_disabled() {
            self.extensions.insert(ConnectionSpan(span));
        }
    }

    /// Keeps the context of the handshake's span, if its trace is sampled.
    pub(crate) fn set_trace(&mut self, context: Option<Box<TraceContext>>) {
        if let Some(context) = context {
            self.extensions.insert(ConnectionTrace(*context));
        }
    }

    pub(crate) fn trace(&self) -> Option<&TraceContext> {
        self.extensions.get().map(|ConnectionTrace(context)| context)
    }

    pub(crate) fn span(&self) -> Option<&Span> {
        self.extensions.get().map(|ConnectionSpan(span)| span)
    }
}
