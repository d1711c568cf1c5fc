//! The scripts that a child's tasks run, drawn from a seed: parent and child draw the same ones.

use std::collections::BTreeSet;

use membership::{EndpointId, Epoch, NewMember, NewRoom, NewUser, Page, Rekey, RoomId, UserKey};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::judge::looks_like;
use crate::make::{admin, at, endpoint, epoch, room, sealed, user};
use crate::model::{Answer, Model, Op};
use crate::show::Show;
use crate::verdict::{Failure, Verdict, holds};
use membership::Store;

/// The calls of one task, on rooms, endpoints and users that no other task touches.
pub(crate) struct Script {
    calls: Vec<Op>,
    names: Names,
}

struct Names {
    rooms: Vec<RoomId>,
    endpoints: Vec<EndpointId>,
    users: Vec<UserKey>,
}

/// An admin whom no task revokes. Without one, whether a task may revoke an admin would depend on
/// the other tasks' admins (clause USER-4).
const ROOT: UserKey = UserKey::from_bytes([0xff; 32]);

impl Script {
    /// The number of tasks of a seed.
    pub(crate) const TASKS: u64 = 4;

    /// Draws the script of a task: `len` calls.
    #[must_use]
    pub(crate) fn new(seed: u64, task: u64, len: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed.rotate_left(8) ^ task);
        let names = Names::new(seed, task);
        let mut model = Self::beginning();
        let mut calls = Vec::with_capacity(len);
        for number in 0..len {
            let call = names.draw(&mut rng, &model, number);
            model.apply(&call);
            calls.push(call);
        }
        Self { calls, names }
    }

    /// The calls, in order.
    #[must_use]
    pub(crate) fn calls(&self) -> &[Op] {
        &self.calls
    }

    /// The rooms, endpoints and users that the script touches.
    #[must_use]
    pub(crate) fn names(&self) -> (&[RoomId], &[EndpointId], &[UserKey]) {
        (&self.names.rooms, &self.names.endpoints, &self.names.users)
    }

    /// The call that must be made before any script begins.
    #[must_use]
    pub(crate) fn first_call() -> Op {
        Op::BootstrapAdmin(admin(ROOT))
    }

    /// The state in which the scripts begin.
    #[must_use]
    pub(crate) fn beginning() -> Model {
        let mut model = Model::new();
        model.apply(&Self::first_call());
        model
    }

    /// Checks that the store is in the state after `acknowledged` calls, or after one more, which
    /// was in flight. Returns the number of calls that took effect.
    pub(crate) async fn verify(&self, store: &dyn Store, acknowledged: usize) -> Verdict<usize> {
        let mut model = Self::beginning();
        for call in self.calls.iter().take(acknowledged) {
            model.apply(call);
        }
        let Err(failure) = self.agrees(store, &model).await else { return Ok(acknowledged) };
        let Some(in_flight) = self.calls.get(acknowledged) else { return Err(failure) };
        model.apply(in_flight);
        if self.agrees(store, &model).await.is_ok() {
            return Ok(acknowledged + 1);
        }
        let expected = format!(
            "{} (after {acknowledged} acknowledged calls; nor is it the state after {in_flight:?}, \
             which was in flight)",
            failure.expected
        );
        Err(Failure { expected, ..failure })
    }

    /// Checks that every read of the script's names gives the model's answer.
    async fn agrees(&self, store: &dyn Store, model: &Model) -> Verdict {
        let views = self.names.views(&mut model.clone());
        looks_like(store, model, &views).await
    }
}

/// How many calls of each task were acknowledged at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged(Vec<usize>);

impl Acknowledged {
    /// No calls of any task.
    #[must_use]
    pub(crate) fn nothing() -> Self {
        Self(vec![0; usize::try_from(Script::TASKS).unwrap_or_default()])
    }

    /// Parses lines `task number`.
    pub(crate) fn of(lines: &[String]) -> Verdict<Self> {
        let mut acknowledged = Self::nothing();
        lines.iter().try_for_each(|line| acknowledged.hear(line))?;
        Ok(acknowledged)
    }

