//! The search for an order of calls that explains every answer.
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993), with two
//! additions of Lowe ("Testing for linearizability", 2017). The search memoizes the configurations
//! that it has tried, and it linearizes calls as late as possible, when a call returns that is not
//! linearized yet. Two more rules keep the search small:
//!
//! - A call that changed nothing is linearized as soon as the model gives its answer in the current
//!   state. Since it leaves the state as it is, a later linearization point is never better. So the
//!   search branches over writes only.
//! - Before a call that returns, only those pending calls are tried that share an object with it,
//!   directly or through other pending calls ([`Search::candidates`]). The other pending calls
//!   touch other objects. Whether they take effect before or after the returning call, they lead to
//!   the same state, and they are still pending afterwards.

use std::collections::HashSet;

use super::Says;
use super::parts::Touching;
use super::steps::{State, Steps};
use crate::model::Model;

/// How many nodes the search tries before it gives up: some seconds, and 200 MB.
const MAX_NODES: usize = 2_000_000;

/// How many configurations are kept for one event, to find an origin among them.
const MAX_CONFIGURATIONS: usize = 32;

/// The result of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Some order explains every answer.
    Order,
    /// No order does.
    None(Stuck),
    /// The search gave up.
    TooMuch,
}

/// The place at which a search found no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    /// The index of the first call to return that no order explains together with all calls that
    /// returned before it.
    pub(super) call: usize,
    /// The last origin before that return, if there is one.
    pub(super) origin: Option<Origin>,
}

/// A configuration from which all others at that moment follow by linearizing pending calls. So if
/// any of them can be completed to an order of all calls, this one can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The state of the configuration.
    pub(super) state: Model,
    /// The calls that are linearized there, and those that returned before.
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

/// A set of pending calls, one bit per call. When a call returns, its bit is free for another.
type Slots = u128;

/// A node of the search: the next event, and the configuration that the search has reached. All
/// calls that returned before the event are linearized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    event: u32,
    configuration: Configuration,
}

/// A state, and the pending calls that are linearized in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Configuration {
    state: State,
    linearized: Slots,
}

