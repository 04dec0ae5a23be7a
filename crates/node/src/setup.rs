//! A configuration that is valid as a whole, with what it refers to: certificates are read, and `auto` is a number.

use std::net::SocketAddr;

use clap::ArgMatches;
use roomcast::Options;
use roomcast_redis::RedisOptions;

use crate::api::{ApiRules, Keyring, Scope};
use crate::auth::Authentication;
use crate::backends::Backends;
use crate::config::{Config, ConfigError, Count, Layers, Memory, unreadable};
use crate::events::LifecycleEvents;
use crate::hooks::Hooks;
use crate::machine;
use crate::proxy_protocol::ProxyProtocol;
use crate::tls::{self, Tls};

/// Input may take one part in this many of the memory, and output as much: half is left for connections, rooms and the
/// process itself.
const CONNECTIONS_SHARE: usize = 4;

/// What a node is started with.
pub(crate) struct Setup {
    pub(crate) config: Config,
    /// `None`: the public listener speaks no TLS.
    pub(crate) tls: Option<Tls>,
    /// `None`: a cluster of this node alone.
    pub(crate) redis: Option<RedisOptions>,
    /// `None`: clients are not authenticated.
    pub(crate) authentication: Option<Authentication>,
    pub(crate) backends: Backends,
    pub(crate) hooks: Hooks,
    /// `None`: no lifecycle events.
    pub(crate) events: Option<LifecycleEvents>,
    /// What a connection may do.
    pub(crate) options: Options,
}

impl Setup {
    /// Reads the configuration that these arguments, the environment and the file make.
    pub(crate) fn load(arguments: &ArgMatches) -> Result<(Layers, Self), ConfigError> {
        let layers = Layers::load(arguments)?;
        let setup = Self::new(&layers)?;
        Ok((layers, setup))
    }

    /// Checks the options that belong together, and reads the files that they name.
    fn new(layers: &Layers) -> Result<Self, ConfigError> {
        let config = layers.config()?;
        check_drain(&config, layers)?;
        check_listeners(&config, layers)?;
        check_proxy_protocol(&config, layers)?;
        let (tls, redis, options) = (tls(&config, layers)?, redis(&config, layers)?, options(&config));
        let authentication = Authentication::load(&config, layers)?;
        let backends = Backends::load(&config, layers)?;
        let hooks = Hooks::load(&config, &backends, layers)?;
        let events = LifecycleEvents::load(&config, &backends, layers)?;
        let setup = Self { config, tls, redis, authentication, backends, hooks, events, options };
        setup.check_api_key(*setup.config.internal_listen, layers)?;
        Ok(setup)
    }

    /// Whether there is a key if an internal listener at this address needs one.
    pub(crate) fn check_api_key(&self, internal: Option<SocketAddr>, layers: &Layers) -> Result<(), ConfigError> {
        let is_reachable = internal.is_some_and(|address| !address.ip().is_loopback());
        if !is_reachable || self.needs_api_key() {
            return Ok(());
        }
        Err(layers.given("internal_listen").refuse(
            "without api_key, any host that reaches this address can use the HTTP API; set api_key (ROOMCAST_API_KEY), or an address on \
             loopback, such as 127.0.0.1:3001",
        ))
    }

    /// Whether requests to the API need a key.
    pub(crate) fn needs_api_key(&self) -> bool {
        !self.keyring().is_empty()
    }

    fn keyring(&self) -> Keyring {
        let Config { api_key, api_publish_key, api_read_key, .. } = &self.config;
        let keys = [(Scope::Admin, api_key), (Scope::Publish, api_publish_key), (Scope::Read, api_read_key)];
        Keyring::new(keys.map(|(scope, keys)| (scope, (**keys).clone())))
    }

    pub(crate) fn proxy_protocol(&self) -> Option<ProxyProtocol> {
        let proxies = self.config.trusted_proxies.clone().filter(|_| *self.config.proxy_protocol);
        proxies.map(ProxyProtocol::new)
    }

    pub(crate) fn api_rules(&self) -> ApiRules {
        ApiRules::new(self.keyring(), self.config.api_rate.per_second(), self.options.max_payload)
    }
}

fn check_drain(config: &Config, layers: &Layers) -> Result<(), ConfigError> {
    if *config.drain.delay + *config.drain.duration <= *config.drain.timeout {
        return Ok(());
    }
    let [delay, duration] = ["drain.delay", "drain.duration"].map(|key| layers.given(key));
    let allowed = format!("it must be at least the sum of drain.delay ({delay}) and drain.duration ({duration})");
    Err(layers.given("drain.timeout").refuse(allowed))
}

