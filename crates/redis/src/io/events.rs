//! Lifecycle events in Redis: a stream of the events that wait, and what each node has open.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use roomcast_core::{
    BoxFuture, BrokerError, Change, Draft, EventContent, EventRules, EventStore, Held, LifecycleEvent, MAX_DEAD_EVENTS,
    MAX_REPORTED, NodeId, Record, Report, Reported, Take, WaitingEvent,
};

use crate::io::commands::{Commands, Script, digest};
use crate::io::publisher::Publisher;
use crate::io::scripts::{Scripts, unavailable, unexpected};
use crate::state::keys::{EventKeys, Keys};
use crate::state::seal::{MAC_LEN, Seal};
use crate::state::stored::{DEAD_EVENTS, EVENTS_REPLAY, EVENTS_REPORT, EVENTS_TAKE};

/// How long Redis keeps the keys after the last report of a node, so that nothing remains of a cluster
/// that no longer exists.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many dead events one script makes wait again.
const REPLAYED: usize = 500;

/// The lifecycle events of a cluster in Redis. They are in one hash slot.
///
/// [`RedisBroker::events`](crate::RedisBroker::events) returns it.
pub struct RedisEvents(Arc<Inner>);

struct Inner {
    scripts: Scripts,
    keys: EventKeys,
    seal: Seal,
    rules: EventRules,
    digests: [String; 4],
}

impl RedisEvents {
    pub(crate) fn new(
        commands: Arc<Commands>,
        publisher: Arc<Publisher>,
        keys: &Keys,
        seal: Seal,
        rules: EventRules,
    ) -> Self {
        let keys = keys.events();
        let scripts = Scripts::new(commands, publisher, EventKeys::room());
        let digests = [EVENTS_REPORT, EVENTS_TAKE, EVENTS_REPLAY, DEAD_EVENTS].map(digest);
        Self(Arc::new(Inner { scripts, keys, seal, rules, digests }))
    }
}

impl EventStore for RedisEvents {
    fn report(&self, report: Report) -> BoxFuture<'static, Result<Reported, BrokerError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.report(&report).await })
    }

    fn take(&self, take: Take) -> BoxFuture<'static, Result<Option<Vec<WaitingEvent>>, BrokerError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.take(&take).await })
    }

    fn dead(&self, limit: usize) -> BoxFuture<'static, Result<Vec<LifecycleEvent>, BrokerError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.dead(limit).await })
    }

    fn replay(&self) -> BoxFuture<'static, Result<usize, BrokerError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.replay().await })
    }
}

impl Inner {
    async fn report(&self, report: &Report) -> Result<Reported, BrokerError> {
        let rules = &self.rules;
        let lost = report.lost.map(|node| node.to_string());
        let times = [rules.lost_after, rules.return_time, rules.outage_after].map(millis);
        let mut arguments = vec![
            Value::from(report.node.to_string()),
            Value::Integer(i64::from(report.is_back)),
            Value::Integer(report.applied.cast_signed()),
            Value::from(lost.unwrap_or_default()),
            size(rules.max_waiting),
            size(MAX_DEAD_EVENTS),
        ];
        arguments.extend(times);
        arguments.extend([size(MAX_REPORTED), Value::Integer(KEPT.as_secs().cast_signed())]);
        report.records.iter().for_each(|record| self.push_record(&mut arguments, record));
        let script = Script {
            text: EVENTS_REPORT,
            digest: &self.digests[0],
            keys: self.keys.report(report.node, report.lost.unwrap_or(report.node)),
            arguments,
        };
        let reply = self.scripts.run(&script).await.map_err(|error| unavailable(&error))?;
        reported(reply).ok_or_else(|| unexpected("events_report"))
    }

    fn push_record(&self, arguments: &mut Vec<Value>, record: &Record) {
        let (kind, event, end) = match &record.change {
            Change::Begin { event, end } => ("b", event, end),
            Change::End { event } => ("e", event, &None),
        };
        arguments.extend([
            Value::Integer(record.number.cast_signed()),
            Value::Integer(record.time.cast_signed()),
            Value::from(record.key.as_str()),
            Value::from(record.group.as_deref().unwrap_or_default()),
            Value::from(kind),
        ]);
        for draft in [event, end] {
            let (id, content) = match draft {
                Some(Draft { id, content }) => (id.as_str(), self.sealed(content)),
                None => ("", Vec::new()),
            };
            arguments.extend([Value::from(id), Value::Bytes(content.into())]);
        }
    }

