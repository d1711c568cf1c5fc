//! Making, reading and deleting rooms.

use membership::Store;

use crate::case::declare;
use crate::context::Cx;
use crate::make::{encrypted, no_room, plain, room, room_exists};
use crate::verdict::{Verdict, fails, same};

declare! { "rooms";
    a_created_room_is_read_back: "ROOM-1" "ROOM-3";
    an_id_in_use_is_refused_and_the_room_untouched: "ROOM-2";
    a_missing_room_is_not_found: "ERR-1";
    a_room_made_through_one_client_is_seen_by_another: "LIN-1", needs Clients;
}

async fn a_created_room_is_read_back(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for new in [plain("p", "ann"), encrypted("e", "bob")] {
        let created = store.create_room(new.clone()).await?;
        same(&created, &new.room())?;
        same(store.room(&new.id).await?, created)?;
    }
    Ok(())
}

async fn an_id_in_use_is_refused_and_the_room_untouched(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let before = store.create_room(encrypted("r", "ann")).await?;
    for again in [encrypted("r", "ann"), encrypted("r", "bob"), plain("r", "bob")] {
        fails(store.create_room(again).await, &room_exists("r"))?;
    }
    same(store.room(&room("r")).await?, before)
}

async fn a_missing_room_is_not_found(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    fails(store.room(&room("none")).await, &no_room("none"))
}

async fn a_room_made_through_one_client_is_seen_by_another(cx: Cx) -> Verdict {
    let (one, two) = (cx.open().await?, cx.open().await?);
    let created = one.create_room(plain("r", "ann")).await?;
    same(two.room(&room("r")).await?, created)
}
