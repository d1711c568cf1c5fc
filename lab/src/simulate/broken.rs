//! Clients that are broken on purpose, for simulated servers only.
//!
//! Their defects show at moments that are rare with real servers.

use std::time::Duration;

use membership::JetStreamDefect::{
    self, BelievesGaps, BelievesRefusedFirsts, CollectsWhatIsUnderWay, CountsFirst, EndsHeadsLater,
    IgnoresGaps, IgnoresVersions, KeepsCollectedKeys, RemovesHeads, RepeatsInDoubt, SingleCollect,
    StopsItsClock,
};
use membership::{Blow, Weather};

use super::pause;
use super::plan::Plan;
use super::world::{play_plan, shown};
use membership_conformance::history::{Mix, check};

use Shows::{InHistories, OnOlderServers, WhenHeld, WhenSuspended};

/// A client with one defect.
#[derive(Clone, Copy, Debug)]
pub struct Broken {
    /// The client's unique name, which says what is wrong.
    pub name: &'static str,
    /// The clause that the client breaks.
    pub clause: &'static str,
    /// What the client does wrong, as a sentence without its subject: the client.
    pub what: &'static str,
    defect: JetStreamDefect,
    shows: Shows,
}

/// Where a defect shows.
#[derive(Clone, Copy, Debug)]
enum Shows {
    /// The defect shows in random histories. With `cuts`, servers are cut off one after the other.
    InHistories { mix: Mix, weather: Weather, cuts: bool },
    /// The defect shows in random histories during which older servers replace the servers for a
    /// while.
    OnOlderServers,
    /// The defect shows in random histories of bounded-staleness decisions, while the clients'
    /// machine is suspended.
    WhenSuspended,
    /// The defect shows if a call is held before one of its exchanges: most likely the call of this
    /// name.
    WhenHeld(&'static str),
}

/// How a client was caught.
#[derive(Clone, Debug)]
pub struct Catch {
    /// What caught the client, in words.
    pub by: String,
    /// What was wrong with the answers.
    pub problem: String,
}

/// With this many histories, a client whose defect shows in histories is certainly caught.
pub const ENOUGH: u64 = 600;

/// Every broken client.
#[must_use]
#[expect(clippy::too_many_lines, reason = "a list")]
pub fn all() -> Vec<Broken> {
    let calm = Weather { latency: 20, ..Weather::CALM };
    let lossy = Weather { lost_requests: 150, ..calm };
    vec![
        broken(
            "simulated_single_collect",
            "LIST-2",
            "does not check in rooms_of that what it read still holds",
            SingleCollect,
            InHistories { mix: Mix::Lists, weather: lossy, cuts: false },
        ),
        broken(
            "simulated_collects_what_is_under_way",
            "LIST-4",
            "collects the index entry of a member whose addition is in flight",
            CollectsWhatIsUnderWay,
            InHistories { mix: Mix::Lists, weather: lossy, cuts: false },
        ),
        broken(
            "simulated_repeats_in_doubt",
            "ERR-2",
            "repeats a write that got no answer, and believes the refusal",
            RepeatsInDoubt,
            InHistories {
                mix: Mix::Rooms,
                weather: Weather { lost_answers: 100, ..calm },
                cuts: false,
            },
        ),
        broken(
            "simulated_counts_first",
            "LIST-4",
            "stores an index entry after the counter that announces it",
            CountsFirst,
            WhenHeld("add"),
        ),
        broken(
            "simulated_believes_refused_firsts",
            "ROOM-1",
            "takes the refusal of a room's first records for a sign that they are stored",
            BelievesRefusedFirsts,
            InHistories {
                mix: Mix::Rooms,
                weather: Weather { lost_requests: 100, ..Weather::CALM },
                cuts: true,
            },
        ),
        broken(
            "simulated_ignores_gaps",
            "AUTH-3",
            "ignores gaps in the feed of its copy of users",
            IgnoresGaps,
            InHistories {
                mix: Mix::Users,
                weather: Weather { feed_faults: 100, ..calm },
                cuts: false,
            },
        ),
        broken(
            "simulated_believes_gaps",
            "LIN-1",
            "treats a user whom its copy of users lacks as unknown",
            BelievesGaps,
            InHistories {
                mix: Mix::Users,
                weather: Weather { feed_faults: 100, ..calm },
                cuts: false,
            },
        ),
        broken(
            "simulated_keeps_collected_keys",
            "KEY-1",
            "commits a rekey with a key that was collected when its member left",
            KeepsCollectedKeys,
            WhenHeld("rekey"),
        ),
        broken(
            "simulated_removes_heads",
            "LIN-1",
            "purges a deleted room's head without a tombstone, so that a killed server brings it back",
            RemovesHeads,
            WhenHeld("room"),
        ),
        broken(
            "simulated_ends_heads_later",
            "LIN-1",
            "answers that a room is deleted before its head is marked deleted",
            EndsHeadsLater,
            WhenHeld("delete"),
        ),
        broken(
            "simulated_ignores_versions",
            "PAST-4",
            "goes on with older servers, which make half of a change",
            IgnoresVersions,
            OnOlderServers,
        ),
        broken(
            "simulated_stops_its_clock",
            "TIME-3",
            "measures the staleness bound with a clock that stands still in suspension",
            StopsItsClock,
            WhenSuspended,
        ),
    ]
}

fn broken(
    name: &'static str,
    clause: &'static str,
    what: &'static str,
    defect: JetStreamDefect,
    shows: Shows,
) -> Broken {
    Broken { name, clause, what, defect, shows }
}

impl Broken {
    /// Plays histories of `seed` and the following seeds, or holds calls, until one is wrong.
    ///
    /// Returns `None` if [`ENOUGH`] histories, or all calls that are held, are right.
    #[must_use]
    pub fn hunt(&self, seed: u64) -> Option<Catch> {
        if let WhenHeld(call) = self.shows {
            return self.hunt_held(call, seed);
        }
        let plan = self.plan()?;
        (0..ENOUGH).find_map(|number| {
            let seed = seed.wrapping_add(number);
            let played = play_plan(&plan, seed, false);
            let problem = match self.shows {
                WhenSuspended => played.problem?,
                _ => shown(check(&played.history).err()?.as_ref()),
            };
            Some(Catch { by: format!("a simulated history, {seed:#x}"), problem })
        })
    }

