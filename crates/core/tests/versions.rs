//! Nodes whose messages have another format work together with this version's.

mod common;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use common::{Client, event, room, start_hub, user, within};
use roomcast_core::{
    BoxFuture, Broker, BrokerError, BrokerStatus, Hub, HubOptions, MemoryBroker, MemoryBus, NodeId, Position,
    Publication, Publish, RoomName, RoomsQuery,
};
use roomcast_protocol::Name;
use serde_json::{Value, json};
use tokio::sync::watch;

#[tokio::test]
async fn a_node_that_adds_fields_to_all_messages_works_together_with_this_version() {
    let bus = MemoryBus::new();
    let this = start_hub(Arc::new(bus.attach()), HubOptions::default());
    let newer = start_hub(Arc::new(AddsFields(bus.attach())), HubOptions::default());
    wait_until("they know each other", || this.cluster().nodes().len() == 2 && newer.cluster().nodes().len() == 2)
        .await;

    let lobby = room("lobby");
    let mut there = Client::connect(&newer, Some(user("ann"))).await;
    let mut here = Client::connect(&this, Some(user("ann"))).await;
    for (from, to) in [(&this, there.peer().id), (&newer, here.peer().id)] {
        from.cluster().join_connection(to, &lobby).await.expect("the other node carries it out");
        let members = from.cluster().members(&lobby).await.expect("the other node responds");
        assert_eq!(members.unresponsive_nodes, []);
        let reached = from.cluster().notify_user(&user("ann"), event("mail"), "you".into()).await;
        assert_eq!(reached.expect("the other node responds").connections, 2);
    }
    assert_eq!(this.cluster().members(&lobby).await.expect("the other node responds").count, 2);
    let rooms = this.cluster().rooms(RoomsQuery::default()).await.expect("the other node responds");
    assert_eq!((rooms.rooms[0].members, rooms.unresponsive_nodes), (2, Vec::new()));
    assert_eq!(
        (here.payloads(2).await, there.payloads(2).await),
        (vec!["you".to_owned(); 2], vec!["you".to_owned(); 2])
    );
}

#[tokio::test]
async fn a_request_that_only_newer_nodes_know_is_answered_at_once() {
    let bus = MemoryBus::new();
    let this = start_hub(Arc::new(bus.attach()), HubOptions::default());
    let mut newer = Foreign::attach(&bus).await;
    newer.join(&this).await;
    newer.send(&json!({
        "kind": "request", "id": 7, "request": {"kind": "sing", "song": "aria"}, "sent_ms": 1, "expires_ms": {},
    }));
    let response = newer.next("response").await;
    assert_eq!((&response["id"], &response["response"]["kind"]), (&json!(7), &json!("unsupported")));
}

#[tokio::test]
async fn a_node_that_does_not_know_a_request_is_listed_as_unresponsive_at_once() {
    let bus = MemoryBus::new();
    let this = start_hub(Arc::new(bus.attach()), HubOptions::default());
    for response in [json!({"kind": "unsupported"}), json!({"kind": "aria", "verses": [1, 2]})] {
        let mut other = Foreign::attach(&bus).await;
        other.join(&this).await;
        let lobby = room("lobby");
        let (members, ()) = tokio::join!(this.cluster().members(&lobby), async {
            let request = other.next("request").await;
            other.send(&json!({"kind": "response", "id": request["id"], "response": response}));
        });
        assert_eq!(members.expect("this node responds").unresponsive_nodes, [other.node]);
        other.send(&json!({"kind": "leave"}));
        wait_until("it has left", || this.cluster().nodes().len() == 1).await;
    }
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    within(what, holds).await;
}

/// The place of a node whose messages the test writes and reads.
struct Foreign {
    node: NodeId,
    broker: MemoryBroker,
    received: Vec<Publication>,
}

impl Foreign {
    async fn attach(bus: &MemoryBus) -> Self {
        let (node, broker) = (NodeId::random(), bus.attach());
        for room in [RoomName::internal("node", node), RoomName::internal("nodes", "all")] {
            broker.subscribe(&room).await.expect("the bus is open");
        }
        Self { node, broker, received: Vec::new() }
    }

    /// Sends heartbeats until another node knows this one: it may not be subscribed yet.
    async fn join(&self, other: &Hub) {
        let heartbeat = json!({
            "kind": "heartbeat", "version": "9.0.0", "connections": 0, "uptime_seconds": 1, "clock_ms": 1,
        });
        wait_until("it is known", || {
            self.send(&heartbeat);
            other.cluster().nodes().iter().any(|known| known.node == self.node)
        })
        .await;
    }

    fn send(&self, message: &Value) {
        let (room, payload) =
            (RoomName::internal("nodes", "all"), format!("{}\n", json!({"v": 3, "message": message})));
        let (event, published_at) = (Name::default(), Instant::now());
        drop(self.broker.publish(Publish {
            origin: self.node,
            room,
            event,
            payload: payload.into(),
            published_at,
            trace: None,
        }));
    }

    /// The next message of another node of this kind.
    async fn next(&mut self, kind: &str) -> Value {
        loop {
            while !self.received.is_empty() {
                let publication = self.received.remove(0);
                let message = head(&publication.payload)["message"].take();
                if publication.origin != self.node && message["kind"] == kind {
                    return message;
                }
            }
            within(kind, self.broker.next_publications(&mut self.received)).await;
        }
    }
}

fn head(payload: &Bytes) -> Value {
    let head = payload.split(|byte| *byte == b'\n').next().expect("a head");
    serde_json::from_slice(head).expect("the head is JSON")
}

/// A broker whose node's messages have fields that this version does not know, on every level.
#[derive(Debug)]
struct AddsFields(MemoryBroker);

fn add_fields(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // The keys of `expires_ms` are ids of nodes.
            fields.iter_mut().filter(|(key, _)| *key != "expires_ms").for_each(|(_, value)| add_fields(value));
            fields.insert("since_9".into(), json!({"nested": [1, 2]}));
        }
        Value::Array(values) => values.iter_mut().for_each(add_fields),
        _ => {}
    }
}

impl Broker for AddsFields {
    fn publish(&self, mut publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>> {
        if publish.room.is_of_nodes() {
            let mut message = head(&publish.payload);
            add_fields(&mut message);
            let behind = publish.payload.iter().position(|byte| *byte == b'\n').expect("a head");
            publish.payload = [message.to_string().as_bytes(), &publish.payload[behind..]].concat().into();
        }
        self.0.publish(publish)
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.0.subscribe(room)
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.0.unsubscribe(room);
    }

    fn next_publications<'a>(&'a self, publications: &'a mut Vec<Publication>) -> BoxFuture<'a, bool> {
        self.0.next_publications(publications)
    }

    fn status(&self) -> watch::Receiver<BrokerStatus> {
        self.0.status()
    }

    fn close(&self) {
        self.0.close();
    }
}
