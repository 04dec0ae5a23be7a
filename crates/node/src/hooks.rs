//! The hooks that the tables `hooks` describe: backends that decide about what clients do.

use std::time::Duration;

use axum::http::request::Parts;
use prometheus::Registry;
use roomcast::{Authorizer, CallError, Code, Identity, NodeId, RoomPatterns, Router};
use roomcast_auth::JwtAuthorizer;
use roomcast_backends::{Hook, HookMetrics};

use crate::backends::Backends;
use crate::config::{BackendTable, Config, ConfigError, Layers, RoomHookTable, room_patterns};

/// Where the tables are in the configuration.
pub(crate) const CONNECT: &str = "hooks.connect";
pub(crate) const JOIN: &str = "hooks.join";
pub(crate) const PUBLISH: &str = "hooks.publish";

/// How long a hook waits if the configuration does not set a time.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connect hook may wait. A handshake that is not authorized within 5 s fails.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// The hooks of a node.
pub(crate) struct Hooks {
    connect: Option<Hook>,
    join: Option<(RoomPatterns, Hook)>,
    publish: Option<(RoomPatterns, Hook)>,
    metrics: HookMetrics,
}

/// Decides about clients by their tokens, and then asks a hook.
#[derive(Debug)]
pub(crate) struct HookedAuthorizer {
    tokens: JwtAuthorizer,
    hook: Hook,
    node: NodeId,
}

impl Hooks {
    pub(crate) fn load(config: &Config, backends: &Backends, layers: &Layers) -> Result<Self, ConfigError> {
        let metrics = HookMetrics::new().map_err(|error| layers.wrong(CONNECT, error.to_string()))?;
        let tables = Tables { backends, layers, metrics: &metrics };
        let connect = match &config.hooks.connect {
            Some(_) if !config.auth.is_on() => {
                return Err(layers.wrong(
                    CONNECT,
                    "it needs [[auth.issuer]] or [auth.anonymous], which decide from which pages clients may connect",
                ));
            }
            Some(table) => Some(tables.hook(CONNECT, &table.backend, table.timeout.as_deref(), MAX_CONNECT_TIMEOUT)?),
            None => None,
        };
        let join = config.hooks.join.as_ref().map(|table| tables.room_hook(JOIN, table)).transpose()?;
        let publish = config.hooks.publish.as_ref().map(|table| tables.room_hook(PUBLISH, table)).transpose()?;
        Ok(Self { connect, join, publish, metrics })
    }

    /// Returns a line for each hook, for a person.
    pub(crate) fn summary(&self) -> String {
        let room_hook = |hook: &Option<(RoomPatterns, Hook)>, what: &str| {
            hook.as_ref()
                .map(|(rooms, hook)| format!("Backend {} decides about {what} in rooms {rooms}.\n", hook.backend()))
        };
        let connect = self.connect.as_ref();
        let lines = [
            connect.map(|hook| format!("Backend {} decides about clients that connect.\n", hook.backend())),
            room_hook(&self.join, "joins"),
            room_hook(&self.publish, "events that clients publish"),
        ];
        lines.into_iter().flatten().collect()
    }

    /// Adds the hooks to a router whose clients are authorized by their tokens, and registers the
    /// metrics.
    pub(crate) fn add_to(
        &self,
        mut router: Router,
        tokens: Option<&JwtAuthorizer>,
        registry: &Registry,
    ) -> Result<Router, prometheus::Error> {
        self.metrics.register(registry)?;
        router = match (tokens, &self.connect) {
            (Some(tokens), Some(hook)) => {
                let (tokens, hook, node) = (tokens.clone(), hook.clone(), router.node().id());
                router.authorizer(HookedAuthorizer { tokens, hook, node })
            }
            (Some(tokens), None) => router.authorizer(tokens.clone()),
            (None, _) => router,
        };
        if let Some((rooms, hook)) = &self.join {
            router = router.on_join(rooms.clone(), hook.clone());
        }
        if let Some((rooms, hook)) = &self.publish {
            router = router.on_publish(rooms.clone(), hook.clone());
        }
        Ok(router)
    }
}

impl Authorizer for HookedAuthorizer {
    async fn authorize(&self, request: &Parts) -> Result<Identity, CallError> {
        let identity = self.tokens.authorize(request).await?;
        match identity.is_pending {
            // The hook decides when the token arrives.
            true => Ok(identity),
            false => self.hook.connect(self.node, Some(request), identity).await,
        }
    }

    async fn refresh(&self, current: &Identity, credential: &[u8]) -> Result<Identity, CallError> {
        let mut identity = self.tokens.refresh(current, credential).await?;
        if !current.is_pending {
            // The hook may have named the user. The subject of the token must stay the same.
            identity.user.clone_from(&current.user);
            if let Err(error) = current.check_refresh(&identity) {
                return Err(CallError::new(Code::Unauthenticated, error.to_string()));
            }
        }
        self.hook.connect(self.node, None, identity).await
    }
}

/// Reads the tables of hooks.
struct Tables<'a> {
    backends: &'a Backends,
    layers: &'a Layers,
    metrics: &'a HookMetrics,
}

impl Tables<'_> {
    fn hook(&self, table: &str, backend: &str, timeout: Option<&str>, max: Duration) -> Result<Hook, ConfigError> {
        let wrong = |key: &str, problem: String| self.layers.wrong(format!("{table}.{key}"), problem);
        let timeout = match timeout {
            None => TIMEOUT,
            Some(text) => match BackendTable::time(text) {
                Ok(time) if time > max => {
                    return Err(wrong("timeout", format!("cannot use {text:?}: it must be at most {max:?}")));
                }
                time => time.map_err(|allowed| wrong("timeout", format!("cannot use {text:?}: {allowed}")))?,
            },
        };
        let backend = self.backends.find(backend).map_err(|problem| wrong("backend", problem))?;
        Ok(Hook::new(backend.clone(), timeout, self.metrics))
    }

    fn room_hook(&self, name: &str, table: &RoomHookTable) -> Result<(RoomPatterns, Hook), ConfigError> {
        let wrong = |problem: String| self.layers.wrong(format!("{name}.rooms"), problem);
        if table.rooms.is_empty() {
            return Err(wrong("it is empty; name patterns of rooms, such as [\"private:**\"]".to_owned()));
        }
        let rooms = room_patterns(&table.rooms).map_err(wrong)?;
        let hook = self.hook(name, &table.backend, table.timeout.as_deref(), Duration::MAX)?;
        Ok((rooms, hook))
    }
}
