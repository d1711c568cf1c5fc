//! Calls that read several buckets, against two barriers and bare reads of the same records.

use std::sync::Arc;
use std::time::Duration;

use membership::{Page, Store};
use tokio::runtime::Runtime;

use crate::jetstream::Servers;
use crate::jetstream::bare::Bare;
use crate::jetstream::rekeys::BIG;
use crate::measure::{Limit, Row, each};
use crate::world::{owner, room_id};

const CALLS: u32 = 200;
const PAGES: u32 = 10;

/// The same reads, made through the store and through a bare client.
struct Calls<'a> {
    runtime: &'a Runtime,
    store: &'a Arc<dyn Store>,
    bare: &'a Bare,
}

pub(super) fn rows(servers: &Servers<'_>, bare: &Bare) -> Vec<Row> {
    let Servers { runtime, name, large: store, .. } = servers;
    let calls = Calls { runtime, store, bare };
    vec![
        calls.row(name, "room", Calls::room, Calls::bare_room),
        calls.row(name, "latest_key", Calls::latest_key, Calls::bare_latest_key),
        calls.row(name, "members, a page of 1,000", Calls::members, Calls::bare_members),
    ]
}

impl Calls<'_> {
    fn row(
        &self,
        name: &str,
        what: &str,
        ours: fn(&Self) -> Duration,
        bare: fn(&Self) -> Duration,
    ) -> Row {
        Row::cost(
            &format!("{name} {what}"),
            "2 x acknowledged publish + bare read",
            // The floor includes the two barriers of a call.
            Limit::AtMost(1.0),
            15,
            || ours(self),
            || 2 * self.publishes() + bare(self),
        )
    }

    fn publishes(&self) -> Duration {
        self.each(CALLS, async |_| self.bare.publish("members").await)
    }

    fn room(&self) -> Duration {
        self.each(CALLS, async |number| {
            let id = room_id(number);
            assert_eq!(self.store.room(&id).await.unwrap().id, id);
        })
    }

    /// Reads both records at once, which is the best that the store could do.
    fn bare_room(&self) -> Duration {
        self.each(CALLS, async |number| {
            let id = room_id(number);
            let found = tokio::join!(
                self.bare.read("rooms", vec![id.to_string()]),
                self.bare.read("members", vec![format!("{id}.*.=h")]),
            );
            assert_eq!(found, (1, 1));
        })
    }

    fn latest_key(&self) -> Duration {
        self.each(CALLS, async |number| {
            let who = owner(number);
            self.store.latest_key(&room_id(number), &who).await.unwrap();
        })
    }

    fn bare_latest_key(&self) -> Duration {
        self.each(CALLS, async |number| {
            let (id, who) = (room_id(number), owner(number));
            let (head, member) = (format!("{id}.*.=h"), format!("{id}.*.*.*.*.{who}"));
            let found = tokio::join!(
                self.bare.read("rooms", vec![id.to_string()]),
                self.bare.read("members", vec![head, member]),
                self.bare.read("room_keys", vec![format!("{id}.*.{who}.1.*")]),
            );
            assert_eq!(found, (1, 2, 1));
        })
    }

    fn members(&self) -> Duration {
        let room = "big".parse().unwrap();
        self.each(PAGES, async |_| {
            let page = self.store.members(&room, Page::first()).await.unwrap();
            assert_eq!(page.len(), BIG as usize);
        })
    }

    fn bare_members(&self) -> Duration {
        self.each(PAGES, async |_| {
            let found = tokio::join!(
                self.bare.read("rooms", vec!["big".to_owned()]),
                self.bare.read("members", vec!["big.*.=h".to_owned(), "big.*.*.*.*.*".to_owned()]),
            );
            assert_eq!(found, (1, BIG as usize + 1));
        })
    }

    fn each(&self, count: u32, call: impl AsyncFn(u32)) -> Duration {
        each(count, || {
            self.runtime.block_on(async {
                for number in 0..count {
                    call(number).await;
                }
            });
        })
    }
}
