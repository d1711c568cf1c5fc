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
use crate::history::{Mix, check};

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
    /// In random histories in which older servers take over.
    OnOlderServers,
    /// In random histories of decisions from memory, on a machine that is suspended now and then.
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
pub fn all() -> Vec<Broken> {
    let calm = Weather { latency: 20, ..Weather::CALM };
    let lossy = Weather { lost_requests: 150, ..calm };
    vec![
        Broken {
            name: "simulated_single_collect",
            clause: "LIST-2",
            what: "rooms_of does not look a second time",
            defect: SingleCollect,
            shows: InHistories { mix: Mix::Lists, weather: lossy, cuts: false },
        },
        Broken {
            name: "simulated_collects_what_is_under_way",
            clause: "LIST-4",
            what: "a listing collects the index entry of a member who is being added",
            defect: CollectsWhatIsUnderWay,
            shows: InHistories { mix: Mix::Lists, weather: lossy, cuts: false },
        },
        Broken {
            name: "simulated_repeats_in_doubt",
            clause: "ERR-2",
            what: "sends again what was not answered, and believes the refusal",
            defect: RepeatsInDoubt,
            shows: InHistories {
                mix: Mix::Rooms,
                weather: Weather { lost_answers: 100, ..calm },
                cuts: false,
            },
        },
        Broken {
            name: "simulated_counts_first",
            clause: "LIST-4",
            what: "an index entry comes to stand after the counter that announces it",
            defect: CountsFirst,
            shows: WhenHeld("add"),
        },
        Broken {
            name: "simulated_believes_refused_firsts",
            clause: "ROOM-1",
            what: "takes the refusal of a room's first records for a copy that is there",
            defect: BelievesRefusedFirsts,
            shows: InHistories {
                mix: Mix::Rooms,
                weather: Weather { lost_requests: 100, ..Weather::CALM },
                cuts: true,
            },
        },
        Broken {
            name: "simulated_ignores_gaps",
            clause: "AUTH-3",
            what: "takes any delivery of the feed for the next one",
            defect: IgnoresGaps,
            shows: InHistories {
                mix: Mix::Users,
                weather: Weather { feed_faults: 100, ..calm },
                cuts: false,
            },
        },
        Broken {
            name: "simulated_believes_gaps",
            clause: "LIN-1",
            what: "takes whom its copy of the users lacks for unknown",
            defect: BelievesGaps,
            shows: InHistories {
                mix: Mix::Users,
                weather: Weather { feed_faults: 100, ..calm },
                cuts: false,
            },
        },
        Broken {
            name: "simulated_keeps_collected_keys",
            clause: "KEY-1",
            what: "a rekey names a key that was collected when its member went, who came back",
            defect: KeepsCollectedKeys,
            shows: WhenHeld("rekey"),
        },
        Broken {
            name: "simulated_removes_heads",
            clause: "LIN-1",
            what: "a deleted room is shown as it once was when the server was killed soon after",
            defect: RemovesHeads,
            shows: WhenHeld("room"),
        },
        Broken {
            name: "simulated_ends_heads_later",
            clause: "LIN-1",
            what: "answers that a room is deleted before those with an old record of it can know",
            defect: EndsHeadsLater,
            shows: WhenHeld("delete"),
        },
        Broken {
            name: "simulated_ignores_versions",
            clause: "PAST-4",
            what: "goes on where older servers take over, which make half of a change",
            defect: IgnoresVersions,
            shows: OnOlderServers,
        },
        Broken {
            name: "simulated_stops_its_clock",
            clause: "TIME-3",
            what: "keeps its bound by a clock that stands still while the machine is suspended",
            defect: StopsItsClock,
            shows: WhenSuspended,
        },
    ]
}

impl Broken {
    /// The first history from that of `seed` on that no order explains, or the first call that is held
    /// and goes wrong; `None` when it gets through as many as are enough.
    #[must_use]
    pub fn hunt(&self, seed: u64) -> Option<Catch> {
        let plan = match self.shows {
            WhenHeld(call) => return self.hunt_held(call, seed),
            InHistories { .. } | OnOlderServers | WhenSuspended => self.plan()?,
        };
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

    /// What nothing is wrong with but the defect; `None` where it is calls that are held.
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
