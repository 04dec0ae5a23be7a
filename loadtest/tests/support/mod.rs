//! What the acceptance tests share: nodes, a proxy that breaks what they send, and the tool as a process.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

pub mod broken_proxy;
pub mod node_binary;
pub mod results;
pub mod tool;
