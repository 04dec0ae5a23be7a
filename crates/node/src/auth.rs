//! The authorizer that the tables `auth` and `role` describe, with the keys in the files and at the URLs that they name.

use std::collections::BTreeMap;
use std::path::Path;

use roomcast_auth::{Issuer, JwksClient, JwtAuthorizer, KeySource, Keys, KeysError, Policy, RemoteKeys, TokenRules};
use sha2::{Digest, Sha256};

use crate::config::{Config, ConfigError, IssuerTable, Layers, unreadable};

/// How the node authenticates clients.
pub(crate) struct Authentication {
    pub(crate) authorizer: JwtAuthorizer,
    /// Of the tables and of the files with keys, to find out whether they have changed.
    pub(crate) digest: [u8; 32],
}

impl Authentication {
    /// Returns `None` if the configuration does not authenticate clients.
    pub(crate) fn load(config: &Config, layers: &Layers) -> Result<Option<Self>, ConfigError> {
        let auth = &config.auth;
        if !auth.is_on() {
            let given = layers.given("auth.origins");
            return match (config.role.is_empty(), given.is_default()) {
                (true, true) => Ok(None),
                (true, false) => {
                    Err(given
                        .refuse("it needs [[auth.issuer]] or [auth.anonymous]; without them, any page may connect"))
                }
                (false, _) => {
                    Err(layers.wrong("role", "a role needs an issuer whose tokens name it; add [[auth.issuer]]"))
                }
            };
        }
        let mut files = KeyFiles { layers, digest: Sha256::new(), jwks_ca: auth.jwks_ca.as_deref(), jwks_client: None };
        for table in ["auth.issuer", "auth.anonymous", "role"] {
            files.digest.update(layers.text(table));
        }
        let mut keys = BTreeMap::new();
        for (at, issuer) in auth.issuer.iter().enumerate() {
            keys.insert(issuer.issuer.clone(), files.keys_of(issuer, &format!("auth.issuer.{at}"))?);
        }
        let tokens = TokenRules {
            max_token: auth.max_token.bytes(),
            max_lifetime: auth.max_lifetime.get(),
            leeway: *auth.leeway,
        };
        let issuer = |problem: String| layers.wrong("auth.issuer", problem);
        let policy = policy(config, layers)?;
        let authorizer = JwtAuthorizer::new(policy, keys).map_err(|error| issuer(error.to_string()))?;
        let authorizer = authorizer.origins(auth.origins.clone()).token_rules(tokens).expiry_grace(*auth.expiry_grace);
        let authorizer = if *auth.query_token { authorizer.token_in_query() } else { authorizer };
        let authorizer = if *auth.late { authorizer.late_tokens() } else { authorizer };
        let authorizer = if config.hooks.connect.is_some() { authorizer.anonymous_apps() } else { authorizer };
        Ok(Some(Self { authorizer, digest: files.digest.finalize().into() }))
    }
}

/// Describes for `check` who may connect. `None` if everybody may.
pub(crate) fn summary(config: &Config) -> Option<String> {
    let auth = &config.auth;
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let issuers = list(auth.issuer.iter().map(|issuer| &*issuer.issuer).collect());
    let roles = list(config.role.iter().map(|role| &*role.name).collect());
    let anonymous = if auth.anonymous.is_some() { "allowed" } else { "rejected" };
    auth.is_on().then(|| {
        format!("Clients are authenticated. Issuers: {issuers}. Roles: {roles}. Anonymous clients are {anonymous}.")
    })
}

