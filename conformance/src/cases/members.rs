//! Members that join a room, leave it and come back.

pub(super) mod joining;
pub(super) mod leaving;
pub(super) mod returning;

use membership::{Error, Page, SealedKey, Store};

use crate::context::Cx;
use crate::make::{encrypted, endpoint, epoch, joins, joins_at, plain, room};
use crate::observe::Scope;
use crate::transcript::Client;
use crate::verdict::{Verdict, same};

/// Opens a client and creates the room `r`, with the owner `ann` and the member `bob`. The room is
/// encrypted if `secret` is true.
async fn with_bob(cx: &Cx, secret: bool) -> Verdict<Client> {
    let store = cx.open().await?;
    let (new, bob) = if secret {
        (encrypted("r", "ann"), joins_at("bob", 1))
    } else {
        (plain("r", "ann"), joins("bob"))
    };
    store.create_room(new).await?;
    store.add_member(&room("r"), bob).await?;
    Ok(store)
}

fn everybody() -> Scope {
    Scope::new(&["r", "s"], &["ann", "bob", "carl"])
}

async fn remove(store: &Client, who: &str) -> Result<(), Error> {
    store.remove_member(&room("r"), &endpoint(who)).await
}

async fn key(store: &Client, who: &str, number: u64) -> Result<SealedKey, Error> {
    store.key(&room("r"), &endpoint(who), epoch(number)).await
}

/// `room` and `rooms_of` must return the room r with this `rekey_due`.
async fn rekey_due(store: &Client, expected: bool) -> Verdict {
    same(store.room(&room("r")).await?.rekey_due, expected)?;
    let listed = store.rooms_of(&endpoint("ann"), Page::first()).await?;
    same(listed.iter().map(|room| room.rekey_due).collect::<Vec<_>>(), vec![expected])
}