fn check_listeners(config: &Config, layers: &Layers) -> Result<(), ConfigError> {
    let Some(internal) = *config.internal_listen else { return Ok(()) };
    // Port 0 is a free one, another for each.
    if internal.port() == 0 || !overlap(internal, *config.listen) {
        return Ok(());
    }
    let listen = layers.given("listen");
    Err(layers
        .given("internal_listen")
        .refuse(format!("it overlaps with listen ({listen}); give each an address of its own")))
}

fn check_proxy_protocol(config: &Config, layers: &Layers) -> Result<(), ConfigError> {
    if !*config.proxy_protocol || config.trusted_proxies.is_some() {
        return Ok(());
    }
    Err(layers.given("proxy_protocol").refuse("it requires trusted_proxies, the load balancers that send the header"))
}

/// Whether two listeners would take each other's connections.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let is_everywhere = |address: SocketAddr| address.ip().is_unspecified();
    a == b || a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && (is_everywhere(a) || is_everywhere(b))
}

fn tls(config: &Config, layers: &Layers) -> Result<Option<Tls>, ConfigError> {
    let refuse = |key| move |why| layers.given(key).refuse(why);
    match (&*config.tls_cert, &*config.tls_key) {
        (None, None) => Ok(None),
        (None, Some(_)) => {
            Err(refuse("tls_key")("a private key requires its certificate; set tls_cert as well".to_owned()))
        }
        (Some(_), None) => {
            Err(refuse("tls_cert")("a certificate requires its private key; set tls_key as well".to_owned()))
        }
        (Some(cert), Some(key)) => {
            let chain = tls::read_chain(cert).map_err(refuse("tls_cert"))?;
            let key = tls::read_key(key).map_err(refuse("tls_key"))?;
            Tls::new(chain, key).map(Some).map_err(refuse("tls_cert"))
        }
    }
}

fn redis(config: &Config, layers: &Layers) -> Result<Option<RedisOptions>, ConfigError> {
    let Some(url) = &*config.redis else { return Ok(None) };
    let ca_certificates = config.redis_ca.as_deref().map(std::fs::read).transpose();
    let ca_certificates = ca_certificates
        .map_err(|error| layers.given("redis_ca").refuse(format!("cannot read it: {}", unreadable(&error))))?;
    let mut options = RedisOptions::new(url.as_str());
    options.prefix = config.redis_prefix.as_str().to_owned();
    options.history = config.redis_history.clone();
    options.history_bytes = config.redis_history_bytes.bytes();
    options.unsubscribe_delay = *config.redis_unsubscribe_delay;
    options.cluster_secrets = config.cluster_secret.as_ref().map(|secrets| secrets.0.clone()).unwrap_or_default();
    options.ca_certificates = ca_certificates;
    Ok(Some(options))
}

fn options(config: &Config) -> Options {
    let defaults = Options::default();
    let memory = |memory: Memory, default| match memory {
        Memory::Auto => machine::memory().map_or(default, |memory| memory / CONNECTIONS_SHARE),
        Memory::Bytes(size) => size.bytes(),
    };
    defaults.clone().with(|options| {
        options.max_connections = config.max_connections.get();
        options.max_connections_per_address = config.max_connections_per_address.map_or(usize::MAX, Count::get);
        options.max_payload = config.max_payload.bytes();
        options.max_inbound = config.max_inbound.bytes();
        options.max_outbound = config.max_outbound.bytes();
        options.inbound_memory = memory(*config.inbound_memory, defaults.inbound_memory);
        options.outbound_memory = memory(*config.outbound_memory, defaults.outbound_memory);
        options.max_calls = config.max_calls.get();
        options.rates.frames = *config.rates.frames;
        options.rates.control_frames = *config.rates.control_frames;
        options.rates.calls = *config.rates.calls;
        options.rates.joins = *config.rates.joins;
        options.rates.new_rooms = *config.rates.new_rooms;
        options.rates.publishes = *config.rates.publishes;
        options.rates.connections = *config.rates.connections;
        options.max_rooms = config.max_rooms.get();
        options.max_node_rooms = config.max_node_rooms.get();
        options.ping_interval = config.ping_interval.get();
        options.pong_timeout = config.pong_timeout.get();
        options.call_timeout = config.call_timeout.get();
        options.trace_clients = *config.trace_clients;
    })
}