fn policy(config: &Config, layers: &Layers) -> Result<Policy, ConfigError> {
    let mut roles = BTreeMap::new();
    for (at, role) in config.role.iter().enumerate() {
        if roles.insert(role.name.clone(), role.allow.clone()).is_some() {
            return Err(
                layers.wrong(format!("role.{at}.name"), format!("the role {:?} is configured twice", role.name))
            );
        }
    }
    let issuers = config.auth.issuer.iter().map(|table| {
        let mut issuer = Issuer::new(&table.issuer, &table.audience, table.algorithms.iter().copied());
        if let Some(claim) = &table.user_claim {
            issuer.user_claim.clone_from(claim);
        }
        issuer.user_prefix.clone_from(&table.user_prefix);
        issuer.roles_claim.clone_from(&table.roles_claim);
        issuer.roles = table.roles.as_ref().map(|roles| roles.iter().cloned().collect());
        issuer.token_grants = table.token_grants.unwrap_or(true);
        issuer
    });
    let anonymous = config.auth.anonymous.as_ref().map(|anonymous| anonymous.allow.clone());
    Policy::new(issuers.collect(), roles, anonymous).map_err(|error| layers.wrong("auth.issuer", error.to_string()))
}

/// Reads the files with keys.
struct KeyFiles<'a> {
    layers: &'a Layers,
    digest: Sha256,
    jwks_ca: Option<&'a Path>,
    /// The client for the keys at URLs. `None` until there is a URL, because it takes time to read the system's CA
    /// certificates.
    jwks_client: Option<JwksClient>,
}

impl KeyFiles<'_> {
    /// Returns the keys of an issuer, whose table is at this place in the configuration.
    fn keys_of(&mut self, table: &IssuerTable, place: &str) -> Result<KeySource, ConfigError> {
        let layers = self.layers;
        let wrong = |key: &str, error: &KeysError| layers.wrong(format!("{place}.{key}"), error.to_string());
        let keys = match (&table.jwks, &table.jwks_file, &table.key_file, &table.secret_file) {
            (Some(url), None, None, None) => return Ok(RemoteKeys::new(url.clone(), self.jwks_client()?).into()),
            (None, Some(path), None, None) => {
                let set = self.read(place, "jwks_file", path)?;
                Keys::from_jwks(&set).map_err(|error| wrong("jwks_file", &error))
            }
            (None, None, Some(path), None) => {
                let pem = self.read(place, "key_file", path)?;
                Keys::from_pem(&pem, &table.algorithms).map_err(|error| wrong("key_file", &error))
            }
            (None, None, None, Some(path)) => {
                let mut secrets = vec![self.read(place, "secret_file", path)?];
                if let Some(path) = &table.previous_secret_file {
                    secrets.push(self.read(place, "previous_secret_file", path)?);
                }
                let secrets = secrets.iter().map(|secret| secret.trim_ascii_end());
                Keys::from_secrets(secrets).map_err(|error| wrong("secret_file", &error))
            }
            _ => {
                let problem = "an issuer needs exactly one of jwks, jwks_file, key_file and secret_file";
                Err(layers.wrong(place, problem))
            }
        };
        keys.map(KeySource::from)
    }

    /// Returns a client that trusts the CA certificates in `auth.jwks_ca`, or those of the system.
    fn jwks_client(&mut self) -> Result<JwksClient, ConfigError> {
        if let Some(client) = &self.jwks_client {
            return Ok(client.clone());
        }
        let client = match self.jwks_ca {
            None => JwksClient::new(),
            Some(path) => {
                let refuse = |problem: String| self.layers.given("auth.jwks_ca").refuse(problem);
                let pem =
                    std::fs::read(path).map_err(|error| refuse(format!("cannot read it: {}", unreadable(&error))))?;
                self.digest.update(&pem);
                JwksClient::trusting(&pem).map_err(|error| refuse(error.to_string()))?
            }
        };
        self.jwks_client = Some(client.clone());
        Ok(client)
    }

    fn read(&mut self, place: &str, key: &str, path: &Path) -> Result<Vec<u8>, ConfigError> {
        let content = std::fs::read(path).map_err(|error| {
            let problem = format!("cannot read {}: {}", path.display(), unreadable(&error));
            self.layers.wrong(format!("{place}.{key}"), problem)
        })?;
        self.digest.update(&content);
        Ok(content)
    }
}
