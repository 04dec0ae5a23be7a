//! Hooks: a backend decides about what clients do, before it happens. They fail closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::Bytes;
use roomcast::{
    BoxFuture, CallError, Code, Context, Grants, Handler, Identity, MessageContext, NodeId, PublishContext,
};
use roomcast::{RoomContext, RoomName, Rule, Socket, Subject, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admission::Owner;
use crate::backend::Backend;
use crate::hook_metrics::{HookKind, HookMetrics, HookOutcome};
use crate::node_request::{NodeRequest, NodeRequestError, NodeResponse};
use crate::request;

/// The largest number of rooms that a connect hook can add.
const MAX_JOIN: usize = 100;

/// The largest number of rules that a connect hook can add.
const MAX_RULES: usize = 100;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A backend that decides about what clients do. Cheap to clone.
///
/// A hook is a [`Handler`] for [`Router::on_join`](roomcast::Router::on_join) and
/// [`Router::on_publish`](roomcast::Router::on_publish). An [`Authorizer`](roomcast::Authorizer) can
/// use it to [decide about clients that connect](Self::connect).
///
/// A status of 2xx permits what the client requests. A status of 4xx refuses it, with the error
/// that a call would get. If there is no such response, the client gets `UNAVAILABLE`, and nothing
/// happens. When a client publishes, a response with status 204 leaves the payload as it is, and the
/// body of any other response of success replaces it.
///
/// ```
/// use std::time::Duration;
///
/// use roomcast::{Node, Options, Router};
/// use roomcast_backends::{Backend, BackendMetrics, BackendOptions, Hook, HookMetrics};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options = BackendOptions::new("chat", "http://127.0.0.1:8080/rpc".parse()?);
/// let backend = Backend::new(options, &BackendMetrics::new()?)?;
/// let hook = Hook::new(backend, Duration::from_secs(2), &HookMetrics::new()?);
/// let router = Router::new(Node::embedded(Options::default())).open_rooms().on_publish("chat:*".parse()?, hook);
/// # let _ = router; Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Hook {
    backend: Backend,
    timeout: Duration,
    metrics: HookMetrics,
}

/// What a connect hook adds to an identity.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Additions {
    user: Option<String>,
    #[serde(default)]
    allow: Vec<Rule>,
    #[serde(default)]
    join: Vec<String>,
    #[serde(default)]
    meta: Value,
}

/// Why something is not permitted, with the error for the client.
enum Refusal {
    /// The backend has refused it.
    Refused(CallError),
    /// There is no decision.
    Undecided(CallError),
}

impl Refusal {
    /// The client learns nothing about the failure.
    fn failed() -> Self {
        Self::Undecided(CallError::new(Code::Unavailable, "this cannot be decided at the moment; try again later"))
    }
}

impl Hook {
    /// Creates a hook. It waits at most `timeout` for a response, after it has waited for a slot for at
    /// most [`queue_time`](crate::BackendOptions::queue_time).
    pub fn new(backend: Backend, timeout: Duration, metrics: &HookMetrics) -> Self {
        Self { backend, timeout, metrics: metrics.clone() }
    }

    /// Returns the name of the backend.
    pub fn backend(&self) -> &str {
        &self.backend.options().name
    }

