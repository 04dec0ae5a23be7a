//! The lifecycle events that the tables `hooks` and `backend` describe.

use std::sync::Arc;

use roomcast::{EventKind, EventOptions, EventRules, EventStore, MemoryEvents, NodeId, RoomPatterns};
use roomcast_backends::{Backend, EventDelivery};
use roomcast_redis::RedisBroker;

use crate::backends::Backends;
use crate::config::{Config, ConfigError, EventsTable, Layers, room_patterns};

/// Where the table of events is in the configuration.
pub(crate) const EVENTS: &str = "hooks.events";

/// Which lifecycle events the node reports, and to whom.
pub(crate) struct LifecycleEvents {
    kinds: Vec<EventKind>,
    occupancy: RoomPatterns,
    rules: EventRules,
    backend: Backend,
}

impl LifecycleEvents {
    /// Returns `None` if the configuration has no events.
    pub(crate) fn load(config: &Config, backends: &Backends, layers: &Layers) -> Result<Option<Self>, ConfigError> {
        let Some(table) = &config.hooks.events else { return Ok(None) };
        let wrong = |key: &str, problem: String| layers.wrong(format!("{EVENTS}.{key}"), problem);
        let kinds: Vec<_> = table.kinds.iter().map(|kind| kind.0).collect();
        if kinds.is_empty() {
            return Err(wrong(
                "kinds",
                format!("it is empty; name some of {}", EventKind::ALL.map(EventKind::as_str).join(", ")),
            ));
        }
        let backend = backends.find(&table.backend).map_err(|problem| wrong("backend", problem))?;
        let mut rules = EventRules::default();
        rules.max_waiting = config.hooks.events_max.get();
        let occupancy = occupancy(table, &kinds).map_err(|problem| wrong("rooms", problem))?;
        Ok(Some(Self { kinds, occupancy, rules, backend: backend.clone() }))
    }

    /// Returns the options of this node, which shares the events with the other nodes of its cluster, or
    /// keeps them in memory.
    pub(crate) fn options(&self, node: NodeId, broker: Option<&RedisBroker>) -> EventOptions {
        let store: Arc<dyn EventStore> = match broker {
            Some(broker) => Arc::new(broker.events(self.rules)),
            None => Arc::new(MemoryEvents::new(self.rules)),
        };
        let delivery = Arc::new(EventDelivery::new(self.backend.clone(), node));
        let mut options = EventOptions::new(self.kinds.iter().copied().collect(), store, delivery);
        options.occupancy = self.occupancy.clone();
        options
    }
}

fn occupancy(table: &EventsTable, kinds: &[EventKind]) -> Result<RoomPatterns, String> {
    let needs_rooms = kinds.iter().any(|kind| matches!(kind, EventKind::Occupied | EventKind::Vacated));
    match (needs_rooms, table.rooms.is_empty()) {
        (true, true) => Err("the kinds occupied and vacated need patterns of rooms, such as [\"game:*\"]".to_owned()),
        (false, false) => {
            Err("only the kinds occupied and vacated have patterns of rooms; remove it, or add a kind".to_owned())
        }
        _ => room_patterns(&table.rooms),
    }
}
