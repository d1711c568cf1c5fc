//! Clients with a defect on purpose, for simulated servers alone: it shows in moments that real
//! ones seldom give.

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

/// A client with a defect.
#[derive(Clone, Copy, Debug)]
pub struct Broken {
    /// What is wrong with it, as a short name.
    pub name: &'static str,
    /// The clause it breaks.
    pub clause: &'static str,
    /// What it does, in words.
    pub what: &'static str,
    defect: JetStreamDefect,
    shows: Shows,
}

/// Where a defect shows.
#[derive(Clone, Copy, Debug)]
enum Shows {
    /// In random histories; with `cuts` servers are cut off meanwhile, one after the other.
    InHistories { mix: Mix, weather: Weather, cuts: bool },
    /// In random histories. Partway, servers of an older version replace the servers.
    OnOlderServers,
    /// In random histories of bounded-staleness decisions, while the clients' machine is suspended repeatedly.
    WhenSuspended,
    /// When a call is held, most likely the one of this name.
    WhenHeld(&'static str),
}

/// How a client was caught.
#[derive(Clone, Debug)]
pub struct Catch {
    /// By what, in words.
    pub by: String,
    /// What was wrong.
    pub problem: String,
}

/// So many histories are enough to catch any of them.
pub const ENOUGH: u64 = 600;

/// Every one of them.
#[must_use]
#[expect(clippy::too_many_lines, reason = "a list")]
pub fn all() -> Vec<Broken> {
    let calm = Weather { latency: 20, ..Weather::CALM };
    let lossy = Weather { lost_requests: 150, ..calm };
    vec![
        broken(
            "simulated_single_collect",
            "LIST-2",
            "rooms_of does not look a second time",
            SingleCollect,
            InHistories { mix: Mix::Lists, weather: lossy, cuts: false },
        ),
        broken(
            "simulated_collects_what_is_under_way",
            "LIST-4",
            "a listing collects the index entry of a member who is being added",
            CollectsWhatIsUnderWay,
            InHistories { mix: Mix::Lists, weather: lossy, cuts: false },
        ),
        broken(
            "simulated_repeats_in_doubt",
            "ERR-2",
            "sends again what was not answered, and believes the refusal",
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
            "an index entry comes to stand after the counter that announces it",
            CountsFirst,
            WhenHeld("add"),
        ),
        broken(
            "simulated_believes_refused_firsts",
            "ROOM-1",
            "takes the refusal of a room's first records for a copy that is there",
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
            "takes any delivery of the feed for the next one",
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
            "takes whom its copy of the users lacks for unknown",
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
            "a rekey names a key that was collected when its member went, who came back",
            KeepsCollectedKeys,
            WhenHeld("rekey"),
        ),
        broken(
            "simulated_removes_heads",
            "LIN-1",
            "a deleted room is shown as it once was when the server was killed soon after",
            RemovesHeads,
            WhenHeld("room"),
        ),
        broken(
            "simulated_ends_heads_later",
            "LIN-1",
            "answers that a room is deleted before those with an old record of it can know",
            EndsHeadsLater,
            WhenHeld("delete"),
        ),
        broken(
            "simulated_ignores_versions",
            "PAST-4",
            "goes on where older servers take over, which make half of a change",
            IgnoresVersions,
            OnOlderServers,
        ),
        broken(
            "simulated_stops_its_clock",
            "TIME-3",
            "keeps its bound by a clock that stands still while the machine is suspended",
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
    /// The first history from that of `seed` on that no order explains, or the first call that is held
    /// and goes wrong; `None` when it gets through as many as are enough.
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

    /// The first call that is held and goes wrong, those named `likely` before the others, and with more
    /// seeds: what a killed server forgets is left to chance.
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

    /// The plan whose histories show the defect; `None` for a defect that shows when a call is held.
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

    /// The same servers and calls, with clients that are sound; `None` where it is calls that are held.
    #[must_use]
    pub fn control(&self) -> Option<Plan> {
        Some(Plan { defect: None, ..self.plan()? })
    }
}
