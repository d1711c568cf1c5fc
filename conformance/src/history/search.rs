//! The search for an order of calls that explains every answer.
//!
//! It is Wing and Gong's ("Testing and verifying concurrent objects", 1993) with Lowe's two
//! additions ("Testing for linearizability", 2017): what was tried is remembered, and a call is put
//! in its place as late as can be, when one returns that has no place yet. Two more things keep it
//! small here:
//!
//! - What a call *saw* changes nothing. So as soon as the state is one in which it gives its
//!   answer, it can be given its place: no later one is better for anybody. The search branches
//!   only over calls that change something.
//! - When a call returns, only open calls that have to do with it, directly or through other open
//!   ones, can be needed before it ([`Search::needed`]). The others touch other objects: put after
//!   it they lead to the same, and they are still open then.

use std::collections::HashSet;

use super::Says;
use super::parts::Touching;
use super::steps::{State, Steps};
use crate::model::Model;

/// How many places of the search are tried before it gives up: some seconds, and 200 MB.
const MOST: usize = 2_000_000;

/// How many ways to come to one event are looked at for what they agree on.
const MOST_WAYS: usize = 32;

/// What came of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is such an order.
    Order,
    /// There is none.
    None(Stuck),
    /// It was too much to try.
    TooMuch,
}

/// Where a search found no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    /// When this call (an index) returned, no order explained it and all that returned before; all
    /// that returned before has one.
    pub(super) call: usize,
    /// The last moment before at which every order so far had come to the same, or could have yet,
    /// if there is one.
    pub(super) agreed: Option<Agreed>,
}

/// What all orders of the calls up to a moment agree on, or come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// What is stored then.
    pub(super) state: Model,
    /// The calls that have had their effect, and those that returned.
    pub(super) past: Vec<usize>,
}

/// Looks for an order of the calls, from `start`.
pub(super) fn search(start: &Model, calls: &[Touching<'_>]) -> Found {
    Search::new(start, calls).run()
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Begin(usize, u64),
    End(usize, u64),
}

impl Event {
    fn at(self) -> u64 {
        match self {
            Self::Begin(_, at) | Self::End(_, at) => at,
        }
    }
}

/// Places in time, a bit each, for calls that are open at the same time.
type Slots = u128;

/// How far a search is: everything that returned before `event` has its place, and so have the open
/// calls in `placed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    event: u32,
    way: Way,
}

/// A state, and the open calls that have their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Way {
    state: State,
    placed: Slots,
}

struct Search<'a> {
    calls: &'a [Touching<'a>],
    steps: Steps<'a>,
    events: Vec<Event>,
    /// The slot of each call.
    slots: Vec<u32>,
    /// Whether more calls are open at once than there are slots.
    crowded: bool,
    /// The calls that are open at each event, itself included.
    open: Vec<Vec<usize>>,
    /// The ways by which the search came to each event; `None` where there are too many.
    came: Vec<Option<Vec<Way>>>,
}

