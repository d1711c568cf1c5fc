//! Compares a store's answers with the model's.

use std::sync::Arc;

use futures::future::join_all;
use membership::{EndpointId, Epoch, Page, RoomId, Store, UserKey};
use tokio::sync::Barrier;
use tokio::task::{JoinError, JoinSet};

use crate::model::{Answer, Model, Op};
use crate::show::Show;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict};

/// Every read of these rooms, endpoints and users, with keys up to epoch `up_to`.
#[must_use]
pub fn views(rooms: &[RoomId], endpoints: &[EndpointId], users: &[UserKey], up_to: u64) -> Vec<Op> {
    let mut views = vec![Op::HasAdmin, Op::Users(Page::first())];
    for room in rooms {
        views.push(Op::Room(room.clone()));
        views.push(Op::Members(room.clone(), Page::first()));
        for who in endpoints {
            views.push(Op::Member(room.clone(), who.clone()));
            views.push(Op::LatestKey(room.clone(), who.clone()));
            let epochs = (0..=up_to).filter_map(|number| Epoch::new(number).ok());
            views.extend(epochs.map(|epoch| Op::Key(room.clone(), who.clone(), epoch)));
        }
    }
    views.extend(endpoints.iter().map(|who| Op::RoomsOf(who.clone(), Page::first())));
    for key in users {
        views.extend([Op::User(*key), Op::IsAuthorized(*key), Op::IsAdmin(*key)]);
    }
    views
}

/// Makes the call on the store and on the model. Both must give the same answer.
#[track_caller]
pub fn agree<'a>(
    store: &'a dyn Store,
    model: &'a mut Model,
    op: &'a Op,
) -> impl Future<Output = Verdict<Answer>> + 'a {
    let at = std::panic::Location::caller();
    async move {
        let (got, expected) = (op.apply(store).await, model.apply(op));
        if got == expected {
            Ok(got)
        } else {
            Err(Failure { at, ..Failure::answer(expected.show(), &got) })
        }
    }
}

/// Makes all the reads `views` on the store at once, while nobody writes. Every answer must be the
/// model's.
#[track_caller]
pub fn looks_like<'a>(
    store: &'a dyn Store,
    model: &'a Model,
    views: &'a [Op],
) -> impl Future<Output = Verdict> + 'a {
    let at = std::panic::Location::caller();
    async move {
        let mut model = model.clone();
        let answers = join_all(views.iter().map(|view| view.apply(store))).await;
        for (view, got) in views.iter().zip(answers) {
            let expected = model.apply(view);
            if got != expected {
                let expected = format!("of {view:?}: {}", expected.show());
                return Err(Failure { at, ..Failure::answer(expected, &got) });
            }
        }
        Ok(())
    }
}

/// The models among `models` whose answers are the store's, while nobody writes. Fails if there is
/// none.
pub async fn settles(store: &dyn Store, models: Vec<Model>, views: &[Op]) -> Verdict<Vec<Model>> {
    let mut kept = Vec::new();
    let mut failure = None;
    for model in models {
        match looks_like(store, &model, views).await {
            Ok(()) => kept.push(model),
            Err(other) => failure = Some(other),
        }
    }
    match failure {
        Some(failure) if kept.is_empty() => Err(failure),
        _ => Ok(kept),
    }
}

/// Makes all calls at once, distributed over the clients in turn. Returns the answers in the order
/// of `ops`.
pub async fn at_once(clients: &[Client], ops: &[Op]) -> Verdict<Vec<Answer>> {
    let calls = ops.iter().zip(clients.iter().cycle()).map(|(op, client)| {
        let (op, client) = (op.clone(), client.clone());
        async move { op.apply(&client).await }
    });
    race(calls).await
}

/// Starts all futures together, each in a task of its own. Returns their results in order.
pub async fn race<T: Send + 'static>(
    calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Verdict<Vec<T>> {
    let mut tasks = started(calls);
    let mut answers = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        answers.push(ended.map_err(|error| panicked(&error))?);
    }
    answers.sort_unstable_by_key(|(number, _)| *number);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// As [`race`], for futures that must all succeed: the first failure ends the others.
pub async fn all_hold(
    all: impl IntoIterator<Item = impl Future<Output = Verdict> + Send + 'static>,
) -> Verdict {
    let mut tasks = started(all);
    while let Some(ended) = tasks.join_next().await {
        let (_, verdict) = ended.map_err(|error| panicked(&error))?;
        verdict?;
    }
    Ok(())
}

/// A set of tasks, which aborts the remaining ones when it is dropped, as when the case is aborted.
fn started<T: Send + 'static>(
    calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> JoinSet<(usize, T)> {
    let calls: Vec<_> = calls.into_iter().collect();
    let barrier = Arc::new(Barrier::new(calls.len()));
    let mut tasks = JoinSet::new();
    for (number, call) in calls.into_iter().enumerate() {
        let barrier = Arc::clone(&barrier);
        tasks.spawn(async move {
            barrier.wait().await;
            (number, call.await)
        });
    }
    tasks
}

fn panicked(error: &JoinError) -> Failure {
    Failure::new("no panic", error.to_string())
}

/// The states that concurrent calls can lead to: those after some order of the calls that gives
/// exactly these answers, beginning at one of `models` (LIN-1). Fails if no order gives them. Tries
/// every order, so it is for a handful of calls.
pub fn some_order(models: &[Model], ops: &[Op], answers: &[Answer]) -> Verdict<Vec<Model>> {
    let mut found = Vec::new();
    for model in models {
        let left: Vec<_> = ops.iter().zip(answers).collect();
        try_orders(model, &left, &mut found);
    }
    if found.is_empty() {
        let calls = ops.iter().map(|op| format!("{op:?}")).collect::<Vec<_>>().join("; ");
        let expected = format!("answers that some order of the calls gives: {calls}");
        return Err(Failure::answer(expected, &answers));
    }
    Ok(found)
}

fn try_orders(model: &Model, left: &[(&Op, &Answer)], found: &mut Vec<Model>) {
    if left.is_empty() && !found.contains(model) {
        found.push(model.clone());
    }
    for (at, (op, answer)) in left.iter().enumerate() {
        let mut after = model.clone();
        if after.apply(op) == **answer {
            let mut rest = left.to_vec();
            rest.remove(at);
            try_orders(&after, &rest, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make::{encrypted, joins_at, rekey, room, stale};

    #[test]
    fn an_order_is_found_exactly_where_there_is_one() {
        let mut before = Model::new();
        before.apply(&Op::CreateRoom(encrypted("r", "ann")));
        let add = Op::AddMember(room("r"), joins_at("bob", 1));
        let rekey = Op::Rekey(room("r"), rekey(1, [], ["ann"]));
        let mut after = before.clone();
        let moved = after.apply(&rekey);
        let late = Answer::Member(Err(stale(2)));
        let ops = [add.clone(), rekey];

        let found = some_order(&[before.clone()], &ops, &[late, moved.clone()]).unwrap();
        assert_eq!(found, [after]);
        let added = before.clone().apply(&add);
        assert!(some_order(&[before], &ops, &[added, moved]).is_err());
    }
}
