//! A few concurrent random calls, judged by trying every order.

use membership::{EndpointId, Epoch, Page, RoomId};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::case::declare;
use crate::context::Cx;
use crate::judge::{at_once, settles, some_order, views};
use crate::make::{
    admin, at, encrypted, endpoint, joins, joins_at, plain, rekey, room, user, user_number,
};
use crate::model::{Model, Op};
use crate::transcript::Client;
use crate::verdict::Verdict;

use super::clients;

declare! { "concurrency";
    any_four_concurrent_calls_are_linearizable: "LIN-1" "LIST-2";
    any_four_concurrent_calls_through_several_clients_are_linearizable:
        "LIN-1" "LIST-2", needs Clients;
    any_three_concurrent_calls_about_users_are_linearizable: "LIN-1" "USER-4";
}

const WHO: [&str; 3] = ["ann", "bob", "cid"];

/// Makes `ops` at once, and then the reads `views`. Returns the states that explain all answers.
///
/// The store's state before the calls is one of `before`.
pub(super) async fn judged(
    clients: &[Client],
    before: &[Model],
    ops: &[Op],
    views: &[Op],
) -> Verdict<Vec<Model>> {
    let answers = at_once(clients, ops).await?;
    let after = some_order(before, ops, &answers)?;
    match clients.last() {
        Some(client) => settles(&*client.unrecorded(), after, views).await,
        None => Ok(after),
    }
}

/// Draws a call on the room r. Most calls are writes, and many are valid in the state `model`.
fn some_call(rng: &mut ChaCha8Rng, model: &Model) -> Op {
    let r = room("r");
    let drawn = |rng: &mut ChaCha8Rng| WHO.get(rng.random_range(0..WHO.len())).copied();
    let who = drawn(rng).unwrap_or("ann");
    let current = model.epoch_of(&r).map_or(1, Epoch::get);
    match rng.random_range(0..16) {
        0 => Op::CreateRoom(encrypted("r", who)),
        1 => Op::CreateRoom(plain("r", who)),
        2 => Op::DeleteRoom(r),
        3..=5 => Op::AddMember(r, if current == 0 { joins(who) } else { joins_at(who, current) }),
        6 | 7 => Op::RemoveMember(r, endpoint(who)),
        8..=10 => {
            let here = model.endpoints_in(&r);
            let keys = here.iter().map(EndpointId::as_str);
            let next = current.max(1);
            if rng.random() && here.len() > 1 && here.contains(&endpoint(who)) {
                Op::Rekey(r, rekey(next, [who], keys.filter(|e| *e != who)))
            } else {
                Op::Rekey(r, rekey(next, [], keys))
            }
        }
        11 => Op::Members(r, Page::first()),
        12 => Op::RoomsOf(endpoint(who), Page::first()),
        13 => Op::LatestKey(r, endpoint(who)),
        14 => Op::Member(r, endpoint(who)),
        _ => Op::Room(r),
    }
}

async fn rounds(cx: &Cx, clients: &[Client], rounds: u64) -> Verdict {
    let rooms: [RoomId; 1] = [room("r")];
    let views = views(&rooms, &WHO.map(endpoint), &[], 6);
    let (mut rng, mut models) = (cx.rng(1), vec![Model::new()]);
    for _ in 0..rounds {
        let now = models.first().cloned().unwrap_or_default();
        let ops: Vec<_> = (0..4).map(|_| some_call(&mut rng, &now)).collect();
        models = judged(clients, &models, &ops, &views).await?;
    }
    Ok(())
}

async fn any_four_concurrent_calls_are_linearizable(cx: Cx) -> Verdict {
    rounds(&cx, &[cx.open().await?], cx.rounds(150)).await
}

async fn any_four_concurrent_calls_through_several_clients_are_linearizable(cx: Cx) -> Verdict {
    rounds(&cx, &clients(&cx, 3).await?, cx.rounds(150)).await
}

async fn any_three_concurrent_calls_about_users_are_linearizable(cx: Cx) -> Verdict {
    let clients = [cx.open().await?];
    let (mut rng, mut models) = (cx.rng(1), vec![Model::new()]);
    for round in 0..cx.rounds(60) {
        // Two new admins and a new user. In the first round the store has no other admin, so one of
        // the two cannot be revoked.
        let keys = [0, 1, 2].map(|number| user_number(3 * round + number));
        let [one, two, three] = keys;
        let drawn = |rng: &mut ChaCha8Rng| match rng.random_range(0..5) {
            0 | 1 => Op::RevokeUser(one, at(1)),
            2 => Op::RevokeUser(two, at(2)),
            3 => Op::IsAdmin(one),
            _ => Op::RevokeUser(three, at(3)),
        };
        let new = [Op::AddUser(admin(one)), Op::AddUser(admin(two)), Op::AddUser(user(three))];
        let ops: Vec<_> = (0..3).map(|_| drawn(&mut rng)).collect();
        let views = views(&[], &[], &keys, 0);
        models = judged(&clients, &models, &new, &views).await?;
        models = judged(&clients, &models, &ops, &views).await?;
    }
    Ok(())
}
