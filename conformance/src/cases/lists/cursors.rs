//! Pages of every size, after ids of every kind.

use std::sync::Arc;

use membership::{Page, Store};
use rand::RngExt;

use crate::case::declare;
use crate::context::Cx;
use crate::make::{at, endpoint, joins, page, plain, room, user, user_number};
use crate::together::together;
use crate::verdict::{Verdict, same};

declare! { "lists";
    a_page_may_begin_after_a_revoked_or_removed_record: "LIST-1" "USER-5";
    a_full_page_holds_exactly_as_many_records_as_its_limit: "LIST-1";
}

/// The numbers of the users, members and rooms that are revoked, removed and deleted.
const LEFT: [u64; 4] = [0, 3, 4, 9];

async fn a_page_may_begin_after_a_revoked_or_removed_record(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.create_room(plain("r", "a")).await?;
    let name = |number: u64| format!("m{number}");
    for number in 0..10 {
        store.add_user(user(user_number(number))).await?;
        store.add_member(&room("r"), joins(&name(number))).await?;
        store.create_room(plain(&name(number), "ann")).await?;
    }
    for number in LEFT {
        store.revoke_user(&user_number(number), at(3)).await?;
        store.remove_member(&room("r"), &endpoint(&name(number))).await?;
        store.delete_room(&room(&name(number))).await?;
    }
    for after in 0..10 {
        for limit in [1, 2, 3, 1000] {
            let users = store.users(page(Some(user_number(after)), limit)).await?;
            let users: Vec<_> = users.into_iter().map(|user| user.key).collect();
            let expected: Vec<_> = (after + 1..10).map(user_number).take(limit).collect();
            same(users, expected)?;
            let stay = (after + 1..10).filter(|number| !LEFT.contains(number)).map(name);
            let stay: Vec<_> = stay.take(limit).collect();
            let members =
                store.members(&room("r"), page(Some(endpoint(&name(after))), limit)).await?;
            let members: Vec<_> = members.into_iter().map(|member| member.endpoint).collect();
            same(members, stay.iter().map(|who| endpoint(who)).collect())?;
            let rooms =
                store.rooms_of(&endpoint("ann"), page(Some(room(&name(after))), limit)).await?;
            let rooms: Vec<_> = rooms.into_iter().map(|room| room.id).collect();
            same(rooms, stay.iter().map(|id| room(id)).collect())?;
        }
    }
    Ok(())
}

/// Tries every limit, or on a slow target limits drawn from the seed.
async fn a_full_page_holds_exactly_as_many_records_as_its_limit(cx: Cx) -> Verdict {
    const RECORDS: u64 = 1_010;
    let store = cx.open().await?.unrecorded();
    store.create_room(plain("r", "a")).await?;
    let name = |number: u64| format!("m{number:04}");
    let filling = (0..RECORDS).map(|number| {
        let store = Arc::clone(&store);
        async move {
            store.add_user(user(user_number(number))).await?;
            store.add_member(&room("r"), joins(&name(number))).await?;
            store.create_room(plain(&name(number), "ann")).await?;
            Ok(())
        }
    });
    together(filling).await?;
    let mut rng = cx.rng(0);
    let every = cx.target().pace() == 1;
    let drawn = (0..cx.rounds(600)).map(|_| rng.random_range(1..=1_000));
    let limits: Vec<usize> = if every { (1..=1_000).collect() } else { drawn.collect() };
    for limit in limits {
        // Enough records follow `after` to fill the page.
        let most = RECORDS - u64::try_from(limit).unwrap_or(RECORDS);
        let after = rng.random_range(0..most);
        let end = after + 1 + u64::try_from(limit).unwrap_or_default();
        let users = store.users(page(Some(user_number(after)), limit)).await?;
        same(users.len(), limit)?;
        same(users.last().map(|user| user.key), Some(user_number(end - 1)))?;
        let from = Page::new(Some(endpoint(&name(after))), limit)?;
        let members = store.members(&room("r"), from).await?;
        same(members.len(), limit)?;
        let last = members.last().map(|member| member.endpoint.clone());
        same(last, Some(endpoint(&name(end - 1))))?;
        let from = Page::new(Some(room(&name(after))), limit)?;
        let rooms = store.rooms_of(&endpoint("ann"), from).await?;
        same(rooms.len(), limit)?;
        same(rooms.last().map(|room| room.id.clone()), Some(room(&name(end - 1))))?;
    }
    Ok(())
}