struct Search<'a> {
    calls: &'a [Touching<'a>],
    steps: Steps<'a>,
    events: Vec<Event>,
    /// The number of each call's bit in [`Slots`].
    slots: Vec<u32>,
    /// Whether more calls are pending at once than [`Slots`] has bits.
    crowded: bool,
    /// The calls that are pending at each event, the event's own call included.
    pending: Vec<Vec<usize>>,
    /// The configurations in which the search reached each event; `None` if there are too many.
    visited: Vec<Option<Vec<Configuration>>>,
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
        // At equal moments, beginnings come first: calls that share a moment are concurrent.
        events.sort_by_key(|event| (event.at(), matches!(event, Event::End(..))));

        let mut search = Self {
            calls,
            steps,
            slots: vec![0; calls.len()],
            crowded: false,
            pending: Vec::with_capacity(events.len()),
            visited: vec![Some(Vec::new()); events.len()],
            events,
        };
        search.give_slots();
        search
    }

    fn give_slots(&mut self) {
        let (mut pending, mut taken): (Vec<usize>, Slots) = (Vec::new(), 0);
        for event in &self.events {
            if let Event::Begin(call, _) = *event {
                let slot = taken.trailing_ones();
                self.crowded |= slot == Slots::BITS;
                taken |= bit(slot);
                if let Some(entry) = self.slots.get_mut(call) {
                    *entry = slot;
                }
                pending.push(call);
            }
            self.pending.push(pending.clone());
            if let Event::End(call, _) = *event {
                pending.retain(|other| *other != call);
                taken &= !self.slots.get(call).map_or(0, |slot| bit(*slot));
            }
        }
    }

    fn run(&mut self) -> Found {
        if self.crowded {
            return Found::TooMuch;
        }
        let mut tried: HashSet<Node> = HashSet::new();
        let mut to_try =
            vec![Node { event: 0, configuration: Configuration { state: 0, linearized: 0 } }];
        let mut farthest = 0;
        while let Some(mut node) = to_try.pop() {
            let Some(returning) = self.advance(&mut node) else { return Found::Order };
            if !tried.insert(node) {
                continue;
            }
            if tried.len() > MAX_NODES {
                return Found::TooMuch;
            }
            farthest = farthest.max(node.event);
            self.branch(node, returning, &mut to_try);
        }
        let Some(Event::End(call, _)) = self.events.get(farthest as usize).copied() else {
            return Found::Order;
        };
        Found::None(Stuck { call, origin: self.last_origin(farthest as usize) })
    }

    /// Advances to the next return of a call that is not linearized, and returns that call; `None`
    /// at the end.
    fn advance(&mut self, node: &mut Node) -> Option<usize> {
        while let Some(event) = self.events.get(node.event as usize).copied() {
            self.visit(*node);
            match event {
                Event::Begin(call, _) => {
                    node.configuration = self.linearize_reads(node.configuration, &[call]);
                }
                Event::End(call, _) => {
                    let slot = self.slot(call);
                    if node.configuration.linearized & slot == 0 {
                        return Some(call);
                    }
                    node.configuration.linearized &= !slot;
                }
            }
            node.event += 1;
        }
        None
    }

    fn visit(&mut self, Node { event, configuration }: Node) {
        let Some(visited) = self.visited.get_mut(event as usize) else { return };
        if let Some(configurations) = visited
            && !configurations.contains(&configuration)
        {
            if configurations.len() == MAX_CONFIGURATIONS {
                *visited = None;
            } else {
                configurations.push(configuration);
            }
        }
    }

    /// The last origin before the event `end`. Prefers one after which some write still takes
    /// effect, so that the shrunk violation shows what led to it.
    fn last_origin(&mut self, end: usize) -> Option<Origin> {
        let done = (0..self.calls.len()).filter(|call| self.steps.says(*call) == Says::Done);
        let done: Vec<_> = done.collect();
        let mut best = None;
        for event in (0..end).rev() {
            let Some(Configuration { state, linearized }) = self.origin(event) else { continue };
            let past = self.past(event, linearized);
            let shows = done.iter().any(|call| !past.contains(call));
            if shows || best.is_none() {
                best = Some((state, past));
            }
            if shows {
                break;
            }
        }
        let (state, past) = best?;
        Some(Origin { state: self.steps.model(state)?.clone(), past })
    }

    /// The configuration at an event from which all others there follow by linearizing pending
    /// calls, if there is one.
    fn origin(&mut self, event: usize) -> Option<Configuration> {
        let configurations = self.visited.get(event)?.clone()?;
        let pending = self.pending.get(event).cloned().unwrap_or_default();
        let of = |says| {
            let those = pending.iter().filter(|call| self.steps.says(**call) == says);
            those.fold(0, |all, call| all | self.slot(*call))
        };
        let (reads, unknown) = (of(Says::Seen), of(Says::Perhaps));
        let origin = *configurations
            .iter()
            .min_by_key(|configuration| (configuration.linearized & !reads).count_ones())?;
        let mut reached = vec![origin];
        let mut next = 0;
        while let Some(configuration) = reached.get(next).copied() {
            next += 1;
            for call in &pending {
                let slot = self.slot(*call);
                if slot & (reads | configuration.linearized) != 0 {
                    continue;
                }
                let Some(state) = self.steps.step(configuration.state, *call) else { continue };
                let further = self.linearize_reads(
                    Configuration { state, linearized: configuration.linearized | slot },
                    &pending,
                );
                if reached.contains(&further) {
                    continue;
                }
                if reached.len() == MAX_CONFIGURATIONS {
                    return None;
                }
                reached.push(further);
            }
        }
        // Two configurations with the same state are compared. `one` is as good as `other` if they
        // differ in two ways only: `one` may have linearized more reads, and `other` may have used
        // up calls with unknown outcome that `one` still has.
        let as_good = |one: &Configuration, other: &Configuration| {
            one.state == other.state
                && one.linearized & !other.linearized & !reads == 0
                && other.linearized & !one.linearized & !unknown == 0
        };
        let all = configurations
            .iter()
            .all(|configuration| reached.iter().any(|one| as_good(one, configuration)));
        all.then_some(origin)
    }

    /// The calls that returned before this event, and the pending calls that are linearized.
    fn past(&self, event: usize, linearized: Slots) -> Vec<usize> {
        let ended = self.events.iter().take(event).filter_map(|event| match event {
            Event::End(call, _) => Some(*call),
            Event::Begin(..) => None,
        });
        let pending = self.pending.get(event).into_iter().flatten().copied();
        ended.chain(pending.filter(|call| linearized & self.slot(*call) != 0)).collect()
    }

    /// Adds a node for each write that can be linearized next, before `returning` returns.
    fn branch(&mut self, node: Node, returning: usize, to_try: &mut Vec<Node>) {
        let mut candidates = self.candidates(node, returning);
        // The node that is added last is tried first: `returning`, then writes that return later,
        // then writes with unknown outcome.
        candidates.sort_by_key(|call| {
            let ends = self.calls.get(*call).and_then(|t| t.call.ended.as_ref()).map(|(at, _)| *at);
            let sure = self.steps.says(*call) == Says::Done;
            (sure, std::cmp::Reverse(ends))
        });
        let pending = self.pending.get(node.event as usize).cloned().unwrap_or_default();
        for call in candidates {
            let Some(state) = self.steps.step(node.configuration.state, call) else { continue };
            let configuration = Configuration {
                state,
                linearized: node.configuration.linearized | self.slot(call),
            };
            to_try.push(Node {
                configuration: self.linearize_reads(configuration, &pending),
                ..node
            });
        }
    }

    /// Linearizes the pending calls that changed nothing and whose answers fit the current state.
    fn linearize_reads(
        &mut self,
        mut configuration: Configuration,
        pending: &[usize],
    ) -> Configuration {
        for call in pending {
            let slot = self.slot(*call);
            if self.steps.says(*call) == Says::Seen
                && configuration.linearized & slot == 0
                && self.steps.step(configuration.state, *call).is_some()
            {
                configuration.linearized |= slot;
            }
        }
        configuration
    }

    /// The pending writes, not linearized yet, that share an object with `returning`, directly or
    /// through other pending calls; `returning` itself included, if it is a write.
    fn candidates(&self, node: Node, returning: usize) -> Vec<usize> {
        let pending = self.pending.get(node.event as usize).map_or(&[][..], Vec::as_slice);
        let mut left: Vec<_> = pending
            .iter()
            .copied()
            .filter(|call| node.configuration.linearized & self.slot(*call) == 0)
            .collect();
        let objects = |call: usize| self.calls.get(call).map_or(0, |touching| touching.objects);
        let mut touched = objects(returning);
        let mut candidates = Vec::new();
        loop {
            let before = candidates.len();
            candidates.extend(left.extract_if(.., |call| objects(*call) & touched != 0));
            if candidates.len() == before {
                break;
            }
            touched = candidates.iter().fold(touched, |all, call| all | objects(*call));
        }
        candidates.retain(|call| self.steps.says(*call) != Says::Seen);
        candidates
    }

    fn slot(&self, call: usize) -> Slots {
        self.slots.get(call).map_or(0, |slot| bit(*slot))
    }
}

fn bit(slot: u32) -> Slots {
    1_u128.checked_shl(slot).unwrap_or(0)
}
