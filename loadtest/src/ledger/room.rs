//! What every member must get, and what it got: lost, duplicated, reordered. Pure: no clock, no sockets.
//!
//! An event is known by its room, its publisher there, and that publisher's count. A member expects each publisher's
//! next event; one that is skipped is missing until it comes late (reordered) or the run is over (lost, unless its publish
//! was refused). The order over all publishers of a room is that of one member, its reference; the other members of the
//! process compare theirs with it, in what both of them got.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::results::Faults;

/// So many of a publisher's last events have their place in the room's order remembered, and so many events of a member wait
/// for theirs: a member that is further from the reference is not compared with it.
const REMEMBERED: usize = 32;

/// A membership remembers at most so many gaps; what would be the next one counts as lost at once.
const MAX_GAPS: usize = 1024;

/// So many of a publisher's last unsure events are known; older ones have long come, or are missed as lost ones are.
const MAX_UNSURE: usize = 100_000;

/// All events of a room, as its publishers of this process know them.
#[derive(Debug)]
pub(crate) struct Room {
    publishers: Vec<Publisher>,
    /// The member whose order is the room's; none until one gets something.
    reference: Option<u64>,
    /// The last place in its order; 0: none.
    last_place: u64,
    members_so_far: u64,
    /// What members that are gone still missed, and how many of them.
    left_missing: BTreeMap<Gap, u64>,
    pub(crate) faults: Faults,
}

#[derive(Debug, Clone, Default)]
struct Publisher {
    /// It publishes from this process, so `next` is how far it is at every moment.
    is_here: bool,
    next: u64,
    /// Events of which nobody knows whether the server took them: members may get them, or not.
    unsure: BTreeSet<u64>,
    /// By sequence modulo [`REMEMBERED`].
    places: Vec<Place>,
    /// All that have one are before this.
    placed: u64,
}

/// Where an event stands in the room's order.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    sequence: u64,
    /// 0: it has none.
    number: u64,
    /// A member got it in another order. That is counted once, since nobody knows whether that member is wrong or the
    /// reference, from which all others differ then.
    is_disputed: bool,
}

/// One connection in one room.
#[derive(Debug)]
pub(crate) struct Membership {
    /// By publisher.
    expected: Vec<Expected>,
    gaps: Vec<Gap>,
    /// Its number among all members that the room ever had.
    number: u64,
    /// The highest place in the room's order so far.
    last_place: u64,
    /// Events that it got, by publisher and sequence, in its order, before the reference.
    ahead: VecDeque<(u32, u64)>,
}

/// What a member expects of a publisher.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// Nothing is known, and nothing came: the publisher is in another process.
    Anything,
    /// Nothing came. From this one on, all must: it was sent after the join. Those before were under way.
    From(u64),
    /// All from `first` came, or are missing, up to before `next`.
    Next { first: u64, next: u64 },
}

/// Events of one publisher that did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Gap {
    publisher: u32,
    from: u64,
    /// The first one after it.
    until: u64,
}

/// What the publishers of one room have published, for members in other processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) room: u32,
    /// By publisher: how many events, and those that are unsure.
    pub(crate) publishers: BTreeMap<u32, (u64, BTreeSet<u64>)>,
}

impl Room {
    /// A room with publishers 0 up to before `publishers`, of which some are in this process.
    pub(crate) fn new(publishers: u32, here: impl Iterator<Item = u32>) -> Self {
        let mut all = vec![Publisher::default(); publishers as usize];
        for number in here {
            all[number as usize].is_here = true;
        }
        Self {
            publishers: all,
            reference: None,
            last_place: 0,
            members_so_far: 0,
            left_missing: BTreeMap::new(),
            faults: Faults::default(),
        }
    }

    /// The next event of a publisher of this process: its sequence.
    pub(crate) fn publish(&mut self, publisher: u32) -> u64 {
        let publisher = &mut self.publishers[publisher as usize];
        publisher.next += 1;
        publisher.next - 1
    }

    /// The publish was refused, or its answer did not come: nobody knows whether the event is delivered.
    pub(crate) fn unsure(&mut self, publisher: u32, sequence: u64) {
        let unsure = &mut self.publishers[publisher as usize].unsure;
        unsure.insert(sequence);
        if unsure.len() > MAX_UNSURE {
            unsure.pop_first();
        }
    }

    /// A member whose join was answered just now. `at_start`: nobody has published yet, in no process.
    pub(crate) fn join(&mut self, at_start: bool) -> Membership {
        self.members_so_far += 1;
        let expect = |publisher: &Publisher| match publisher.is_here || at_start {
            true => Expected::From(publisher.next),
            false => Expected::Anything,
        };
        let expected = self.publishers.iter().map(expect).collect();
        Membership { expected, gaps: Vec::new(), number: self.members_so_far, last_place: 0, ahead: VecDeque::new() }
    }

    /// A member got an event.
    pub(crate) fn receive(&mut self, member: &mut Membership, publisher: u32, sequence: u64) {
        let Some(expected) = member.expected.get_mut(publisher as usize) else {
            // There is no such publisher, whatever the checksum says.
            self.faults.corrupted += 1;
            return;
        };
        let (first, next) = match *expected {
            Expected::Anything => (sequence, sequence),
            Expected::From(from) => (sequence.min(from), sequence.min(from)),
            Expected::Next { first, next } => (first, next),
        };
        if sequence >= next {
            *expected = Expected::Next { first, next: sequence + 1 };
            if sequence > next {
                self.skip(member, Gap { publisher, from: next, until: sequence });
            }
            self.compare_order(member, publisher, sequence);
        } else if sequence < first || member.fill_gap(publisher, sequence) {
            // One that nobody has answered for may have been under way on the publisher's last connection.
            let is_unsure = self.publishers[publisher as usize].unsure.contains(&sequence);
            self.faults.reordered += u64::from(!is_unsure);
        } else {
            self.faults.duplicated += 1;
        }
    }

