//! Lifecycle events in memory: the store of the nodes of one process. `events_report.lua` of the crate
//! `roomcast-redis` does the same in Redis.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::broker::contract::{BoxFuture, BrokerError};
use crate::events::event::LifecycleEvent;
use crate::events::store::{
    Accepted, Change, Draft, EventRules, EventStore, Held, MAX_DEAD_EVENTS, MAX_REPORTED, Record, Report, Reported,
    Take, WaitingEvent,
};
use crate::id::NodeId;
use crate::unix_time::millis;

/// A store of lifecycle events in memory. Cloning it makes another handle to the same store. What it
/// holds is lost when the process ends.
#[derive(Debug, Clone)]
pub struct MemoryEvents(Arc<Mutex<Stored>>);

impl MemoryEvents {
    /// Creates an empty store.
    pub fn new(rules: EventRules) -> Self {
        Self(Arc::new(Mutex::new(Stored::new(rules))))
    }
}

impl EventStore for MemoryEvents {
    fn report(&self, report: Report) -> BoxFuture<'static, Result<Reported, BrokerError>> {
        Box::pin(ready(Ok(self.0.lock().report(report, millis(SystemTime::now())))))
    }

    fn take(&self, take: Take) -> BoxFuture<'static, Result<Option<Vec<WaitingEvent>>, BrokerError>> {
        Box::pin(ready(Ok(self.0.lock().take(&take, millis(SystemTime::now())))))
    }

    fn dead(&self, limit: usize) -> BoxFuture<'static, Result<Vec<LifecycleEvent>, BrokerError>> {
        Box::pin(ready(Ok(self.0.lock().dead.iter().take(limit).cloned().collect())))
    }

    fn replay(&self) -> BoxFuture<'static, Result<usize, BrokerError>> {
        Box::pin(ready(Ok(self.0.lock().replay(millis(SystemTime::now())))))
    }
}

/// What a store holds. Times are milliseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    rules: EventRules,
    waiting: VecDeque<Waiting>,
    next_place: u64,
    dead: VecDeque<LifecycleEvent>,
    overflowed: u64,
    nodes: BTreeMap<NodeId, StoredNode>,
    groups: HashMap<String, Group>,
    last_report: Option<u64>,
    /// No group ends before, so that the nodes have time to report what they have again.
    no_end_before: u64,
    deliverer: Option<(NodeId, u64)>,
}

#[derive(Debug, Clone)]
struct Waiting {
    place: u64,
    since: u64,
    /// The node whose record is the origin, and the record's number.
    origin: Option<(NodeId, u64)>,
    event: LifecycleEvent,
}

#[derive(Debug, Clone, Default)]
struct StoredNode {
    last_report: u64,
    is_lost: bool,
    applied: u64,
    delivered: u64,
    /// What the node has begun and not ended, with its group and the event of its end.
    open: BTreeMap<String, (Option<String>, Option<Draft>)>,
}

#[derive(Debug, Clone)]
struct Group {
    count: usize,
    /// The id of the event of its end.
    end_id: Option<String>,
    /// When its end is an event if none of it begins again, and this event.
    ends: Option<(u64, Option<LifecycleEvent>)>,
}

impl Stored {
    pub(crate) fn new(rules: EventRules) -> Self {
        Self {
            rules,
            waiting: VecDeque::new(),
            next_place: 1,
            dead: VecDeque::new(),
            overflowed: 0,
            nodes: BTreeMap::new(),
            groups: HashMap::new(),
            last_report: None,
            no_end_before: 0,
            deliverer: None,
        }
    }

    pub(crate) fn report(&mut self, report: Report, now: u64) -> Reported {
        let outage = as_millis(self.rules.outage_after);
        let was_unreachable = self.last_report.replace(now).is_some_and(|last| now.saturating_sub(last) > outage);
        if was_unreachable {
            self.nodes.values_mut().for_each(|node| node.last_report = now);
        }
        let node = self.nodes.entry(report.node).or_default();
        node.is_lost &= !report.is_back;
        let is_lost = node.is_lost;
        let has_lost_data = node.applied < report.applied;
        if has_lost_data || was_unreachable {
            self.no_end_before = now + as_millis(self.rules.lost_after);
        }
        if !is_lost {
            node.last_report = now;
            for record in report.records.into_iter().filter(|_| !has_lost_data) {
                self.apply(report.node, record, now);
            }
        }
        let ended = report.lost.map_or(0, |lost| self.end(lost, now));
        self.end_groups(now);
        let node = &self.nodes[&report.node];
        Reported {
            applied: node.applied,
            delivered: node.delivered,
            is_lost,
            lost: self.find_lost(now),
            ended,
            held: self.held(now),
        }
    }

    fn apply(&mut self, id: NodeId, record: Record, now: u64) {
        let Record { number, time, key, group, change } = record;
        let node = self.nodes.entry(id).or_default();
        if number <= node.applied {
            return;
        }
        node.applied = number;
        let origin = Some((id, number));
        match change {
            Change::Begin { event, end } => {
                let end_id = end.as_ref().map(|end| end.id.clone());
                let is_new = node.open.insert(key, (group.clone(), end)).is_none();
                let begins = group.is_none_or(|group| self.begin_in(group, end_id, is_new));
                if let Some(event) = event.filter(|_| begins) {
                    self.append(event.at(time), origin, now);
                }
            }
            Change::End { event } => {
                let was_open = node.open.remove(&key).is_some();
                let event = event.map(|event| event.at(time));
                match group {
                    Some(group) => self.end_in(group, event, was_open, now),
                    None => event.into_iter().for_each(|event| self.append(event, origin, now)),
                }
            }
        }
    }

