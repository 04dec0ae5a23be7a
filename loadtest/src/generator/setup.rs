//! A worker's rooms, clients and connections, as its assignment wants them.

use std::io;

use mio::Registry;
use roomcast_protocol::NameError;
use thiserror::Error;

use crate::client::{TlsError, TokenError, Tokens, tls_config};

use super::clients::Clients;
use super::control::Assignment;
use super::fleet::Fleet;
use super::placement::{self, Share};
use super::rooms::Rooms;

/// Why a worker can't begin.
#[derive(Debug, Error)]
pub(crate) enum SetupError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("cannot register sockets with epoll: {0}")]
    Io(#[from] io::Error),
    #[error("a room's name is too long: {0}")]
    Name(#[from] NameError),
}

/// Everything is there, and nothing is open.
pub(crate) fn fleet(assignment: &Assignment, registry: &Registry) -> Result<Fleet, SetupError> {
    let share = Share { index: assignment.index, of: assignment.processes };
    let scenario = &assignment.scenario;
    let rooms = Rooms::new(assignment.run, share, placement::rooms(scenario, share))?;
    let clients = Clients::new(placement::connections(scenario, share), rooms, scenario);
    let tls = tls_config(assignment.ca.as_deref())?;
    let tokens = assignment.tokens.as_ref().map(Tokens::source).transpose()?;
    let ways = (assignment.targets.clone(), assignment.sources.clone());
    Ok(Fleet::new(registry.try_clone()?, tls, ways, tokens, share, clients))
}
