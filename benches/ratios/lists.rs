//! Pages of lists: a page must cost what it returns, not what the store holds (clause LIST-5).

use std::sync::Arc;
use std::time::Duration;

use membership::{Page, Store};
use tokio::runtime::Runtime;

use crate::measure::{Limit, Row, each};
use crate::world::{owner, room_id};

/// Compares two stores with 1,000 and 10,000 rooms, both with a room "big" of 1,000 members. A
/// round reads `pages` pages.
pub(crate) fn rows(
    runtime: &Runtime,
    name: &str,
    pages: u32,
    small: &Arc<dyn Store>,
    large: &Arc<dyn Store>,
) -> Vec<Row> {
    let compare = |what: &str, page: fn(&Runtime, &Arc<dyn Store>, u32) -> Duration| {
        Row::cost(
            &format!("{name} {what}, 10,000 rooms"),
            "the same, 1,000 rooms",
            Limit::AtMost(1.5),
            15,
            || page(runtime, large, pages),
            || page(runtime, small, pages),
        )
    };
    vec![
        compare("members, a page of 1,000", members),
        compare("rooms_of an endpoint in one room", rooms_of),
    ]
}

fn members(runtime: &Runtime, store: &Arc<dyn Store>, pages: u32) -> Duration {
    let room = "big".parse().unwrap();
    each(pages, || {
        runtime.block_on(async {
            for _ in 0..pages {
                let page = store.members(&room, Page::first()).await.unwrap();
                assert_eq!(page.len(), 1_000);
            }
        });
    })
}

fn rooms_of(runtime: &Runtime, store: &Arc<dyn Store>, pages: u32) -> Duration {
    each(pages * 10, || {
        runtime.block_on(async {
            for number in 0..pages * 10 {
                let who = owner(number);
                let page = store.rooms_of(&who, Page::first()).await.unwrap();
                assert_eq!(page.first().unwrap().id, room_id(number));
            }
        });
    })
}