    /// Parses one more line.
    pub(crate) fn hear(&mut self, line: &str) -> Verdict {
        let parsed = line.split_once(' ').and_then(|(task, number)| {
            Some((task.parse::<usize>().ok()?, number.parse::<usize>().ok()?))
        });
        let slot = parsed.and_then(|(task, number)| Some((self.0.get_mut(task)?, number)));
        let Some((count, number)) = slot else {
            return Err(Failure::new("a task and a number", format!("{line:?}")));
        };
        *count = number;
        Ok(())
    }

    /// Checks that all acknowledged calls took effect, and beside them at most the one call of each
    /// task that was in flight. Returns how many calls took effect.
    pub(crate) async fn verify(&self, store: &dyn Store, seed: u64, len: usize) -> Verdict<Self> {
        let mut found = Vec::new();
        for (task, count) in (0..).zip(&self.0) {
            found.push(Script::new(seed, task, len).verify(store, *count).await?);
        }
        Ok(Self(found))
    }
}

/// The acknowledged calls of a killed process, and the calls that were found to have taken effect.
///
/// The one call that each task had in flight has an unknown outcome: it took effect, takes effect
/// later, or never does (clause LIN-1).
pub(crate) struct Killed {
    seed: u64,
    len: usize,
    acknowledged: Acknowledged,
    found: Acknowledged,
}

impl Killed {
    /// Checks the effects of a killed process that ran the scripts of `seed`.
    pub(crate) async fn look(
        store: &dyn Store,
        seed: u64,
        len: usize,
        acknowledged: Acknowledged,
    ) -> Verdict<Self> {
        let found = acknowledged.verify(store, seed, len).await?;
        Ok(Self { seed, len, acknowledged, found })
    }

    /// Checks again: all effects found before must still be there, and beside them only those of
    /// the calls that were in flight.
    pub(crate) async fn look_again(&mut self, store: &dyn Store) -> Verdict {
        let now = self.acknowledged.verify(store, self.seed, self.len).await?;
        let lost = now.0.iter().zip(&self.found.0).any(|(now, before)| now < before);
        holds(!lost, &format!("at least {}, as before", self.found.show()), &now)?;
        self.found = now;
        Ok(())
    }
}

impl Show for Acknowledged {
    fn show(&self) -> String {
        format!("{:?} calls of the tasks", self.0)
    }
}

impl Names {
    fn new(seed: u64, task: u64) -> Self {
        let key = |number: u8| {
            let mut bytes = [number; 32];
            let (left, right) = bytes.split_at_mut(8);
            left.copy_from_slice(&seed.to_be_bytes());
            if let Some(slot) = right.first_chunk_mut::<8>() {
                *slot = task.to_be_bytes();
            }
            UserKey::from_bytes(bytes)
        };
        Self {
            rooms: (0..3).map(|n| room(&format!("{seed:x}/{task}/room {n}"))).collect(),
            endpoints: (0..5).map(|n| endpoint(&format!("{seed:x}/{task}/who {n}"))).collect(),
            users: (0..4).map(key).collect(),
        }
    }