    /// Decides about a client that connects or refreshes its credential, and returns its identity
    /// with what the backend adds: a name for the user, rights, rooms that the node joins, and data.
    /// `request` is the request that opens the connection; it is `None` when a credential is
    /// refreshed.
    ///
    /// # Errors
    /// Returns the backend's error if it refuses the client, and `UNAVAILABLE` if it does not decide.
    ///
    /// # Cancel safety
    /// If the future is dropped, the request is cancelled.
    pub async fn connect(
        &self,
        node: NodeId,
        request: Option<&Parts>,
        identity: Identity,
    ) -> Result<Identity, CallError> {
        let decide = async {
            let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON)]);
            if let Some(request) = request {
                request::forward(&self.backend.options().forward, &request.headers, &mut headers);
            }
            request::identify_client(None, identity.user.as_ref(), Some(&identity), &mut headers)
                .map_err(Refusal::Undecided)?;
            let address = request.and_then(|request| request.extensions.get::<ConnectInfo<SocketAddr>>());
            let body = match address {
                Some(ConnectInfo(address)) => json!({ "address": address.to_string() }),
                None => json!({}),
            };
            let response =
                self.send(HookKind::Connect, node, Owner::Handshake, headers, body.to_string().into()).await?;
            if response.body.is_empty() {
                return Ok(identity);
            }
            extend(identity, &response.body).map_err(|problem| {
                tracing::warn!(
                    backend = self.backend(),
                    error = problem,
                    "the response to roomcast.connect is invalid"
                );
                Refusal::failed()
            })
        };
        self.measure(HookKind::Connect, decide).await
    }

    async fn join(self, context: RoomContext) -> Result<Bytes, CallError> {
        let decide = async {
            let headers = headers(context.socket(), context.room()).map_err(Refusal::Undecided)?;
            self.send_for(HookKind::Join, context.socket(), headers, Bytes::new()).await?;
            Ok(Bytes::new())
        };
        self.measure(HookKind::Join, decide).await
    }

    async fn publish(self, context: PublishContext) -> Result<Bytes, CallError> {
        let decide = async {
            let mut headers = headers(context.socket(), context.room()).map_err(Refusal::Undecided)?;
            let event = request::percent_encoded(context.name());
            request::set(&mut headers, "roomcast-event", &event).map_err(Refusal::Undecided)?;
            let payload = context.payload();
            let response = self.send_for(HookKind::Publish, context.socket(), headers, payload.clone()).await?;
            Ok(match response.status {
                StatusCode::NO_CONTENT => payload.clone(),
                _ => response.body,
            })
        };
        self.measure(HookKind::Publish, decide).await
    }

    async fn send_for(
        &self,
        kind: HookKind,
        socket: &Socket,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<NodeResponse, Refusal> {
        self.send(kind, socket.node().id(), Owner::Connection(socket.id()), headers, body).await
    }

    async fn send(
        &self,
        kind: HookKind,
        node: NodeId,
        owner: Owner,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<NodeResponse, Refusal> {
        headers.insert(request::HOOK_HEADER, HeaderValue::from_static(kind.as_str()));
        let (method, owner, timeout) = (method(kind), Some(owner), self.timeout);
        let request = NodeRequest { method, id: None, headers, body, owner, node, timeout };
        self.backend.send(request).await.map_err(|error| match error {
            NodeRequestError::Rejected(error) => Refusal::Refused(error),
            NodeRequestError::NotSent(error) => Refusal::Undecided(error),
            // The reason has been logged.
            NodeRequestError::Failed(_) => Refusal::failed(),
        })
    }

    async fn measure<T>(
        &self,
        kind: HookKind,
        decide: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, CallError> {
        let started = Instant::now();
        let decision = decide.await;
        let outcome = match &decision {
            Ok(_) => HookOutcome::Permitted,
            Err(Refusal::Refused(_)) => HookOutcome::Refused,
            Err(Refusal::Undecided(_)) => HookOutcome::Failed,
        };
        self.metrics.observe(kind, outcome, started.elapsed());
        decision.map_err(|refusal| match refusal {
            Refusal::Refused(error) | Refusal::Undecided(error) => error,
        })
    }
}

impl<S: Send + Sync + 'static> Handler<RoomContext, (), S> for Hook {
    fn handle(self: Arc<Self>, context: RoomContext, _state: &Arc<S>) -> BoxFuture<'static, Result<Bytes, CallError>> {
        Box::pin(Self::clone(&self).join(context))
    }
}

impl<S: Send + Sync + 'static> Handler<PublishContext, (), S> for Hook {
    fn handle(
        self: Arc<Self>,
        context: PublishContext,
        _state: &Arc<S>,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        Box::pin(Self::clone(&self).publish(context))
    }
}

