//! The time that a page takes, in a small store and in a large one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use membership::{Page, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{endpoint, joins, page, plain, room, user, user_number};
use crate::together::together;
use crate::verdict::{Failure, Verdict, same};

declare! { "time";
    a_page_costs_the_same_in_a_larger_store: "LIST-5";
}

/// About how many records a page has.
const PAGE: u64 = 20;
/// How many times larger the large store is than the small one, if calls are fast.
const TIMES: u64 = 200;
/// How many times longer a page may take in the large store: search trees are a step or two deeper.
const RATIO: u32 = 4;
/// The accuracy with which a call of a few microseconds is measured.
const BLUR: Duration = Duration::from_micros(30);

/// Adds the rooms and users with these numbers. None is on a page of ann's rooms or of r's members.
async fn fill(store: &Arc<dyn Store>, numbers: std::ops::Range<u64>) -> Verdict {
    let filling = numbers.map(|number| {
        let store = Arc::clone(store);
        async move {
            let id = format!("room {number:06}");
            store.create_room(plain(&id, &format!("owner {number:06}"))).await?;
            store.add_user(user(user_number(number))).await?;
            Ok(())
        }
    });
    together(filling).await.map(drop)
}

/// How long a page of each listing takes: the best of three medians.
///
/// An empty page is measured, too: a search through all records shows best in it.
async fn measure(store: &dyn Store) -> Verdict<[(&'static str, Duration); 4]> {
    let mut best = ["members", "rooms_of", "users", "no rooms"].map(|name| (name, Duration::MAX));
    let nobody = endpoint("nobody");
    let (r, ann) = (room("r"), endpoint("ann"));
    let size = usize::try_from(PAGE).unwrap_or_default();
    for _ in 0..3 {
        let mut took = [(); 4].map(|()| Vec::new());
        for _ in 0..31 {
            let began = Instant::now();
            let members = store.members(&r, Page::first()).await?.len();
            let members_took = began.elapsed();
            let began = Instant::now();
            let rooms = store.rooms_of(&ann, Page::first()).await?.len();
            let rooms_took = began.elapsed();
            let began = Instant::now();
            let users = store.users(page(Some(user_number(3)), size)).await?.len();
            let users_took = began.elapsed();
            let began = Instant::now();
            let none = store.rooms_of(&nobody, Page::first()).await?.len();
            let none_took = began.elapsed();
            same(vec![members, rooms, users, none], vec![size + 1, size + 1, size, 0])?;
            let each = [members_took, rooms_took, users_took, none_took];
            for (all, one) in took.iter_mut().zip(each) {
                all.push(one);
            }
        }
        for ((_, best), mut all) in best.iter_mut().zip(took) {
            all.sort_unstable();
            *best = all.get(all.len() / 2).copied().unwrap_or_default().min(*best);
        }
    }
    Ok(best)
}

async fn a_page_costs_the_same_in_a_larger_store(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    store.create_room(plain("r", "ann")).await?;
    for number in 0..PAGE {
        store.add_member(&room("r"), joins(&format!("e{number}"))).await?;
        store.create_room(plain(&format!("of ann {number}"), "ann")).await?;
    }
    fill(&store, 0..2 * PAGE).await?;
    let small = measure(&*store).await?;
    // A search through all records shows in a store of thousands. A slow target would take long to
    // fill one, so its large store is smaller.
    let times = if cx.target().pace() == 1 { TIMES } else { cx.rounds(TIMES / 2) };
    fill(&store, 2 * PAGE..2 * PAGE * times).await?;
    let large = measure(&*store).await?;
    for ((listing, before), (_, after)) in small.into_iter().zip(large) {
        if after > before * RATIO + BLUR {
            let expected = format!("a page of {listing} to take little longer than {before:?}");
            let got = format!("{after:?} in a store {times} times the size");
            return Err(Failure::new(expected, got));
        }
    }
    Ok(())
}
