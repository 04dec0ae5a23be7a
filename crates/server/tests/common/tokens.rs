//! An authorizer whose tokens are plain JSON, without a signature.

use std::time::{Duration, SystemTime};

use axum::http::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use roomcast::testing::{Client, ClientBuilder};
use roomcast::{
    Authorizer, CallError, Code, Credential, Grants, Identity, Node, Options, RoomName, Router, Rule, Socket, Subject,
    UserId,
};
use serde::Deserialize;
use serde_json::Value;

/// How long a connection stays open after its credential has expired.
pub const GRACE: Duration = Duration::from_secs(25);

/// A token without a signature, for these tests.
#[derive(Deserialize)]
struct Token {
    user: String,
    allow: Vec<Rule>,
    #[serde(default)]
    join: Vec<String>,
    /// Seconds from the beginning of the test.
    #[serde(default)]
    issued: u64,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    id: Option<String>,
}

/// Trusts everybody's token.
pub struct Tokens {
    pub started: SystemTime,
}

impl Tokens {
    pub fn starting_now() -> Self {
        Self { started: SystemTime::now() }
    }

    fn identity(&self, token: &[u8]) -> Result<Identity, CallError> {
        let token: Token =
            serde_json::from_slice(token).map_err(|error| CallError::new(Code::Unauthenticated, error.to_string()))?;
        let grants = Grants::resolve(&token.allow, Subject { user: Some(&token.user), claims: &Value::Null });
        let mut identity = Identity::new(grants).with_user(UserId::new(&token.user)?);
        identity.join = token.join.iter().map(|room| RoomName::new(room)).collect::<Result<_, _>>()?;
        identity.credential = token.expires_in.map(|expires_in| Credential {
            subject: token.user,
            id: token.id,
            issued_at: self.started + Duration::from_secs(token.issued),
            expires_at: self.started + Duration::from_secs(expires_in),
            grace: GRACE,
        });
        Ok(identity)
    }
}

impl Authorizer for Tokens {
    async fn authorize(&self, request: &Parts) -> Result<Identity, CallError> {
        match request.headers.get(AUTHORIZATION) {
            Some(token) => self.identity(token.as_bytes()),
            None => Err(CallError::new(Code::Unauthenticated, "send a token")),
        }
    }

    async fn refresh(&self, _current: &Identity, credential: &[u8]) -> Result<Identity, CallError> {
        self.identity(credential)
    }
}

pub fn router() -> Router {
    router_of(Node::embedded(Options::default()))
}

pub fn router_of(node: Node) -> Router {
    Router::new(node).call("chat.send", async || "sent").authorizer(Tokens::starting_now())
}

pub async fn connect<S>(router: &Router<S>, token: &Value) -> (Client, Socket) {
    let request = Request::get("/socket").header(AUTHORIZATION, token.to_string()).body(()).unwrap();
    ClientBuilder::default().request(request).connect(router).await.unwrap()
}
