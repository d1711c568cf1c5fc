//! Data that go back to an earlier state.

use std::time::Duration;

use membership::{Conflict, Decision};

use super::{
    BACK, EVERYBODY, LOST, Scene, Truth, USER, all_fit, all_know, comes_right, decisions, fill,
    first, fits, opens, reads, right_or_failed, some, then, write,
};
use crate::case::declare;
use crate::context::Cx;
use crate::make::{admin, at, endpoint, joins_at, plain, rekey, room, user, user_key, user_number};
use crate::model::{Answer, Model, Op};
use crate::replicated::{at_once, each, in_time, works};
use crate::target::{Leaves, Rewind};
use crate::transcript::Client;
use crate::verdict::{Verdict, holds};

declare! { "past";
    a_decision_after_a_rewind_follows_the_present_data: "PAST-1" "AUTH-2", needs Rewind Clients;
    a_read_after_a_rewind_follows_the_present_data: "PAST-1" "KEY-2", needs Rewind Clients;
    a_write_after_a_rewind_is_made_on_the_present_data: "PAST-1" "ERR-2", needs Rewind Clients;
    a_write_acknowledged_after_a_rewind_holds: "PAST-1" "AUTH-3" "LIN-1", needs Rewind Clients;
    a_client_opened_after_a_rewind_works: "PAST-1" "USER-1", needs Rewind Clients;
    a_decision_past_the_bound_follows_the_present_data_after_a_rewind:
        "PAST-1" "AUTH-4", needs Rewind Clients Bounded;
}

/// How stale decisions may be: long enough for answers within the bound, short beside other times.
const BOUND: Duration = Duration::from_millis(500);

/// The ways in which the target's data can go back. With `open`, only those under open clients.
fn ways(cx: &Cx, open: bool) -> Verdict<Vec<Rewind>> {
    some(cx.target().rewinds().iter().copied().filter(|how| !(open && how.closed)))
}

/// Fills a store, has clients read everything, makes the data go back, and opens another client.
/// What the earlier clients answer before that is judged as soon as the present data are known.
async fn went_back(
    cx: &Cx,
    how: Rewind,
    calls: Vec<Op>,
    bound: Option<Duration>,
) -> Verdict<Scene> {
    let writer = cx.open().await?;
    let mut model = Model::new();
    fill(cx, &writer, &mut model, &first()).await?;
    let old = async || match bound {
        Some(bound) => cx.open_bounded(bound).await,
        None => cx.open().await,
    };
    let (asked, idle) = (old().await?, old().await?);
    all_know(cx, &[&asked, &idle], &model, &calls).await?;
    cx.instance().remember().await?;
    let past = model.clone();
    all_know(cx, &[&writer], &model, &calls).await?;
    fill(cx, &writer, &mut model, &then()).await?;
    // This client never saw the state to which the data go back.
    let late = old().await?;
    all_know(cx, &[&asked, &idle, &late], &model, &calls).await?;
    let (mut asked, mut idle) = (vec![asked, late], vec![idle]);
    if how.closed {
        (asked, idle) = (Vec::new(), Vec::new());
        cx.close_all().await;
    }
    cx.instance().rewind(&how).await?;
    let bound = bound.unwrap_or_default();
    tokio::time::sleep(bound).await;
    let mut early = Vec::new();
    for _ in 0..3 {
        for client in &asked {
            early.push(at_once(cx, &*client.unrecorded(), &calls).await?);
        }
    }
    let opened = opens(cx).await?;
    let truth = match how.leaves {
        Leaves::Past => Truth::Known(Box::new(past)),
        Leaves::Latest => Truth::Known(Box::new(model)),
        Leaves::Mixture => Truth::AsOpened,
        Leaves::Split => Truth::Nothing,
    };
    if let Some(right) = truth.about(cx, &opened, &calls).await? {
        comes_right(cx, &opened, &calls, &right, false).await?;
        for answers in early {
            all_fit(&calls, &answers, &right)?;
        }
    }
    Ok(Scene { cx: cx.clone(), asked, idle, opened, truth, calls, bound })
}

async fn a_decision_after_a_rewind_follows_the_present_data(cx: Cx) -> Verdict {
    each(&cx, &ways(&cx, false)?, |cx, how| async move {
        let mut scene = went_back(&cx, how, decisions(), None).await?;
        scene.goes_on().await?;
        scene.ends_right().await
    })
    .await
}

async fn a_read_after_a_rewind_follows_the_present_data(cx: Cx) -> Verdict {
    each(&cx, &ways(&cx, false)?, |cx, how| async move {
        let mut scene = went_back(&cx, how, reads(), None).await?;
        scene.goes_on().await?;
        scene.ends_right().await
    })
    .await
}

async fn a_decision_past_the_bound_follows_the_present_data_after_a_rewind(cx: Cx) -> Verdict {
    each(&cx, &ways(&cx, true)?, |cx, how| async move {
        let mut scene = went_back(&cx, how, decisions(), Some(BOUND)).await?;
        scene.goes_on().await?;
        scene.ends_right().await
    })
    .await
}