    /// Holds calls until one goes wrong.
    ///
    /// Calls named `likely` come before the others, with eight seeds each, since the seed
    /// determines what a killed server forgets.
    fn hunt_held(&self, likely: &str, seed: u64) -> Option<Catch> {
        let (first, rest): (Vec<_>, Vec<_>) =
            pause::pairs().into_iter().partition(|(call, _)| call.name == likely);
        let hold_all = |pairs: &[_], seed| {
            pairs.iter().try_for_each(|(call, ops)| {
                pause::hold_everywhere(call, ops, Some(self.defect), seed).map(drop)
            })
        };
        let outcome = pause::hold_a_move(Some(self.defect), seed)
            .and_then(|_| pause::hold_a_deletion(Some(self.defect), seed))
            .and_then(|_| (seed..seed + 8).try_for_each(|seed| hold_all(&first, seed)))
            .and_then(|()| hold_all(&rest, seed));
        outcome.err().map(|problem| Catch { by: "a call that is held".to_owned(), problem })
    }

    /// The plan whose histories show the defect; `None` if the defect shows when a call is held.
    fn plan(&self) -> Option<Plan> {
        let calm = Weather { latency: 20, ..Weather::CALM };
        let after = |n: u64| Duration::from_millis(300 * n);
        match self.shows {
            WhenHeld(_) => None,
            InHistories { mix, weather, cuts } => Some(self.plan_of(mix, weather, cuts)),
            OnOlderServers => Some(Plan {
                blows: vec![(after(1), Blow::Downgrade), (after(9), Blow::Upgrade)],
                ..self.plan_of(Mix::Rooms, calm, false)
            }),
            WhenSuspended => Some(Plan {
                blows: (1..9).map(|n| (after(n), Blow::Suspend(700))).collect(),
                bound: Some(Duration::from_millis(600)),
                ..self.plan_of(Mix::Users, calm, false)
            }),
        }
    }

    fn plan_of(&self, mix: Mix, weather: Weather, cuts: bool) -> Plan {
        let after = |n| Duration::from_millis(700 * n);
        let cut =
            |n: u64| (after(2 * n), Blow::Isolate(usize::try_from(n % 3).unwrap_or_default()));
        let blows = (0..20).flat_map(|n| [cut(n), (after(2 * n + 1), Blow::Join)]);
        let (clients, calls) = match mix {
            _ if cuts => (8, 30),
            Mix::Lists => (6, 30),
            _ => (4, 14),
        };
        Plan {
            servers: 3,
            clients,
            calls,
            mix,
            weather,
            blows: if cuts { blows.collect() } else { Vec::new() },
            crashes: 0,
            drops: 0,
            pace: if cuts { 400 } else { 2 },
            back: None,
            bound: None,
            defect: Some(self.defect),
        }
    }

    /// The same plan with sound clients; `None` for a defect that shows when a call is held.
    ///
    /// All histories of this plan must be right.
    #[must_use]
    pub fn control(&self) -> Option<Plan> {
        Some(Plan { defect: None, ..self.plan()? })
    }
}