    /// Draws a call that mostly succeeds: refused writes prove nothing about durability.
    fn draw(&self, rng: &mut ChaCha8Rng, model: &Model, number: usize) -> Op {
        let mut model = model.clone();
        let when = at(i64::try_from(number).unwrap_or_default());
        let (room, who) = (pick(rng, &self.rooms), pick(rng, &self.endpoints));
        let key = sealed(format!("call {number}"));
        if rng.random_ratio(1, 5) {
            let key = pick(rng, &self.users);
            let admin = rng.random_bool(0.3);
            return match model.apply(&Op::User(key)) {
                Answer::User(Ok(_)) => Op::RevokeUser(key, when),
                _ => Op::AddUser(NewUser { admin, added_at: when, ..user(key) }),
            };
        }
        let Answer::Room(Ok(found)) = model.apply(&Op::Room(room.clone())) else {
            return Op::CreateRoom(if rng.random_ratio(1, 4) {
                NewRoom::unencrypted(room, who, when)
            } else {
                NewRoom::encrypted(room, who, when, key)
            });
        };
        let Answer::Members(Ok(members)) = model.apply(&Op::Members(room.clone(), Page::first()))
        else {
            return Op::Room(room);
        };
        let here: BTreeSet<_> = members.into_iter().map(|member| member.endpoint).collect();
        match rng.random_range(0..12) {
            0 => Op::DeleteRoom(room),
            1..4 if found.encrypted => {
                let goes = (who != found.owner && here.contains(&who)).then_some(who);
                let stay = here.into_iter().filter(|who| Some(who) != goes.as_ref());
                let keys: Vec<_> = stay.map(|who| (who, key.clone())).collect();
                match Rekey::new(found.epoch, goes, keys) {
                    Ok(rekey) => Op::Rekey(room, rekey),
                    Err(_) => Op::Room(room),
                }
            }
            _ if here.contains(&who) => Op::RemoveMember(room, who),
            _ if found.encrypted => {
                Op::AddMember(room, NewMember::sealed(who, when, found.epoch, key))
            }
            _ => Op::AddMember(room, NewMember::unsealed(who, when)),
        }
    }

    /// Every read of these names.
    fn views(&self, model: &mut Model) -> Vec<Op> {
        let mut views = vec![Op::HasAdmin, Op::IsAdmin(ROOT)];
        for who in &self.endpoints {
            views.push(Op::RoomsOf(who.clone(), Page::first()));
        }
        for room in &self.rooms {
            views.push(Op::Room(room.clone()));
            views.push(Op::Members(room.clone(), Page::first()));
            let last = match model.apply(&Op::Room(room.clone())) {
                Answer::Room(Ok(found)) => found.epoch,
                _ => Epoch::FIRST,
            };
            for who in &self.endpoints {
                views.push(Op::Member(room.clone(), who.clone()));
                views.push(Op::LatestKey(room.clone(), who.clone()));
                for number in 1..=last.get() + 1 {
                    views.push(Op::Key(room.clone(), who.clone(), epoch(number)));
                }
            }
        }
        for key in &self.users {
            views.extend([Op::User(*key), Op::IsAuthorized(*key), Op::IsAdmin(*key)]);
        }
        views
    }
}

fn pick<T: Clone>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    let at = rng.random_range(0..from.len());
    #[expect(clippy::indexing_slicing, reason = "drawn from the slice's own range")]
    from[at].clone()
}

#[cfg(test)]
mod tests {
    use membership::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_call_in_flight_may_take_effect_late_and_no_other_may() {
        let (seed, len) = (7, 20);
        let store = MemoryStore::new();
        Script::first_call().apply(&store).await;
        let script = Script::new(seed, 0, len);
        for call in &script.calls()[..5] {
            call.apply(&store).await;
        }
        let told = Acknowledged::of(&["0 5".to_owned()]).unwrap();
        let mut killed = Killed::look(&store, seed, len, told).await.unwrap();
        killed.look_again(&store).await.unwrap();
        script.calls()[5].apply(&store).await;
        killed.look_again(&store).await.unwrap();
        script.calls()[6].apply(&store).await;
        killed.look_again(&store).await.unwrap_err();
    }

    #[tokio::test]
    async fn an_effect_that_was_found_must_not_be_lost_later() {
        let (seed, len) = (7, 20);
        let script = Script::new(seed, 0, len);
        let (before, after) = (MemoryStore::new(), MemoryStore::new());
        for store in [&before, &after] {
            Script::first_call().apply(store).await;
            for call in &script.calls()[..5] {
                call.apply(store).await;
            }
        }
        script.calls()[5].apply(&after).await;
        let told = Acknowledged::of(&["0 5".to_owned()]).unwrap();
        let mut killed = Killed::look(&after, seed, len, told).await.unwrap();
        killed.look_again(&before).await.unwrap_err();
    }
}
