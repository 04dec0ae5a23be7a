//! `check`: what a node would run with, and whether it could use the services that it needs.

use std::io;
use std::process::ExitCode;

use roomcast_auth::JwtAuthorizer;
use roomcast_redis::RedisOptions;

use crate::config::Layers;
use crate::setup::Setup;
use crate::{auth, print, report};

/// What the command does.
pub(crate) const ABOUT: &str =
    "Print the value of each option and where it is set, and test the connections to Redis and to issuers";

/// Prints the configuration with the origin of each value, and whether Redis and the keys of issuers can be used.
pub(crate) fn run(layers: &Layers, setup: &Setup) -> ExitCode {
    print(&layers.to_string());
    if let Some(summary) = auth::summary(&setup.config) {
        print(&format!("{summary}\n"));
    }
    match in_runtime(check_services(setup)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report(&format!("roomcast: cannot create a socket: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn check_services(setup: &Setup) -> bool {
    let mut all_work = true;
    if let Some(authentication) = &setup.authentication {
        all_work &= check_keys(&authentication.authorizer).await;
    }
    if let Some(redis) = &setup.redis {
        all_work &= check_redis(redis).await;
    }
    all_work
}

/// Fetches the keys of the issuers that publish them at a URL.
async fn check_keys(authorizer: &JwtAuthorizer) -> bool {
    authorizer.fetch_keys().await;
    let issuers = authorizer.remote_issuers();
    for (issuer, problem) in &issuers {
        match problem {
            None => print(&format!("The keys of issuer {issuer} can be fetched.\n")),
            Some(error) => report(&format!("roomcast: cannot fetch the keys of issuer {issuer}: {error}")),
        }
    }
    issuers.values().all(Option::is_none)
}

/// Tries Redis, and prints what was found.
async fn check_redis(options: &RedisOptions) -> bool {
    match roomcast_redis::check(options).await {
        Ok(found) => {
            print(&format!("Redis works: {found}\n"));
            true
        }
        Err(error) => {
            report(&format!("roomcast: Redis: {error}"));
            false
        }
    }
}

fn in_runtime<T>(future: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}
