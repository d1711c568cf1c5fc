//! How long a call may take.

use std::time::{Duration, Instant};

use membership::{Decision, Page, Store};

use super::closing::calls_that_work;
use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    admin, at, encrypted, endpoint, joins, joins_at, key_of, plain, rekey, room, user, user_key,
    user_number,
};
use crate::model::Op;
use crate::race::{clients, joined};
use crate::show::Show;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, holds, same};

declare! { "time";
    every_call_of_64_callers_returns_within_its_bound: "TIME-1";
    decisions_return_within_their_bound_while_a_large_room_is_rekeyed: "TIME-1" "KEY-11";
    a_closed_client_answers_at_once: "CLOSE-2" "TIME-1";
    close_returns_within_its_bound: "CLOSE-1" "TIME-1";
}

/// The life of a room and a user: every call once, each within its bound.
async fn one_round(cx: &Cx, store: &dyn Store, caller: u64, round: u64) -> Verdict {
    let id = format!("{caller}-{round}");
    let (here, ann, bob) = (room(&id), endpoint("ann"), endpoint(&format!("bob {caller}")));
    let key = user_number(caller * 1_000 + round);
    let calls = vec![
        Op::CreateRoom(encrypted(&id, "ann")),
        Op::Room(here.clone()),
        Op::AddMember(here.clone(), joins_at(bob.as_str(), 1)),
        Op::Member(here.clone(), bob.clone()),
        Op::Members(here.clone(), Page::first()),
        Op::RoomsOf(bob.clone(), Page::first()),
        Op::Rekey(here.clone(), rekey(1, [], ["ann", bob.as_str()])),
        Op::LatestKey(here.clone(), bob.clone()),
        Op::Key(here.clone(), ann, membership::Epoch::FIRST),
        Op::RemoveMember(here.clone(), bob),
        Op::DeleteRoom(here),
        Op::AddUser(user(key)),
        Op::User(key),
        Op::Users(crate::make::page(Some(key), 10)),
        Op::IsAuthorized(key),
        Op::IsAdmin(key),
        Op::HasAdmin,
        Op::RevokeUser(key, at(3)),
    ];
    for call in calls {
        let slow = matches!(call, Op::Rekey(..) | Op::DeleteRoom(_));
        let answer = if slow {
            cx.within_slow_bound(call.apply(store)).await?
        } else {
            cx.within_bound(call.apply(store)).await?
        };
        holds(answer.error().is_none(), &format!("{call:?} to succeed"), &answer)?;
    }
    Ok(())
}

async fn every_call_of_64_callers_returns_within_its_bound(cx: Cx) -> Verdict {
    let clients = clients(&cx, 2).await?;
    let callers: Vec<_> = (0..64)
        .zip(clients.iter().cycle())
        .map(|(caller, client)| {
            let (cx, store) = (cx.clone(), client.unrecorded());
            tokio::spawn(async move {
                for round in 0..5 {
                    one_round(&cx, &*store, caller, round).await?;
                }
                Verdict::Ok(())
            })
        })
        .collect();
    for caller in callers {
        joined(caller).await?;
    }
    Ok(())
}

async fn decisions_return_within_their_bound_while_a_large_room_is_rekeyed(cx: Cx) -> Verdict {
    const MEMBERS: usize = 2_000;
    let store = cx.open().await?;
    store.add_user(user(user_key(2))).await?;
    store.create_room(encrypted("large", "ann")).await?;
    let ids: Vec<_> = (0..MEMBERS).map(|number| format!("m{number}")).collect();
    let adds = ids.iter().map(|id| {
        let store = store.unrecorded();
        async move { Ok(store.add_member(&room("large"), joins_at(id, 1)).await?) }
    });
    crate::together::together(adds).await?;
    let all = || std::iter::once("ann").chain(ids.iter().map(String::as_str));
    let rekeys = (1..4).map(|from| rekey(from, [], all())).collect::<Vec<_>>();
    let rekeyer = store.unrecorded();
    let rekeying = tokio::spawn(async move {
        for rekey in rekeys {
            rekeyer.rekey(&room("large"), rekey).await?;
        }
        Ok::<_, membership::Error>(())
    });
    let mut asked = 0;
    while !rekeying.is_finished() || asked == 0 {
        let decision = cx.within_bound(store.unrecorded().is_authorized(&user_key(2))).await?;
        same(decision, Decision::Allow)?;
        asked += 1;
        tokio::task::yield_now().await;
    }
    joined(rekeying).await?;
    let key = store.latest_key(&room("large"), &endpoint("m7")).await?;
    same(key.ciphertext, key_of(&endpoint("m7"), crate::make::epoch(4)))
}

/// Far below any deadline, and far above the time in which a busy machine reads a flag.
const AT_ONCE: Duration = Duration::from_millis(100);

async fn a_closed_client_answers_at_once(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.create_room(plain("p", "ann")).await?;
    store.add_member(&room("p"), joins("bob")).await?;
    store.bootstrap_admin(admin(user_key(1))).await?;
    store.close().await?;
    for call in calls_that_work() {
        let began = Instant::now();
        let answer = call.apply(&store).await;
        if began.elapsed() > AT_ONCE {
            let got = format!("{} after {:?}", answer.show(), began.elapsed());
            return Err(Failure::new(format!("an answer within {AT_ONCE:?}"), got));
        }
    }
    Ok(())
}

/// Makes rooms until the client is closed.
async fn works(store: Client, caller: u64) -> Verdict {
    let store = store.unrecorded();
    for number in 0.. {
        match store.create_room(plain(&format!("{caller}-{number}"), "ann")).await {
            Err(membership::Error::Closed) => break,
            Err(error) if !error.outcome_unknown() => return Err(error.into()),
            _ => tokio::task::yield_now().await,
        }
    }
    Ok(())
}

async fn close_returns_within_its_bound(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let load: Vec<_> = (0..64).map(|number| tokio::spawn(works(store.clone(), number))).collect();
    let (asked, last) = (store.unrecorded(), room("63-0"));
    cx.until("the last caller's first room", || async { asked.room(&last).await.is_ok() }).await?;
    cx.within_bound(store.close()).await??;
    for task in load {
        joined(task).await?;
    }
    Ok(())
}
