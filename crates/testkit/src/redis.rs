//! Real Redis for tests: a single server, a cluster, or a master with replicas and sentinels.

mod cluster;
mod resp;
mod sentinels;
mod server;

pub use cluster::RedisCluster;
pub use sentinels::Sentinels;
pub use server::{RedisOptions, RedisServer};
