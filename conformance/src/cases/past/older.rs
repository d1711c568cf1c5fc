//! A server or library takes over that is older than the store needs.

use membership::{Error, Store};

use super::{all_know, decisions, fill, first, fits, opens, reads, some, then};
use crate::case::declare;
use crate::context::Cx;
use crate::make::{admin, at, endpoint, joins_at, plain, rekey, room, user, user_key, user_number};
use crate::model::{Model, Op};
use crate::observe::Scope;
use crate::replicated::{at_once, each};
use crate::show::Show;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, holds};

declare! { "past";
    an_older_server_or_library_is_refused_at_open: "PAST-4" "DUR-3", needs Downgrade;
    an_older_server_or_library_acknowledges_no_write: "PAST-4" "ERR-2", needs Downgrade Clients;
    an_older_server_or_library_makes_no_partial_write: "PAST-4" "KEY-1", needs Downgrade Clients;
}

/// Writes of every kind. Some of them conflict with one another.
fn writes() -> Vec<Op> {
    let mut all: Vec<_> =
        ["gus", "hal", "ida", "jan"].map(|who| Op::AddMember(room("e"), joins_at(who, 2))).to_vec();
    all.extend([
        Op::Rekey(room("e"), rekey(2, ["cat"], ["ann"])),
        Op::RemoveMember(room("e"), endpoint("cat")),
        Op::CreateRoom(plain("new", "ann")),
        Op::DeleteRoom(room("lost")),
        Op::AddUser(admin(user_key(0x71))),
        Op::AddUser(user(user_key(0x72))),
        Op::RevokeUser(super::USER, at(9)),
        Op::RevokeUser(super::LOST_ADMIN, at(9)),
    ]);
    all
}

async fn knows_all(cx: &Cx) -> Verdict<(Client, Model)> {
    let store = cx.open().await?;
    let mut model = Model::new();
    fill(cx, &store, &mut model, &[first(), then()].concat()).await?;
    all_know(cx, &[&store], &model, &[decisions(), reads()].concat()).await?;
    Ok((store, model))
}

async fn an_older_server_or_library_is_refused_at_open(cx: Cx) -> Verdict {
    each(&cx, &some(cx.target().downgrades().iter().copied())?, |cx, to| async move {
        let (store, _) = knows_all(&cx).await?;
        store.close().await?;
        cx.instance().downgrade(&to).await?;
        match cx.instance().open().await {
            Ok(store) => {
                store.close().await?;
                Err(Failure::new(format!("an error that names {}", to.name), "a client"))
            }
            Err(error @ (Error::Invalid(_) | Error::Unavailable(_))) => {
                let said = error.to_string();
                holds(!said.is_empty(), "an error that says what is too old", &error)
            }
            Err(error) => Err(Failure::answer("Invalid or Unavailable", &error)),
        }
    })
    .await
}

async fn an_older_server_or_library_acknowledges_no_write(cx: Cx) -> Verdict {
    each(&cx, &some(cx.target().downgrades().iter().copied())?, |cx, to| async move {
        let (store, model) = knows_all(&cx).await?;
        cx.instance().downgrade(&to).await?;
        for number in 0..5 {
            let mut calls = writes();
            calls.push(Op::AddUser(user(user_number(number))));
            for (call, answer) in calls.iter().zip(at_once(&cx, &store, &calls).await?) {
                let said = answer.error();
                let refused = said.is_some_and(Error::outcome_unknown)
                    || matches!(said, Some(Error::Invalid(_)));
                let expected = format!("{} -> Unavailable, Timeout or Invalid", call.show());
                holds(refused, &expected, &answer)?;
            }
        }
        let calls = decisions();
        for (call, answer) in calls.iter().zip(at_once(&cx, &store, &calls).await?) {
            let right = model.clone().apply(call);
            holds(fits(&answer, &right), &format!("{}, or a denial", right.show()), &answer)?;
        }
        Ok(())
    })
    .await
}

/// A write that failed may have taken effect or not, but never in part.
async fn an_older_server_or_library_makes_no_partial_write(cx: Cx) -> Verdict {
    each(&cx, &some(cx.target().downgrades().iter().copied())?, |cx, to| async move {
        let (store, _) = knows_all(&cx).await?;
        let other = cx.open().await?;
        cx.instance().downgrade(&to).await?;
        for _ in 0..5 {
            let (one, two) = (store.unrecorded(), other.unrecorded());
            let writes = writes();
            let (one, two) =
                futures::join!(at_once(&cx, &*one, &writes), at_once(&cx, &*two, &writes));
            one.and(two)?;
        }
        cx.instance().upgrade().await?;
        let opened = opens(&cx).await?;
        super::answered(&cx, &opened, &reads()).await?;
        let people = ["ann", "bob", "cat", "gus", "hal", "ida", "jan"];
        let scope = Scope::new(&["e", "p", "new", "lost"], &people);
        scope.with_users(&super::EVERYBODY).observe(&opened).await?;
        Ok(())
    })
    .await
}
