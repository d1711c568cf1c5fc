//! A page costs what it returns, not what the store holds (clause LIST-5).

use std::sync::Arc;
use std::time::Duration;

use membership::{Page, SqliteOptions, Store};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::measure::{Limit, Row, each};
use crate::sqlite::open;
use crate::world::{ROOMS, big_room, endpoint, fill_rooms, room_id};

const PAGES: u32 = 50;

pub(crate) fn rows(runtime: &Runtime) -> Vec<Row> {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = |name: &str, rooms: u32| {
        let store = open(runtime, &folder.path().join(name), SqliteOptions::new());
        fill_rooms(runtime, &store, 0..rooms);
        // Both have one room of 1,000 members.
        big_room(runtime, &store, "big", 1_000);
        store
    };
    let (small, large) = (store("small.db", ROOMS / 10), store("large.db", ROOMS));
    let rows = vec![
        compare(runtime, "members, a page of 1,000", &small, &large, members),
        compare(runtime, "rooms_of an endpoint in one room", &small, &large, rooms_of),
    ];
    runtime.block_on(async {
        small.close().await.unwrap();
        large.close().await.unwrap();
    });
    rows
}

fn compare(
    runtime: &Runtime,
    what: &str,
    small: &Arc<dyn Store>,
    large: &Arc<dyn Store>,
    page: fn(&Runtime, &Arc<dyn Store>) -> Duration,
) -> Row {
    Row::cost(
        &format!("sqlite {what}, 10,000 rooms"),
        "the same, 1,000 rooms",
        Limit::AtMost(1.5),
        15,
        || page(runtime, large),
        || page(runtime, small),
    )
}

fn members(runtime: &Runtime, store: &Arc<dyn Store>) -> Duration {
    let room = "big".parse().unwrap();
    each(PAGES, || {
        for _ in 0..PAGES {
            let page = runtime.block_on(store.members(&room, Page::first())).unwrap();
            assert_eq!(page.len(), 1_000);
        }
    })
}

fn rooms_of(runtime: &Runtime, store: &Arc<dyn Store>) -> Duration {
    each(PAGES * 10, || {
        for number in 0..PAGES * 10 {
            let who = endpoint(1_000_000 + number);
            let page = runtime.block_on(store.rooms_of(&who, Page::first())).unwrap();
            assert_eq!(page.first().unwrap().id, room_id(number));
        }
    })
}