    fn skip(&mut self, member: &mut Membership, gap: Gap) {
        match member.gaps.len() < MAX_GAPS {
            true => member.gaps.push(gap),
            false => self.faults.lost += self.certain(gap),
        }
    }

    /// Looks whether the event stands where the reference got it, or will get it.
    fn compare_order(&mut self, member: &mut Membership, publisher: u32, sequence: u64) {
        if *self.reference.get_or_insert(member.number) == member.number {
            self.last_place = self.publishers[publisher as usize].take_place(sequence, self.last_place + 1);
        }
        member.ahead.push_back((publisher, sequence));
        self.compare_with_reference(member);
    }

    /// As far as the reference is.
    fn compare_with_reference(&mut self, member: &mut Membership) {
        while let Some((publisher, sequence)) = member.ahead.front().copied() {
            let of = &mut self.publishers[publisher as usize];
            let is_passed = of.placed > sequence;
            match of.place(sequence) {
                Some(place) => {
                    if place.number < member.last_place && !std::mem::replace(&mut place.is_disputed, true) {
                        self.faults.reordered += 1;
                    }
                    member.last_place = member.last_place.max(place.number);
                }
                // The reference did not get it, or is too far behind.
                None if is_passed || member.ahead.len() > REMEMBERED => {}
                None => return,
            }
            member.ahead.pop_front();
        }
    }

    /// The membership ends: what it misses is missing for good, but nothing that is under way is expected any more.
    pub(crate) fn leave(&mut self, mut member: Membership) {
        self.compare_with_reference(&mut member);
        self.reference.take_if(|reference| *reference == member.number);
        for gap in member.gaps {
            *self.left_missing.entry(gap).or_default() += 1;
        }
        while self.left_missing.len() > MAX_GAPS
            && let Some((gap, members)) = self.left_missing.pop_first()
        {
            self.faults.lost += self.certain(gap) * members;
        }
    }

    /// How many of a gap's events were accepted.
    fn certain(&self, gap: Gap) -> u64 {
        let unsure = self.publishers[gap.publisher as usize].unsure.range(gap.from..gap.until).count();
        gap.until - gap.from - unsure as u64
    }

    /// What the publishers of this process have published.
    pub(crate) fn published(&self, room: u32) -> Published {
        let here = self.publishers.iter().enumerate().filter(|(_, publisher)| publisher.is_here);
        let publishers =
            here.map(|(number, publisher)| (number as u32, (publisher.next, publisher.unsure.clone()))).collect();
        Published { room, publishers }
    }

    /// What publishers of other processes have published.
    pub(crate) fn learn(&mut self, published: &Published) {
        for (number, (next, unsure)) in &published.publishers {
            // Of its own publishers this process knows more.
            if let Some(publisher) = self.publishers.get_mut(*number as usize).filter(|publisher| !publisher.is_here) {
                publisher.next = *next;
                publisher.unsure.clone_from(unsure);
            }
        }
    }

    /// How many events a member still misses, when nobody publishes any more and all publishers are known.
    pub(crate) fn missing(&self, member: &Membership) -> u64 {
        self.gaps_at_end(member).map(|gap| self.certain(gap)).sum()
    }

    /// What a member misses when the run is over is lost.
    pub(crate) fn settle(&mut self, mut member: Membership) {
        self.compare_with_reference(&mut member);
        self.faults.lost += self.missing(&member);
    }

    /// What members missed that left before is lost. Once, at the end.
    pub(crate) fn settle_left(&mut self) {
        let left = std::mem::take(&mut self.left_missing);
        self.faults.lost += left.into_iter().map(|(gap, members)| self.certain(gap) * members).sum::<u64>();
    }

    fn gaps_at_end<'a>(&'a self, member: &'a Membership) -> impl Iterator<Item = Gap> + 'a {
        let tails =
            member.expected.iter().zip(&self.publishers).enumerate().filter_map(|(number, (expected, publisher))| {
                let from = match *expected {
                    Expected::Anything => return None,
                    Expected::From(from) => from,
                    Expected::Next { next, .. } => next,
                };
                (from < publisher.next).then_some(Gap { publisher: number as u32, from, until: publisher.next })
            });
        member.gaps.iter().copied().chain(tails)
    }
}

impl Publisher {
    /// An event's place in the room's order, if the reference got it, not too long ago.
    fn place(&mut self, sequence: u64) -> Option<&mut Place> {
        let place = self.places.get_mut(sequence as usize % REMEMBERED)?;
        (place.sequence == sequence && place.number > 0).then_some(place)
    }

    /// The reference gets an event: its place is the next one, unless it has one from an earlier reference. Tells the last
    /// place of all.
    fn take_place(&mut self, sequence: u64, next: u64) -> u64 {
        if sequence < self.placed {
            return next - 1;
        }
        self.placed = sequence + 1;
        self.places.resize(REMEMBERED, Place::default());
        self.places[sequence as usize % REMEMBERED] = Place { sequence, number: next, is_disputed: false };
        next
    }
}

impl Membership {
    /// Takes an event out of the gap that it is in; whether there is one.
    fn fill_gap(&mut self, publisher: u32, sequence: u64) -> bool {
        let is_it = |gap: &Gap| gap.publisher == publisher && (gap.from..gap.until).contains(&sequence);
        let Some(at) = self.gaps.iter().position(is_it) else { return false };
        let gap = self.gaps.swap_remove(at);
        let before = Gap { until: sequence, ..gap };
        let after = Gap { from: sequence + 1, ..gap };
        self.gaps.extend([before, after].into_iter().filter(|gap| gap.from < gap.until));
        true
    }
}