    /// Counts a beginning. Returns whether it is the first of its group.
    fn begin_in(&mut self, group: String, end_id: Option<String>, is_new: bool) -> bool {
        let mut begins = false;
        let group = self.groups.entry(group).or_insert_with(|| {
            begins = true;
            Group { count: 0, end_id, ends: None }
        });
        group.count += usize::from(is_new);
        group.ends = None;
        begins
    }

    /// Counts an end, which is an event later if it is the last of its group.
    fn end_in(&mut self, name: String, event: Option<LifecycleEvent>, was_open: bool, now: u64) {
        let at = now + as_millis(self.rules.return_time);
        match self.groups.get_mut(&name) {
            Some(group) if was_open => {
                group.count = group.count.saturating_sub(1);
                if group.count == 0 {
                    let id = group.end_id.clone();
                    let event = event.map(|event| LifecycleEvent { id: id.unwrap_or(event.id), ..event });
                    group.ends = Some((at, event));
                }
            }
            Some(_) => {}
            // The store has lost the beginning. If the group has others, their nodes report them
            // again.
            None => drop(self.groups.insert(name, Group { count: 0, end_id: None, ends: Some((at, event)) })),
        }
    }

    /// Ends the groups whose time has come, once all nodes that live have reported after it: one of
    /// them may have a beginning that it could not report before.
    fn end_groups(&mut self, now: u64) {
        if now < self.no_end_before {
            return;
        }
        let lives = |node: &&StoredNode| !node.is_lost && !self.is_silent(node, now);
        let until = self.nodes.values().filter(lives).map(|node| node.last_report).min().unwrap_or(now);
        let due = |group: &Group| group.ends.as_ref().is_some_and(|(at, _)| *at <= until);
        let mut due: Vec<_> =
            self.groups.iter().filter(|(_, group)| due(group)).map(|(name, _)| name.clone()).collect();
        due.sort();
        for name in due {
            if let Some(Group { ends: Some((_, Some(event))), .. }) = self.groups.remove(&name) {
                self.append(event, None, now);
            }
        }
    }

    /// Reports the end of what a lost node has open. Returns how many events this caused.
    fn end(&mut self, lost: NodeId, now: u64) -> u64 {
        if self.find_lost(now) != Some(lost) {
            return 0;
        }
        let Some(node) = self.nodes.get_mut(&lost) else { return 0 };
        node.is_lost = true;
        let keys: Vec<_> = node.open.keys().take(MAX_REPORTED).cloned().collect();
        let ended: Vec<_> = keys.iter().filter_map(|key| node.open.remove(key)).collect();
        for (group, end) in ended {
            let event = end.map(|end| end.at(now));
            match group {
                Some(group) => self.end_in(group, event, true, now),
                None => event.into_iter().for_each(|event| self.append(event, None, now)),
            }
        }
        keys.len() as u64
    }

    fn is_silent(&self, node: &StoredNode, now: u64) -> bool {
        now.saturating_sub(node.last_report) > as_millis(self.rules.lost_after)
    }

    fn find_lost(&self, now: u64) -> Option<NodeId> {
        let is_lost = |node: &StoredNode| if node.is_lost { !node.open.is_empty() } else { self.is_silent(node, now) };
        self.nodes.iter().find(|(_, node)| is_lost(node)).map(|(id, _)| *id)
    }

    fn append(&mut self, event: LifecycleEvent, origin: Option<(NodeId, u64)>, now: u64) {
        if self.waiting.len() >= self.rules.max_waiting {
            self.overflowed += 1;
            return self.bury(event);
        }
        self.waiting.push_back(Waiting { place: self.next_place, since: now, origin, event });
        self.next_place += 1;
    }

    fn bury(&mut self, event: LifecycleEvent) {
        if self.dead.len() >= MAX_DEAD_EVENTS {
            self.dead.pop_front();
        }
        self.dead.push_back(event);
    }

    pub(crate) fn take(&mut self, take: &Take, now: u64) -> Option<Vec<WaitingEvent>> {
        if self.deliverer.is_some_and(|(node, until)| node != take.node && until > now) {
            return None;
        }
        self.deliverer = Some((take.node, now + as_millis(take.lease)));
        for Accepted { place, id } in &take.accepted {
            let is_it = |waiting: &Waiting| waiting.place.to_string() == *place && waiting.event.id == *id;
            let Some(index) = self.waiting.iter().position(is_it) else { continue };
            let origin = self.waiting.remove(index).and_then(|waiting| waiting.origin);
            if let Some((node, number)) = origin
                && let Some(node) = self.nodes.get_mut(&node)
            {
                node.delivered = node.delivered.max(number);
            }
        }
        let oldest = now.saturating_sub(as_millis(take.max_age));
        while let Some(old) = self.waiting.pop_front_if(|waiting| waiting.since < oldest) {
            self.bury(old.event);
        }
        let waiting = self.waiting.iter().take(take.limit);
        Some(waiting.map(|waiting| WaitingEvent::new(waiting.place.to_string(), waiting.event.clone())).collect())
    }

    pub(crate) fn replay(&mut self, now: u64) -> usize {
        let space = self.rules.max_waiting.saturating_sub(self.waiting.len());
        let events: Vec<_> = self.dead.drain(..space.min(self.dead.len())).collect();
        let count = events.len();
        events.into_iter().for_each(|event| self.append(event, None, now));
        count
    }

    fn held(&self, now: u64) -> Held {
        let lag = self.waiting.front().map_or(0, |oldest| now.saturating_sub(oldest.since));
        Held {
            waiting: self.waiting.len() as u64,
            lag: Duration::from_millis(lag),
            dead: self.dead.len() as u64,
            overflowed: self.overflowed,
        }
    }
}

fn as_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
