//! Data that are replaced by those of another store under open clients.

use membership::UserKey;

use super::{
    EVERYBODY, Scene, Truth, all_fit, all_know, comes_right, decisions, fill, first, opens, reads,
    right_or_failed, some, then, write,
};
use crate::case::declare;
use crate::context::Cx;
use crate::make::{admin, encrypted, joins_at, plain, room, user, user_key};
use crate::model::{Answer, Model, Op};
use crate::replicated::{at_once, each, in_time};
use crate::target::Replacement;
use crate::verdict::{Verdict, holds};

declare! { "past";
    a_user_of_replaced_data_is_denied: "PAST-2" "AUTH-2", needs Replace Clients;
    a_read_returns_nothing_of_replaced_data: "PAST-2" "LIN-1", needs Replace Clients;
    no_write_is_acknowledged_by_replaced_data: "PAST-2" "ERR-2", needs Replace Clients;
    a_client_of_replaced_data_makes_no_first_admin: "PAST-3" "USER-1", needs Replace Clients;
}

/// The admin of the other store.
const OTHER: UserKey = UserKey::from_bytes([0x0d; 32]);

/// How often the calls are made on the new store. These are more calls than were made on the old
/// store, so counters of the new store pass those of the old one.
const CALLS: usize = 100;

/// The writes of the other store: other users, and other members in rooms of the same ids.
fn others() -> Vec<Op> {
    vec![
        Op::BootstrapAdmin(admin(OTHER)),
        Op::AddUser(user(user_key(0x0e))),
        Op::CreateRoom(encrypted("e", "zoe")),
        Op::AddMember(room("e"), joins_at("fay", 1)),
        Op::CreateRoom(plain("lost", "zoe")),
    ]
}

/// Fills a store, has clients read everything, and replaces its data by those of an empty store.
async fn was_replaced(cx: &Cx, how: Replacement, calls: Vec<Op>) -> Verdict<Scene> {
    let writer = cx.open().await?;
    let mut model = Model::new();
    fill(cx, &writer, &mut model, &[first(), then()].concat()).await?;
    let (asked, idle) = (cx.open().await?, cx.open().await?);
    all_know(cx, &[&writer, &asked, &idle], &model, &calls).await?;
    cx.instance().replace(&how).await?;
    let mut early = Vec::new();
    let asked = vec![writer, asked];
    for _ in 0..3 {
        for client in &asked {
            early.push(at_once(cx, &*client.unrecorded(), &calls).await?);
        }
    }
    // No client has opened the other store yet, so it may not even exist.
    let empty: Vec<_> = calls.iter().map(|call| Model::new().apply(call)).collect();
    for answers in early {
        all_fit(&calls, &answers, &empty)?;
    }
    let opened = opens(cx).await?;
    comes_right(cx, &opened, &calls, &empty, false).await?;
    let truth = Truth::Known(Box::default());
    let bound = std::time::Duration::ZERO;
    Ok(Scene { cx: cx.clone(), asked, idle: vec![idle], opened, truth, calls, bound })
}

/// Fills the other store; after each write checks the clients that were opened before.
async fn has_people(scene: &mut Scene) -> Verdict {
    for call in others() {
        write(&scene.cx, &scene.opened, scene.truth.model(), &call).await?;
        scene.asked_fit().await?;
    }
    Ok(())
}

async fn a_user_of_replaced_data_is_denied(cx: Cx) -> Verdict {
    each(&cx, &some(cx.target().replacements().iter().copied())?, |cx, how| async move {
        let mut scene = was_replaced(&cx, how, decisions()).await?;
        has_people(&mut scene).await?;
        scene.goes_on().await?;
        scene.ends_right().await
    })
    .await
}

async fn a_read_returns_nothing_of_replaced_data(cx: Cx) -> Verdict {
    each(&cx, &some(cx.target().replacements().iter().copied())?, |cx, how| async move {
        let mut scene = was_replaced(&cx, how, reads()).await?;
        has_people(&mut scene).await?;
        scene.ends_right().await
    })
    .await
}

async fn no_write_is_acknowledged_by_replaced_data(cx: Cx) -> Verdict {
    each(&cx, &some(cx.target().replacements().iter().copied())?, |cx, how| async move {
        let mut scene = was_replaced(&cx, how, [decisions(), reads()].concat()).await?;
        has_people(&mut scene).await?;
        let clients: Vec<_> = scene.idle.iter().chain(&scene.asked).cloned().collect();
        for (number, client) in (0x40..).zip(&clients) {
            for call in [
                Op::AddUser(user(user_key(number))),
                Op::RevokeUser(super::USER, crate::make::at(9)),
            ] {
                if let Some(model) = scene.truth.model() {
                    right_or_failed(&cx, client, &scene.opened, model, &call).await?;
                }
            }
        }
        for client in [&scene.opened, &opens(&cx).await?] {
            let Some(right) = scene.truth.about(&cx, client, &scene.calls).await? else { continue };
            comes_right(&cx, client, &scene.calls, &right, false).await?;
        }
        Ok(())
    })
    .await
}

/// An empty store replaces one that had an admin. A client that saw this admin makes no first one.
async fn a_client_of_replaced_data_makes_no_first_admin(cx: Cx) -> Verdict {
    each(&cx, &some(cx.target().replacements().iter().copied())?, |cx, how| async move {
        let scene = was_replaced(&cx, how, decisions()).await?;
        // After these calls, counters of the new store are past those of the old one. So a client
        // that compares counters cannot tell the stores apart.
        for _ in 0..CALLS {
            at_once(&cx, &*scene.opened.unrecorded(), &scene.calls).await?;
        }
        for client in scene.idle.iter().chain(&scene.asked) {
            for key in EVERYBODY {
                let answer = in_time(&cx, client, &Op::BootstrapAdmin(admin(key))).await?;
                let made = matches!(answer, Answer::User(Ok(_)));
                holds(!made, "no first admin by a client that saw another one", &answer)?;
            }
        }
        Ok(())
    })
    .await
}
