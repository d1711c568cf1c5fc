//! Something older than the store needs takes over.

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
    something_older_is_refused_when_a_client_is_opened: "PAST-4" "DUR-3", needs Downgrade;
    no_write_is_acknowledged_by_something_older: "PAST-4" "ERR-2", needs Downgrade Clients;
    no_write_is_made_by_half_by_something_older: "PAST-4" "KEY-1", needs Downgrade Clients;
}

/// Writes of every kind, some of which run into one another.
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

async fn something_older_is_refused_when_a_client_is_opened(cx: Cx) -> Verdict {
    each(&cx, &some(cx.target().downgrades())?, |cx, to| async move {
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

async fn no_write_is_acknowledged_by_something_older(cx: Cx) -> Verdict {
    each(&cx, &some(cx.target().downgrades())?, |cx, to| async move {
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

/// What was answered with an error may have been made, or not; whole, in each case.
async fn no_write_is_made_by_half_by_something_older(cx: Cx) -> Verdict {
    each(&cx, &some(cx.target().downgrades())?, |cx, to| async move {
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
