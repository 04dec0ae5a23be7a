//! `check`: what a node would run with, and whether it could use the services that it needs.

use std::process::ExitCode;

use clap::ArgMatches;
use roomcast_auth::JwtAuthorizer;
use roomcast_redis::RedisOptions;

use crate::check_token::Question;
use crate::config::Layers;
use crate::setup::Setup;
use crate::{EXIT_USAGE, auth, print, report};

/// What the command does.
pub(crate) const ABOUT: &str =
    "Print the value of each option and where it is set, and test the connections to Redis and to issuers";

/// Answers a question about a token or a right. Without a question, checks everything.
pub(crate) fn run(arguments: &ArgMatches, layers: &Layers, setup: &Setup) -> ExitCode {
    match Question::of(arguments) {
        Ok(Some(question)) => answer(&question, setup),
        Ok(None) => check_all(layers, setup),
        Err(error) => {
            report(&format!("roomcast: {error}"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Prints whether a token is accepted, or whether and why a client has a right.
fn answer(question: &Question, setup: &Setup) -> ExitCode {
    let Some(authentication) = &setup.authentication else {
        report("roomcast: the configuration does not authenticate clients; add [[auth.issuer]] or [auth.anonymous]");
        return ExitCode::FAILURE;
    };
    let Some((text, is_positive)) = in_runtime(question.answer(&authentication.authorizer)) else {
        return ExitCode::FAILURE;
    };
    print(&text);
    if is_positive { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the configuration with the origin of each value, and whether Redis and the keys of issuers can be used.
fn check_all(layers: &Layers, setup: &Setup) -> ExitCode {
    print(&layers.to_string());
    if let Some(summary) = auth::summary(&setup.config) {
        print(&format!("{summary}\n"));
    }
    print(&setup.backends.summary());
    print(&setup.hooks.summary());
    if in_runtime(check_services(setup)) == Some(true) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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

/// Returns `None` if the system does not permit it, which is reported.
pub(crate) fn in_runtime<T>(future: impl Future<Output = T>) -> Option<T> {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => Some(runtime.block_on(future)),
        Err(error) => {
            report(&format!("roomcast: cannot create a socket: {error}"));
            None
        }
    }
}