impl<'a> Search<'a> {
    fn new(start: &Model, calls: &'a [Touching<'a>]) -> Self {
        let steps = Steps::new(start, calls);
        let mut events = Vec::new();
        for (number, touching) in calls.iter().enumerate() {
            events.push(Event::Begin(number, touching.call.began));
            let returns = matches!(steps.says(number), Says::Seen | Says::Done);
            if let Some((at, _)) = touching.call.ended.as_ref().filter(|_| returns) {
                events.push(Event::End(number, *at));
            }
        }
        // At one moment, what begins comes first: it is no later than what ends there.
        events.sort_by_key(|event| (event.at(), matches!(event, Event::End(..))));

        let mut search = Self {
            calls,
            steps,
            slots: vec![0; calls.len()],
            crowded: false,
            open: Vec::with_capacity(events.len()),
            came: vec![Some(Vec::new()); events.len()],
            events,
        };
        search.give_slots();
        search
    }

    fn give_slots(&mut self) {
        let (mut open, mut taken): (Vec<usize>, Slots) = (Vec::new(), 0);
        for event in &self.events {
            if let Event::Begin(call, _) = *event {
                let slot = taken.trailing_ones();
                self.crowded |= slot == Slots::BITS;
                taken |= bit(slot);
                if let Some(place) = self.slots.get_mut(call) {
                    *place = slot;
                }
                open.push(call);
            }
            self.open.push(open.clone());
            if let Event::End(call, _) = *event {
                open.retain(|other| *other != call);
                taken &= !self.slots.get(call).map_or(0, |slot| bit(*slot));
            }
        }
    }

    fn run(&mut self) -> Found {
        if self.crowded {
            return Found::TooMuch;
        }
        let mut tried: HashSet<Place> = HashSet::new();
        let mut to_try = vec![Place { event: 0, way: Way { state: 0, placed: 0 } }];
        let mut farthest = 0;
        while let Some(mut place) = to_try.pop() {
            let Some(returning) = self.go_on(&mut place) else { return Found::Order };
            if !tried.insert(place) {
                continue;
            }
            if tried.len() > MOST {
                return Found::TooMuch;
            }
            farthest = farthest.max(place.event);
            self.branch(place, returning, &mut to_try);
        }
        let Some(Event::End(call, _)) = self.events.get(farthest as usize).copied() else {
            return Found::Order;
        };
        Found::None(Stuck { call, agreed: self.agreed(farthest as usize) })
    }

    /// Goes on to the first call that returns without a place, if there is one.
    fn go_on(&mut self, place: &mut Place) -> Option<usize> {
        while let Some(event) = self.events.get(place.event as usize).copied() {
            self.comes(*place);
            match event {
                Event::Begin(call, _) => place.way = self.seen(place.way, &[call]),
                Event::End(call, _) => {
                    let slot = self.slot(call);
                    if place.way.placed & slot == 0 {
                        return Some(call);
                    }
                    place.way.placed &= !slot;
                }
            }
            place.event += 1;
        }
        None
    }

    fn comes(&mut self, Place { event, way }: Place) {
        let Some(came) = self.came.get_mut(event as usize) else { return };
        if let Some(ways) = came
            && !ways.contains(&way)
        {
            if ways.len() == MOST_WAYS {
                *came = None;
            } else {
                ways.push(way);
            }
        }
    }

    /// What all that was tried agreed on last, before the event at which it ended; if it can be, at
    /// a moment after which something changed yet, so that who looks at it sees what led there.
    fn agreed(&mut self, end: usize) -> Option<Agreed> {
        let done = (0..self.calls.len()).filter(|call| self.steps.says(*call) == Says::Done);
        let done: Vec<_> = done.collect();
        let mut best = None;
        for event in (0..end).rev() {
            let Some(Way { state, placed }) = self.origin(event) else { continue };
            let past = self.past(event, placed);
            let shows = done.iter().any(|call| !past.contains(call));
            if shows || best.is_none() {
                best = Some((state, past));
            }
            if shows {
                break;
            }
        }
        let (state, past) = best?;
        Some(Agreed { state: self.steps.model(state)?.clone(), past })
    }

    /// The one of the ways to an event that leads to all others, by no more than open calls that
    /// take effect there: what has an order by any of them has one by it.
    fn origin(&mut self, event: usize) -> Option<Way> {
        let ways = self.came.get(event)?.clone()?;
        let open = self.open.get(event).cloned().unwrap_or_default();
        let of = |says| {
            let those = open.iter().filter(|call| self.steps.says(**call) == says);
            those.fold(0, |all, call| all | self.slot(*call))
        };
        let (seen, perhaps) = (of(Says::Seen), of(Says::Perhaps));
        let origin = *ways.iter().min_by_key(|way| (way.placed & !seen).count_ones())?;
        let mut reached = vec![origin];
        let mut next = 0;
        while let Some(way) = reached.get(next).copied() {
            next += 1;
            for call in &open {
                let slot = self.slot(*call);
                if slot & (seen | way.placed) != 0 {
                    continue;
                }
                let Some(state) = self.steps.step(way.state, *call) else { continue };
                let further = self.seen(Way { state, placed: way.placed | slot }, &open);
                if reached.contains(&further) {
                    continue;
                }
                if reached.len() == MOST_WAYS {
                    return None;
                }
                reached.push(further);
            }
        }
        // As good is who has seen more, or who may still do what another has done in vain.
        let as_good = |one: &Way, other: &Way| {
            one.state == other.state
                && one.placed & !other.placed & !seen == 0
                && other.placed & !one.placed & !perhaps == 0
        };
        let all = ways.iter().all(|way| reached.iter().any(|one| as_good(one, way)));
        all.then_some(origin)
    }

    /// The calls that returned before this event, and those that had had their effect.
    fn past(&self, event: usize, placed: Slots) -> Vec<usize> {
        let ended = self.events.iter().take(event).filter_map(|event| match event {
            Event::End(call, _) => Some(*call),
            Event::Begin(..) => None,
        });
        let open = self.open.get(event).into_iter().flatten().copied();
        ended.chain(open.filter(|call| placed & self.slot(*call) != 0)).collect()
    }

    /// Every way to have one more change take effect before `returning` ends.
    fn branch(&mut self, place: Place, returning: usize, to_try: &mut Vec<Place>) {
        let mut needed = self.needed(place, returning);
        // Tried last first: the one that returns, then those that will, then those that may never.
        needed.sort_by_key(|call| {
            let ends = self.calls.get(*call).and_then(|t| t.call.ended.as_ref()).map(|(at, _)| *at);
            let sure = self.steps.says(*call) == Says::Done;
            (sure, std::cmp::Reverse(ends))
        });
        let open = self.open.get(place.event as usize).cloned().unwrap_or_default();
        for call in needed {
            let Some(state) = self.steps.step(place.way.state, call) else { continue };
            let way = Way { state, placed: place.way.placed | self.slot(call) };
            to_try.push(Place { way: self.seen(way, &open), ..place });
        }
    }

    /// Gives open calls their place that only saw something and could see it now.
    fn seen(&mut self, mut way: Way, open: &[usize]) -> Way {
        for call in open {
            let slot = self.slot(*call);
            if self.steps.says(*call) == Says::Seen
                && way.placed & slot == 0
                && self.steps.step(way.state, *call).is_some()
            {
                way.placed |= slot;
            }
        }
        way
    }

    /// The open changes without a place that have to do with `returning`, itself among them.
    fn needed(&self, place: Place, returning: usize) -> Vec<usize> {
        let open = self.open.get(place.event as usize).map_or(&[][..], Vec::as_slice);
        let mut left: Vec<_> =
            open.iter().copied().filter(|call| place.way.placed & self.slot(*call) == 0).collect();
        let objects = |call: usize| self.calls.get(call).map_or(0, |touching| touching.objects);
        let mut touched = objects(returning);
        let mut needed = Vec::new();
        loop {
            let before = needed.len();
            needed.extend(left.extract_if(.., |call| objects(*call) & touched != 0));
            if needed.len() == before {
                break;
            }
            touched = needed.iter().fold(touched, |all, call| all | objects(*call));
        }
        needed.retain(|call| self.steps.says(*call) != Says::Seen);
        needed
    }

    fn slot(&self, call: usize) -> Slots {
        self.slots.get(call).map_or(0, |slot| bit(*slot))
    }
}

fn bit(slot: u32) -> Slots {
    1_u128.checked_shl(slot).unwrap_or(0)
}
