//! What was published against what was received: by content, without any help of the nodes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

/// An event's publisher, and its number among that publisher's events.
pub(crate) type EventId = (usize, u64);

/// What the publisher knows of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered: the broker has it.
    Acked(Duration),
    /// It was answered with an error. That does not mean that nobody gets it.
    Refused,
    /// It was not answered.
    Unknown,
}

/// An event that was sent. Times count from the test's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) id: EventId,
    pub(crate) room: usize,
    pub(crate) sent: Duration,
    pub(crate) outcome: Outcome,
}

/// An event that a member got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) id: EventId,
    /// The room that it was published to, by its payload.
    pub(crate) room: usize,
    pub(crate) at: Duration,
}

/// All that a member got, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberLog {
    pub(crate) node: usize,
    pub(crate) room: usize,
    /// It was a member from before the first event until after the last.
    pub(crate) throughout: bool,
    pub(crate) received: Vec<Received>,
}

/// What is wrong, and how much there was.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) published: usize,
    pub(crate) acked: usize,
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
    pub(crate) delivered: usize,
    /// Acknowledged events that a member of the room on this node did not get.
    pub(crate) lost: BTreeMap<usize, BTreeSet<EventId>>,
    /// Events that a member got again.
    pub(crate) duplicated: usize,
    /// Events that a member got after a later one of their publisher, and events that two members got in
    /// different orders.
    pub(crate) reordered: usize,
    /// Events that a member of another room got, and events that nobody published.
    pub(crate) misrouted: usize,
}

impl Verdict {
    /// How many events were lost, counted once for each node.
    pub(crate) fn lost(&self) -> usize {
        self.lost.values().map(BTreeSet::len).sum()
    }

    /// How many events were lost that their node did not announce.
    pub(crate) fn silently_lost(&self, announced: &BTreeMap<usize, usize>) -> usize {
        let announced = |node| announced.get(node).copied().unwrap_or_default();
        self.lost.iter().map(|(node, lost)| lost.len().saturating_sub(announced(node))).sum()
    }
}

/// Judges a whole run.
pub(crate) fn judge(published: &[Published], members: &[MemberLog]) -> Verdict {
    let count = |wanted: fn(&Outcome) -> bool| published.iter().filter(|event| wanted(&event.outcome)).count();
    let mut verdict = Verdict {
        published: published.len(),
        acked: count(|outcome| matches!(outcome, Outcome::Acked(_))),
        refused: count(|outcome| matches!(outcome, Outcome::Refused)),
        unknown: count(|outcome| matches!(outcome, Outcome::Unknown)),
        delivered: members.iter().map(|member| member.received.len()).sum(),
        ..Verdict::default()
    };
    let rooms: HashMap<EventId, usize> = published.iter().map(|event| (event.id, event.room)).collect();
    let mut orders: HashMap<usize, Vec<Vec<EventId>>> = HashMap::new();
    for member in members {
        let order = judge_member(member, &rooms, &mut verdict);
        orders.entry(member.room).or_default().push(order);
    }
    for orders in orders.values() {
        for (index, one) in orders.iter().enumerate() {
            verdict.reordered += orders[index + 1..].iter().map(|other| differences(one, other)).sum::<usize>();
        }
    }
    find_lost(published, members, &mut verdict);
    verdict
}

/// Judges what one member can know, and returns its events in order, each once.
fn judge_member(member: &MemberLog, rooms: &HashMap<EventId, usize>, verdict: &mut Verdict) -> Vec<EventId> {
    let mut seen = HashSet::new();
    let mut latest: HashMap<usize, u64> = HashMap::new();
    let mut order = Vec::new();
    for event in &member.received {
        if event.room != member.room || rooms.get(&event.id) != Some(&event.room) {
            verdict.misrouted += 1;
            continue;
        }
        if !seen.insert(event.id) {
            verdict.duplicated += 1;
            continue;
        }
        let (publisher, number) = event.id;
        let latest = latest.entry(publisher).or_default();
        if number < *latest {
            verdict.reordered += 1;
        }
        *latest = number.max(*latest);
        order.push(event.id);
    }
    order
}