/// Returns the last part of the path of a hook's requests.
fn method(kind: HookKind) -> &'static str {
    match kind {
        HookKind::Connect => "roomcast.connect",
        HookKind::Join => "roomcast.join",
        HookKind::Publish => "roomcast.publish",
    }
}

/// Returns the headers that describe a client and a room.
fn headers(socket: &Socket, room: &RoomName) -> Result<HeaderMap, CallError> {
    let mut headers = HeaderMap::new();
    request::identify_client(Some(socket.id()), socket.user(), socket.identity().as_deref(), &mut headers)?;
    request::set(&mut headers, "roomcast-room", &request::percent_encoded(room))?;
    Ok(headers)
}

/// Extends an identity by what the body of a response adds.
fn extend(mut identity: Identity, body: &[u8]) -> Result<Identity, String> {
    let additions: Additions = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let meta_len = if additions.meta.is_null() { 0 } else { additions.meta.to_string().len() };
    for (member, size, max) in [
        ("join", additions.join.len(), MAX_JOIN),
        ("allow", additions.allow.len(), MAX_RULES),
        ("the bytes of meta", meta_len, request::MAX_META),
    ] {
        if size > max {
            return Err(format!("the size of {member} is {size}; at most {max} is allowed"));
        }
    }
    if let Some(user) = &additions.user {
        identity.user = Some(UserId::new(user).map_err(|error| error.to_string())?);
    }
    let subject = Subject { user: identity.user.as_deref(), claims: &Value::Null };
    let added = Grants::resolve(&additions.allow, subject);
    for room in &additions.join {
        let room = subject.room(room).map_err(|error| error.to_string())?;
        if !identity.join.contains(&room) {
            identity.join.push(room);
        }
    }
    identity.grants = identity.grants.union(&added);
    if !additions.meta.is_null() {
        identity.meta = additions.meta;
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use roomcast::Right;

    use super::*;

    #[test]
    fn a_response_adds_to_the_identity_and_replaces_its_user_and_its_data() {
        let rules: Vec<Rule> = serde_json::from_value(json!([{ "calls": ["chat.*"], "do": ["call"] }])).unwrap();
        let token = || {
            let subject = Subject { user: None, claims: &Value::Null };
            let mut identity = Identity::new(Grants::resolve(&rules, subject));
            identity.meta = json!({ "plan": "free" });
            identity
        };
        let body =
            json!({ "user": "ann", "allow": [{ "rooms": ["user:{user}"], "do": ["join"] }], "join": ["of:{user}"] });
        let identity = extend(token(), body.to_string().as_bytes()).unwrap();
        assert_eq!(identity.user.as_deref(), Some("ann"));
        assert!(identity.grants.allow(Right::Call, "chat.send") && identity.grants.allow(Right::Join, "user:ann"));
        assert_eq!((&*identity.join[0], identity.meta), ("of:ann", json!({ "plan": "free" })));
        assert_eq!(extend(token(), br#"{"meta": {"plan": "pro"}}"#).unwrap().meta, json!({ "plan": "pro" }));

        for (body, problem) in [
            ("", "EOF"),
            ("[]", "invalid length"),
            (r#"{"grants": []}"#, "unknown field"),
            (r#"{"user": ""}"#, "not 0"),
            (&json!({ "join": vec!["a"; 101] }).to_string(), "the size of join is 101"),
            (&json!({ "meta": "x".repeat(4096) }).to_string(), "the bytes of meta is 4098"),
            (r#"{"join": ["a:*"]}"#, "a:*"),
            (r#"{"join": ["{user}"]}"#, "user"),
            (r#"{"allow": [{"rooms": ["a-*"], "do": ["join"]}]}"#, "not a wildcard"),
        ] {
            let error = extend(token(), body.as_bytes()).unwrap_err();
            assert!(error.contains(problem), "{body}: {error}");
        }
    }
}