/// Writes about records that may be lost or changed back.
fn of_what_is_lost() -> Vec<Op> {
    vec![
        Op::AddMember(room("e"), joins_at("gus", 2)),
        Op::Rekey(room("e"), rekey(2, [], ["ann", "cat"])),
        Op::RevokeUser(LOST, at(6)),
        Op::RemoveMember(room("e"), endpoint("cat")),
        Op::RemoveMember(room("lost"), endpoint("eve")),
        Op::AddUser(user(BACK)),
        Op::BootstrapAdmin(admin(user_key(0x77))),
    ]
}

/// Writes that are allowed if the data went back to the copied state.
fn of_what_is_there() -> Vec<Op> {
    vec![
        Op::AddUser(user(user_key(0x78))),
        Op::RevokeUser(USER, at(6)),
        Op::AddUser(user(LOST)),
        Op::AddMember(room("e"), joins_at("gus", 1)),
        Op::CreateRoom(plain("lost", "zoe")),
    ]
}

async fn a_write_after_a_rewind_is_made_on_the_present_data(cx: Cx) -> Verdict {
    each(&cx, &ways(&cx, true)?, |cx, how| async move {
        let mut scene = went_back(&cx, how, decisions(), None).await?;
        let writers: Vec<_> = scene.idle.iter().chain(&scene.asked).cloned().collect();
        for (call, writer) in of_what_is_lost().iter().zip(writers.iter().cycle()) {
            if let Some(model) = scene.truth.model() {
                right_or_failed(&cx, writer, &scene.opened, model, call).await?;
            }
        }
        for (call, writer) in of_what_is_there().iter().zip(writers.iter().cycle()) {
            match (scene.truth.model(), call) {
                (Some(model), call) => {
                    right_or_failed(&cx, writer, &scene.opened, model, call).await?;
                }
                (None, Op::AddUser(new)) if in_time(&cx, writer, call).await?.error().is_none() => {
                    let there = in_time(&cx, &scene.opened, &Op::User(new.key)).await?;
                    let right = Answer::User(Ok(new.clone().user()));
                    let expected = "the user whose addition was acknowledged, or a failure";
                    holds(fits(&there, &right), expected, &there)?;
                }
                _ => {}
            }
        }
        let calls: Vec<_> = [reads(), decisions()].concat();
        for client in [&scene.opened, &opens(&cx).await?] {
            if let Some(right) = scene.truth.about(&cx, &scene.opened, &calls).await? {
                comes_right(&cx, client, &calls, &right, false).await?;
            }
        }
        Ok(())
    })
    .await
}

/// Clients may be answered from several copies of the data. Each copy must have the writes that
/// were acknowledged after the data went back.
async fn a_write_acknowledged_after_a_rewind_holds(cx: Cx) -> Verdict {
    each(&cx, &ways(&cx, false)?, |cx, how| async move {
        let scene = went_back(&cx, how, decisions(), None).await?;
        let new = user(user_number(77));
        for call in [Op::RevokeUser(USER, at(5)), Op::AddUser(new.clone())] {
            write(&cx, &scene.opened, None, &call).await?;
        }
        let mut clients: Vec<_> = scene.idle.iter().chain(&scene.asked).cloned().collect();
        for _ in 0..8 {
            clients.push(opens(&cx).await?);
        }
        for _ in 0..10 {
            futures::future::try_join_all(clients.iter().map(|client| async {
                kept_out(&cx, client).await?;
                let answer = in_time(&cx, &*client.unrecorded(), &Op::User(new.key)).await?;
                let right = Answer::User(Ok(new.clone().user()));
                let expected = "the user whose addition was acknowledged, or a failure";
                holds(fits(&answer, &right), expected, &answer)
            }))
            .await?;
        }
        Ok(())
    })
    .await
}

async fn kept_out(cx: &Cx, client: &Client) -> Verdict {
    for call in [Op::IsAuthorized(USER), Op::IsAdmin(USER)] {
        let answer = in_time(cx, &*client.unrecorded(), &call).await?;
        let let_in = answer == Answer::Decision(Decision::Allow);
        holds(!let_in, "no Allow for a user who was revoked since the data went back", &answer)?;
    }
    Ok(())
}

async fn a_client_opened_after_a_rewind_works(cx: Cx) -> Verdict {
    let whole = |how: &Rewind| matches!(how.leaves, Leaves::Past | Leaves::Latest);
    let ways = some(ways(&cx, false)?.into_iter().filter(whole))?;
    each(&cx, &ways, |cx, how| async move {
        let scene = went_back(&cx, how, decisions(), None).await?;
        let deadline = std::time::Instant::now() + cx.target().failover();
        works(&cx, &*scene.opened.unrecorded(), 1_000, deadline).await?;
        for key in EVERYBODY {
            let answer = in_time(&cx, &scene.opened, &Op::BootstrapAdmin(admin(key))).await?;
            let right = Answer::User(Err(Conflict::AdminExists.into()));
            holds(fits(&answer, &right), "a Conflict: there was an admin", &answer)?;
        }
        Ok(())
    })
    .await
}