/// How often the second goes back to what came earlier in the first.
fn differences(one: &[EventId], other: &[EventId]) -> usize {
    let places: HashMap<EventId, usize> = one.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let common: Vec<usize> = other.iter().filter_map(|id| places.get(id).copied()).collect();
    common.windows(2).filter(|pair| pair[1] < pair[0]).count()
}

fn find_lost(published: &[Published], members: &[MemberLog], verdict: &mut Verdict) {
    for member in members.iter().filter(|member| member.throughout) {
        let received: HashSet<EventId> = member.received.iter().map(|event| event.id).collect();
        let due = published.iter().filter(|event| event.room == member.room);
        let lost = due.filter(|event| matches!(event.outcome, Outcome::Acked(_)) && !received.contains(&event.id));
        let lost: Vec<EventId> = lost.map(|event| event.id).collect();
        if !lost.is_empty() {
            verdict.lost.entry(member.node).or_default().extend(lost);
        }
    }
}

/// An event that takes longer is a part of the fault.
const SLOW: Duration = Duration::from_secs(1);

/// When an event was answered and everybody had it; `None` if that never happened.
pub(crate) fn completed(event: &Published, members: &[MemberLog]) -> Option<Duration> {
    let Outcome::Acked(answered) = event.outcome else { return None };
    let due = members.iter().filter(|member| member.throughout && member.room == event.room);
    // From the end: it is asked most of all about what has just come.
    let arrival = |member: &MemberLog| member.received.iter().rev().find(|got| got.id == event.id).map(|got| got.at);
    let arrivals = due.map(arrival);
    arrivals.collect::<Option<Vec<_>>>().map(|arrivals| arrivals.into_iter().fold(answered, Duration::max))
}

/// How long the slowest of the events that were sent since then took until everybody had it.
pub(crate) fn slowest_since(since: Duration, published: &[Published], members: &[MemberLog]) -> Duration {
    let events = published.iter().filter(|event| event.sent >= since);
    events.filter_map(|event| Some(completed(event, members)? - event.sent)).max().unwrap_or_default()
}