    async fn take(&self, take: &Take) -> Result<Option<Vec<WaitingEvent>>, BrokerError> {
        let mut arguments = vec![
            Value::from(take.node.to_string()),
            millis(take.lease),
            size(take.limit),
            millis(take.max_age),
            size(MAX_DEAD_EVENTS),
        ];
        for accepted in &take.accepted {
            arguments.extend([Value::from(accepted.place.as_str()), Value::from(accepted.id.as_str())]);
        }
        let script = Script { text: EVENTS_TAKE, digest: &self.digests[1], keys: self.keys.take(), arguments };
        let reply = self.scripts.run(&script).await.map_err(|error| unavailable(&error))?;
        let mut parts = reply.into_array().into_iter();
        if parts.next().and_then(|is_deliverer| is_deliverer.as_u64()) == Some(0) {
            return Ok(None);
        }
        let events = parts.next().map(Value::into_array).unwrap_or_default();
        let events: Option<Vec<_>> = events.into_iter().map(|event| self.waiting_event(event)).collect();
        events.map(Some).ok_or_else(|| unexpected("events_take"))
    }

    async fn dead(&self, limit: usize) -> Result<Vec<LifecycleEvent>, BrokerError> {
        let arguments = vec![size(limit)];
        let script = Script { text: DEAD_EVENTS, digest: &self.digests[3], keys: self.keys.dead(), arguments };
        let reply = self.scripts.run(&script).await.map_err(|error| unavailable(&error))?;
        let events: Option<Vec<_>> = reply.into_array().into_iter().map(|event| self.waiting_event(event)).collect();
        let events = events.ok_or_else(|| unexpected("events_dead"))?;
        Ok(events.into_iter().map(|waiting| waiting.event).collect())
    }

    async fn replay(&self) -> Result<usize, BrokerError> {
        let mut replayed = 0;
        while replayed < MAX_DEAD_EVENTS {
            let arguments = vec![size(self.rules.max_waiting), size(REPLAYED)];
            let script = Script { text: EVENTS_REPLAY, digest: &self.digests[2], keys: self.keys.replay(), arguments };
            let reply = self.scripts.run(&script).await.map_err(|error| unavailable(&error))?;
            let moved = reply.as_usize().ok_or_else(|| unexpected("events_replay"))?;
            replayed += moved;
            if moved < REPLAYED {
                break;
            }
        }
        Ok(replayed)
    }

    fn waiting_event(&self, event: Value) -> Option<WaitingEvent> {
        let [place, id, time, content]: [Value; 4] = event.into_array().try_into().ok()?;
        let content = self.opened(content.as_bytes()?);
        let event = LifecycleEvent::new(id.as_string()?, time.as_u64()?, content);
        Some(WaitingEvent::new(place.as_string()?, event))
    }

    /// Returns a content with its MAC, if the cluster has a secret. The MAC does not cover the id and
    /// the time, which the scripts may change.
    fn sealed(&self, content: &EventContent) -> Vec<u8> {
        let mac = self.seal.sign(self.keys.seal_channel(), [b"", &content.0]);
        mac.iter().flatten().chain(content.0.iter()).copied().collect()
    }

    /// Returns a content without its MAC. It is empty, and therefore invalid, if the MAC is wrong.
    fn opened(&self, sealed: &[u8]) -> EventContent {
        let content = match self.seal.is_active() {
            false => sealed,
            true => match sealed.split_at_checked(MAC_LEN) {
                Some((mac, content)) if self.seal.accepts(self.keys.seal_channel(), [b"", content], mac) => content,
                _ => b"",
            },
        };
        EventContent(content.to_vec().into())
    }
}

fn reported(reply: Value) -> Option<Reported> {
    let [applied, delivered, is_lost, lost, ended, waiting, lag, dead, overflowed]: [Value; 9] =
        reply.into_array().try_into().ok()?;
    let mut reported = Reported::default();
    reported.applied = applied.as_u64()?;
    reported.delivered = delivered.as_u64()?;
    reported.is_lost = is_lost.as_u64()? == 1;
    reported.lost = match lost.as_string()? {
        none if none.is_empty() => None,
        node => Some(node.parse::<NodeId>().ok()?),
    };
    reported.ended = ended.as_u64()?;
    reported.held =
        Held::new(waiting.as_u64()?, Duration::from_millis(lag.as_u64()?), dead.as_u64()?, overflowed.as_u64()?);
    Some(reported)
}

fn millis(time: Duration) -> Value {
    Value::Integer(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn size(size: usize) -> Value {
    Value::Integer(i64::try_from(size).unwrap_or(i64::MAX))
}

impl fmt::Debug for RedisEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisEvents").field("rules", &self.0.rules).finish_non_exhaustive()
    }
}
