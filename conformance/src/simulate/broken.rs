//! Clients with a defect on purpose, for simulated servers alone: it shows in moments that real
//! ones seldom give.

use std::time::Duration;

use membership::JetStreamDefect::{
    self, BelievesRefusedFirsts, CollectsWhatIsUnderWay, CountsFirst, IgnoresGaps, RepeatsInDoubt,
    SingleCollect,
};
use membership::{Blow, Weather};

use super::plan::Plan;
use super::world::{play_plan, shown};
use crate::history::{Mix, check};

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
    mix: Mix,
    weather: Weather,
    /// Whether servers are cut off, one after the other.
    cuts: bool,
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
            mix: Mix::Lists,
            weather: lossy,
            cuts: false,
        },
        Broken {
            name: "simulated_collects_what_is_under_way",
            clause: "LIST-4",
            what: "a listing collects the index entry of a member who is being added",
            defect: CollectsWhatIsUnderWay,
            mix: Mix::Lists,
            weather: lossy,
            cuts: false,
        },
        Broken {
            name: "simulated_repeats_in_doubt",
            clause: "ERR-2",
            what: "sends again what was not answered, and believes the refusal",
            defect: RepeatsInDoubt,
            mix: Mix::Rooms,
            weather: Weather { lost_answers: 100, ..calm },
            cuts: false,
        },
        Broken {
            name: "simulated_counts_first",
            clause: "LIST-4",
            what: "an index entry may come to stand after the counter that announces it",
            defect: CountsFirst,
            mix: Mix::Lists,
            weather: lossy,
            cuts: false,
        },
        Broken {
            name: "simulated_believes_refused_firsts",
            clause: "ROOM-1",
            what: "takes the refusal of a room's first records for a copy that is there",
            defect: BelievesRefusedFirsts,
            mix: Mix::Rooms,
            weather: Weather::CALM,
            cuts: true,
        },
        Broken {
            name: "simulated_ignores_gaps",
            clause: "AUTH-3",
            what: "takes any delivery of the feed for the next one",
            defect: IgnoresGaps,
            mix: Mix::Users,
            weather: Weather { feed_faults: 100, ..calm },
            cuts: false,
        },
    ]
}

impl Broken {
    /// The first history from that of `seed` on that no order explains, by its seed, and why;
    /// `None` when it gets through as many as are enough.
    #[must_use]
    pub fn hunt(&self, seed: u64) -> Option<(u64, String)> {
        (0..ENOUGH).find_map(|number| {
            let seed = seed.wrapping_add(number);
            let played = play_plan(&self.plan(), seed, false);
            check(&played.history).err().map(|violation| (seed, shown(&violation)))
        })
    }

    /// What nothing is wrong with but the defect.
    fn plan(&self) -> Plan {
        let after = |n| Duration::from_millis(700 * n);
        let cut =
            |n: u64| (after(2 * n), Blow::Isolate(usize::try_from(n % 3).unwrap_or_default()));
        let cuts = (0..20).flat_map(|n| [cut(n), (after(2 * n + 1), Blow::Join)]);
        Plan {
            servers: 3,
            clients: if self.mix == Mix::Lists { 6 } else { 4 },
            calls: if self.mix == Mix::Lists { 30 } else { 14 },
            mix: self.mix,
            weather: self.weather,
            blows: if self.cuts { cuts.collect() } else { Vec::new() },
            crashes: 0,
            drops: 0,
            pace: if self.cuts { 400 } else { 2 },
            defect: Some(self.defect),
        }
    }

    /// The same servers and calls, with clients that are sound.
    #[must_use]
    pub fn control(&self) -> Plan {
        Plan { defect: None, ..self.plan() }
    }
}
