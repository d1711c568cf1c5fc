//! Records that vanish under open clients.

use membership::{Decision, Error};

use super::{ADMIN, EVERYBODY, all_know, decisions, failed, fill, first, fits, reads, some, then};
use crate::case::declare;
use crate::context::Cx;
use crate::make::{admin, endpoint, room, user_key};
use crate::model::{Answer, Model, Op};
use crate::replicated::{at_once, each, in_time};
use crate::target::{Loss, Lost};
use crate::transcript::Client;
use crate::verdict::{Verdict, holds};

declare! { "past";
    a_user_whose_record_vanished_is_denied: "PAST-3" "AUTH-2", needs Vanish Clients;
    vanished_records_do_not_free_the_bootstrap: "PAST-3" "USER-1" "AUTH-5", needs Vanish Clients;
    a_vanished_key_of_a_member_is_corrupt: "PAST-3" "KEY-1" "ERR-3", needs Vanish Clients;
}

/// A store whose records vanished, and its clients.
struct After {
    /// The data before.
    model: Model,
    /// Opened before; these clients read everything.
    old: Vec<Client>,
    /// Opened afterwards; `None` if the store refused to open.
    opened: Option<Client>,
}

/// Fills a store, has clients read everything, and makes records vanish. `None` if the servers
/// refuse to remove them.
async fn vanished(cx: &Cx, how: Loss) -> Verdict<Option<After>> {
    let writer = cx.open().await?;
    let mut model = Model::new();
    fill(cx, &writer, &mut model, &[first(), then()].concat()).await?;
    let old = vec![writer, cx.open().await?];
    let calls = [decisions(), reads()].concat();
    all_know(cx, &old.iter().collect::<Vec<_>>(), &model, &calls).await?;
    if !cx.instance().lose(&how).await? {
        return Ok(None);
    }
    // Opening such data may be refused.
    let opened = cx.open().await.ok();
    Ok(Some(After { model, old, opened }))
}

fn ways(cx: &Cx, of: &[Lost]) -> Verdict<Vec<Loss>> {
    some(cx.target().losses().iter().copied().filter(|how| of.contains(&how.of)))
}

const USERS: [Lost; 2] = [Lost::Users, Lost::Everything];

async fn a_user_whose_record_vanished_is_denied(cx: Cx) -> Verdict {
    each(&cx, &ways(&cx, &[Lost::Users, Lost::Everything, Lost::Rooms])?, |cx, how| async move {
        let Some(After { model, old, opened }) = vanished(&cx, how).await? else { return Ok(()) };
        for _ in 0..5 {
            for client in old.iter().chain(&opened) {
                let calls = decisions();
                for (call, answer) in calls.iter().zip(at_once(&cx, client, &calls).await?) {
                    let right = match how.of {
                        Lost::Rooms | Lost::Keys => model.clone().apply(call),
                        Lost::Users | Lost::Everything => {
                            Answer::Decision(Decision::Deny(membership::DenyReason::Unknown))
                        }
                    };
                    holds(fits(&answer, &right), "the right decision, or a denial", &answer)?;
                }
            }
        }
        Ok(())
    })
    .await
}

async fn vanished_records_do_not_free_the_bootstrap(cx: Cx) -> Verdict {
    each(&cx, &ways(&cx, &USERS)?, |cx, how| async move {
        let Some(After { old, opened, .. }) = vanished(&cx, how).await? else { return Ok(()) };
        let opened = opened.filter(|_| how.traces);
        for client in old.iter().chain(&opened) {
            let answer = in_time(&cx, client, &Op::HasAdmin).await?;
            let none = answer == Answer::Bool(Ok(false));
            holds(!none, "an error: nothing proves that there never was an admin", &answer)?;
            for key in EVERYBODY.into_iter().chain([ADMIN, user_key(0x77)]) {
                let answer = in_time(&cx, client, &Op::BootstrapAdmin(admin(key))).await?;
                let made = matches!(answer, Answer::User(Ok(_)));
                holds(!made, "no first admin a second time", &answer)?;
            }
        }
        Ok(())
    })
    .await
}

async fn a_vanished_key_of_a_member_is_corrupt(cx: Cx) -> Verdict {
    each(&cx, &ways(&cx, &[Lost::Keys])?, |cx, how| async move {
        let Some(After { old, opened, .. }) = vanished(&cx, how).await? else { return Ok(()) };
        for client in old.iter().chain(&opened) {
            for who in ["ann", "cat"] {
                let call = Op::LatestKey(room("e"), endpoint(who));
                let answer = in_time(&cx, client, &call).await?;
                let absent = matches!(answer.error(), Some(Error::NotFound(_)));
                holds(failed(&answer) && !absent, "Corrupt: every member has a key", &answer)?;
            }
        }
        Ok(())
    })
    .await
}
