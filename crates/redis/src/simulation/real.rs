//! The model's script against the real one, on a real server.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface, KeysInterface, LuaInterface, PubsubInterface, ServerInterface};
use fred::types::config::Config;
use fred::types::{Builder, InfoKind, Value};
use roomcast_core::{NodeId, RoomName};
use roomcast_protocol::Name;
use roomcast_testkit::{RedisOptions, RedisServer};

use super::script::{Moment, Publish, RoomKeys};
use crate::keys::Keys;
use crate::message::{Encoder, Message};
use crate::position::Stored;

const SCRIPT: &str = include_str!("../publish.lua");
