//! SIGHUP: what can change while the node runs is taken from the configuration again, all of it or nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::ArgMatches;
use roomcast::Node;
use roomcast_auth::JwtAuthorizer;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::Guard;
use crate::config::{ConfigError, Layers, Setting, settings};
use crate::descriptors::Descriptors;
use crate::setup::Setup;
use crate::telemetry::Logs;
use crate::tls::ServedTls;
use crate::{backends, events, hooks};

/// The tables that only a restart applies.
const TABLES: [&str; 5] = [events::EVENTS, hooks::CONNECT, hooks::JOIN, hooks::PUBLISH, backends::TABLES];

/// SIGHUP, which ends the process if it is not received.
pub(crate) struct ReloadSignal(Signal);

impl ReloadSignal {
    pub(crate) fn new() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }
}

/// What takes new values while it runs.
pub(crate) struct Running<'a> {
    pub(crate) logs: &'a Logs,
    pub(crate) descriptors: Descriptors,
    pub(crate) node: Node,
    pub(crate) guard: Guard,
    pub(crate) tls: ServedTls,
    pub(crate) authorizer: Option<JwtAuthorizer>,
}

/// The configuration that a running node has, and where a new one comes from.
pub(crate) struct Reloader<'a> {
    arguments: Arc<ArgMatches>,
    setup: Setup,
    /// The address of the internal listener. It stays, whatever a new configuration contains.
    internal_listen: Option<SocketAddr>,
    /// What the node runs with, option by option, as the user wrote it.
    in_force: BTreeMap<&'static str, String>,
    /// The tables that the node runs with until it restarts.
    tables_in_force: [String; TABLES.len()],
    running: Running<'a>,
}

impl<'a> Reloader<'a> {
    pub(crate) fn new(arguments: ArgMatches, layers: &Layers, setup: Setup, running: Running<'a>) -> Self {
        let in_force = settings().iter().map(|setting| (&*setting.key, layers.text(&setting.key))).collect();
        let internal_listen = *setup.config.internal_listen;
        let tables_in_force = TABLES.map(|table| layers.text(table));
        Self { arguments: Arc::new(arguments), setup, internal_listen, in_force, tables_in_force, running }
    }

    /// Reloads at each signal, until the future is dropped: then it has reloaded wholly or not at all.
    pub(crate) async fn run(&mut self, signal: &mut ReloadSignal) {
        while signal.0.recv().await.is_some() {
            let arguments = Arc::clone(&self.arguments);
            let read = tokio::task::spawn_blocking(move || Setup::load(&arguments)).await;
            match read {
                Ok(Ok((layers, setup))) => self.replace(&layers, setup),
                Ok(Err(error)) => refuse(&error),
                // It panicked, which is logged, or the runtime ends.
                Err(_) => {}
            }
        }
        // There are no more signals.
        std::future::pending().await
    }

    fn replace(&mut self, layers: &Layers, setup: Setup) {
        // The listener stays where it is, so the new configuration must suit it.
        if let Err(error) = setup.check_api_key(self.internal_listen, layers) {
            return refuse(&error);
        }
        // Whether clients are authenticated is decided at the start.
        let [authenticates, should_authenticate] = [self.running.authorizer.is_some(), setup.authentication.is_some()];
        let (reloaded, waiting): (Vec<_>, Vec<_>) =
            settings().iter().filter(|setting| self.is_changed(setting, layers)).partition(|setting| {
                let is_idle = setting.key.starts_with("auth.") && !(authenticates && should_authenticate);
                setting.reloads && !is_idle
            });
        let mut changes: Vec<_> = reloaded.iter().map(|setting| self.change(setting, layers)).collect();
        if let (Some(old), Some(new)) = (&self.setup.tls, &setup.tls)
            && !old.has_chain_of(new)
        {
            changes.push("the certificate in tls_cert".to_owned());
        }

        let [old, new] = [&self.setup, &setup].map(|setup| setup.authentication.as_ref().map(|auth| auth.digest));
        let is_switched = authenticates != should_authenticate;
        if old != new && !is_switched {
            changes.push("the issuers, keys, roles or rights in auth and role".to_owned());
        }

        self.apply(&setup);
        for setting in reloaded {
            self.in_force.insert(&setting.key, layers.text(&setting.key));
        }
        self.setup = setup;

        let changed = if changes.is_empty() { "nothing".to_owned() } else { changes.join(", ") };
        tracing::info!(changed, "configuration reloaded");
        let mut options: Vec<_> = waiting.iter().map(|setting| &*setting.key).collect();
        if is_switched {
            options.push("auth.issuer");
        }
        let tables = TABLES.iter().zip(&self.tables_in_force);
        options.extend(tables.filter(|(table, in_force)| layers.text(table) != **in_force).map(|(table, _)| table));
        if !options.is_empty() {
            tracing::warn!(options = options.join(", "), "restart the node to apply changes to these options");
        }
    }

    fn is_changed(&self, setting: &Setting, layers: &Layers) -> bool {
        self.in_force.get(&*setting.key) != Some(&layers.text(&setting.key))
    }

    fn change(&self, setting: &Setting, layers: &Layers) -> String {
        let (old, new) = (&self.in_force[&*setting.key], layers.text(&setting.key));
        match setting.shown(old) == setting.shown(&new) {
            true => setting.key.clone(), // both are hidden
            false => format!("{}: {} -> {}", setting.key, setting.shown(old), setting.shown(&new)),
        }
    }

    /// None of this can fail.
    fn apply(&self, setup: &Setup) {
        let Running { logs, descriptors, node, guard, tls, authorizer } = &self.running;
        let config = &setup.config;
        logs.set_rules(config.log_rules());
        let max_connections = descriptors.divide(setup.options.max_connections).connections;
        node.set_options(setup.options.clone().with(|options| options.max_connections = max_connections));
        guard.replace(setup.api_rules());
        tls.replace(setup.tls.as_ref());
        if let (Some(running), Some(new)) = (authorizer, &setup.authentication) {
            running.replace(&new.authorizer);
            let authorizer = running.clone();
            tokio::spawn(async move { authorizer.fetch_keys().await });
        }
    }

    /// The last configuration that was loaded.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }
}

fn refuse(error: &ConfigError) {
    tracing::error!("cannot reload the configuration; the node keeps the old one: {error}");
}