/// When all was normal again after a fault: in each room an event was answered and arrived everywhere,
/// and all later ones too, and soon. The fault's own time if nobody noticed it; `None` if it did not end.
pub(crate) fn normal_since(fault: Duration, published: &[Published], members: &[MemberLog]) -> Option<Duration> {
    let mut rooms: BTreeMap<usize, Vec<&Published>> = BTreeMap::new();
    for event in published.iter().filter(|event| event.sent >= fault) {
        rooms.entry(event.room).or_default().push(event);
    }
    let mut normal = fault;
    for events in rooms.values_mut() {
        events.sort_by_key(|event| event.sent);
        let is_good = |event: &&Published| completed(event, members).is_some_and(|at| at - event.sent <= SLOW);
        if let Some(bad) = events.iter().rposition(|event| !is_good(event)) {
            normal = normal.max(completed(events.get(bad + 1)?, members)?);
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    /// Three events of two publishers in room 0, all answered.
    fn published() -> Vec<Published> {
        let event = |id, sent| Published { id, room: 0, sent: ms(sent), outcome: Outcome::Acked(ms(sent + 1)) };
        vec![event((1, 1), 10), event((2, 1), 20), event((1, 2), 30)]
    }

    fn member(node: usize, ids: &[EventId]) -> MemberLog {
        let received = ids.iter().map(|id| Received { id: *id, room: 0, at: ms(40) }).collect();
        MemberLog { node, room: 0, throughout: true, received }
    }

    const IN_ORDER: [EventId; 3] = [(1, 1), (2, 1), (1, 2)];

    #[test]
    fn nothing_is_wrong_where_everybody_got_everything_in_order() {
        let verdict = judge(&published(), &[member(0, &IN_ORDER), member(1, &IN_ORDER)]);
        assert_eq!(verdict, Verdict { published: 3, acked: 3, delivered: 6, ..Verdict::default() });
    }

    #[test]
    fn an_event_that_one_member_did_not_get_is_lost_once_for_its_node() {
        let members = [member(0, &IN_ORDER), member(1, &IN_ORDER[..2]), member(1, &IN_ORDER[..2])];
        let verdict = judge(&published(), &members);
        assert_eq!(verdict.lost, BTreeMap::from([(1, BTreeSet::from([(1, 2)]))]));
        assert_eq!((verdict.lost(), verdict.duplicated, verdict.reordered, verdict.misrouted), (1, 0, 0, 0));
    }

    #[test]
    fn a_loss_is_silent_unless_its_own_node_announced_it() {
        let verdict = judge(&published(), &[member(0, &IN_ORDER), member(1, &IN_ORDER[..1])]);
        assert_eq!(verdict.silently_lost(&BTreeMap::new()), 2);
        assert_eq!(verdict.silently_lost(&BTreeMap::from([(0, 5)])), 2);
        assert_eq!(verdict.silently_lost(&BTreeMap::from([(1, 1)])), 1);
        assert_eq!(verdict.silently_lost(&BTreeMap::from([(1, 2)])), 0);
    }

    #[test]
    fn only_what_was_answered_and_was_due_can_be_lost() {
        let mut events = published();
        events[1].outcome = Outcome::Refused;
        events[2].outcome = Outcome::Unknown;
        let mut absent = member(2, &[]);
        absent.throughout = false;
        let verdict = judge(&events, &[member(0, &IN_ORDER), member(1, &IN_ORDER[..1]), absent]);
        assert_eq!((verdict.acked, verdict.refused, verdict.unknown, verdict.lost()), (1, 1, 1, 0));
    }

    #[test]
    fn an_event_that_comes_again_is_duplicated_even_if_it_was_refused() {
        let mut events = published();
        events[1].outcome = Outcome::Refused;
        let verdict = judge(&events, &[member(0, &[(1, 1), (2, 1), (1, 2), (2, 1)])]);
        assert_eq!((verdict.duplicated, verdict.reordered, verdict.lost()), (1, 0, 0));
    }

    #[test]
    fn a_publishers_events_in_another_order_are_reordered() {
        let verdict = judge(&published(), &[member(0, &[(1, 2), (2, 1), (1, 1)])]);
        assert_eq!((verdict.reordered, verdict.duplicated, verdict.lost()), (1, 0, 0));
    }

    #[test]
    fn members_with_different_orders_are_found_even_where_one_has_gaps() {
        let members = [member(0, &IN_ORDER), member(1, &[(2, 1), (1, 1), (1, 2)])];
        assert_eq!(judge(&published(), &members).reordered, 1);
        let members = [member(0, &[(1, 1), (2, 1)]), member(1, &[(1, 1), (1, 2), (2, 1)]), member(2, &IN_ORDER)];
        assert_eq!(judge(&published(), &members).reordered, 1);
    }

    #[test]
    fn an_event_of_another_room_or_of_nobody_is_misrouted() {
        let mut stray = member(0, &IN_ORDER);
        stray.received.push(Received { id: (1, 3), room: 1, at: ms(50) });
        stray.received.push(Received { id: (9, 9), room: 0, at: ms(50) });
        let verdict = judge(&published(), &[stray]);
        assert_eq!((verdict.misrouted, verdict.lost(), verdict.reordered), (2, 0, 0));
    }

    #[test]
    fn all_is_normal_from_the_first_event_after_the_last_that_was_refused_slow_or_lost() {
        let member = |ids: &[EventId]| [member(0, ids)];
        assert_eq!(normal_since(ms(5), &published(), &member(&IN_ORDER)), Some(ms(5)));
        let mut events = published();
        events[1].outcome = Outcome::Refused;
        assert_eq!(normal_since(ms(5), &events, &member(&IN_ORDER)), Some(ms(40)));
        assert_eq!(normal_since(ms(25), &events, &member(&IN_ORDER)), Some(ms(25)));
        let mut late = member(&IN_ORDER);
        late[0].received[1].at = ms(2000);
        assert_eq!(normal_since(ms(5), &published(), &late), Some(ms(40)));
        assert_eq!(slowest_since(ms(5), &published(), &late), ms(1980));
        assert_eq!(slowest_since(ms(25), &published(), &late), ms(10));
        assert_eq!(normal_since(ms(5), &published(), &member(&IN_ORDER[..2])), None);
    }
}
