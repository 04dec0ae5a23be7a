//! Which nodes are live, by their heartbeats: with a clock that the test moves.

use std::time::{Duration, Instant};

use roomcast_core::{HEARTBEAT_INTERVAL, MAX_NODES, NODE_TIMEOUT, NodeId, NodeInfo, Nodes};

fn info(node: u64) -> NodeInfo {
    NodeInfo::new(NodeId::from_u64(node), "1.0.0")
}

fn live(nodes: &Nodes) -> Vec<u64> {
    let mut live: Vec<_> = nodes.live().map(|node| node.node.as_u64()).collect();
    live.sort_unstable();
    live
}

#[test]
fn a_node_lives_while_it_says_so_and_no_longer() {
    let (mut nodes, start) = (Nodes::new(), Instant::now());
    assert!(nodes.on_heartbeat(info(1), Duration::ZERO, start), "it is new");
    assert!(nodes.on_heartbeat(info(2), Duration::ZERO, start), "it is new");
    let later = start + HEARTBEAT_INTERVAL;
    let mut again = info(1);
    again.connections = 7;
    assert!(!nodes.on_heartbeat(again, Duration::ZERO, later), "it is known");
    assert_eq!(nodes.live().find(|node| node.node.as_u64() == 1).map(|node| node.connections), Some(7));

    nodes.expire(start + NODE_TIMEOUT - Duration::from_millis(1));
    assert_eq!(live(&nodes), [1, 2]);
    nodes.expire(start + NODE_TIMEOUT);
    assert_eq!(live(&nodes), [1]);
    nodes.expire(later + NODE_TIMEOUT);
    assert!(live(&nodes).is_empty());
    assert!(nodes.on_heartbeat(info(1), Duration::ZERO, later + NODE_TIMEOUT), "one that comes back is new");
}

#[test]
fn a_node_that_has_left_is_gone_at_once_whatever_comes_late_from_it() {
    let (mut nodes, start) = (Nodes::new(), Instant::now());
    nodes.on_heartbeat(info(1), Duration::ZERO, start);
    nodes.on_leave(NodeId::from_u64(1), start);
    assert!(!nodes.on_heartbeat(info(1), Duration::ZERO, start), "it was known");
    assert!(!nodes.is_live(NodeId::from_u64(1)));
    assert!(live(&nodes).is_empty());
}

#[test]
fn silence_counts_only_while_somebody_could_be_heard() {
    let (mut nodes, start) = (Nodes::new(), Instant::now());
    nodes.on_heartbeat(info(1), Duration::ZERO, start);
    let up_again = start + 100 * NODE_TIMEOUT;
    nodes.restart_clocks(up_again);
    nodes.expire(up_again + NODE_TIMEOUT - Duration::from_millis(1));
    assert_eq!(live(&nodes), [1]);
    nodes.expire(up_again + NODE_TIMEOUT);
    assert!(live(&nodes).is_empty());
}

#[test]
fn so_many_nodes_are_known_and_no_more() {
    let (mut nodes, now) = (Nodes::new(), Instant::now());
    for node in 0..MAX_NODES as u64 {
        assert!(nodes.on_heartbeat(info(node), Duration::ZERO, now));
    }
    assert!(!nodes.on_heartbeat(info(MAX_NODES as u64), Duration::ZERO, now), "there is no place for it");
    assert!(!nodes.on_heartbeat(info(0), Duration::ZERO, now), "it is known");
    assert_eq!(nodes.live().count(), MAX_NODES);
}

#[test]
fn a_nodes_clock_is_never_taken_to_be_later_than_it_is() {
    let start = Instant::now();
    let seconds = Duration::from_secs;
    let mut nodes = Nodes::new();
    let clock_at = |nodes: &Nodes, at: u64| nodes.clock_at(NodeId::from_u64(1), start + seconds(at));
    // It started 100 s before. Its first heartbeat took no time, the second 2 s.
    nodes.on_heartbeat(info(1), seconds(100), start);
    nodes.on_heartbeat(info(1), seconds(101), start + seconds(3));
    let almost = |shown| Some(seconds(shown) - Duration::from_millis(20));
    assert_eq!(clock_at(&nodes, 5), almost(105));
    // The best one is too old to be believed, because clocks drift.
    nodes.on_heartbeat(info(1), seconds(130), start + seconds(32));
    assert_eq!(clock_at(&nodes, 33), almost(131));
    nodes.on_leave(NodeId::from_u64(1), start + seconds(33));
    assert_eq!(clock_at(&nodes, 33), None);
}
