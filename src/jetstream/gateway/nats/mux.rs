//! One subscription for all answers to one client.
//!
//! Every request has its own reply subject below one inbox, and answers are sorted by their subjects. So a read of many
//! messages needs no subscription of its own, and all waiting requests fail at once when the connection is lost. The
//! messages of a large answer are read one by one as they arrive.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::Message;
use tokio::sync::oneshot;

use crate::jetstream::gateway::exchange::Entry;
use crate::jetstream::gateway::nats::wire;

/// Routes every answer to the request that waits for it.
pub(super) struct Mux {
    inbox: String,
    next: AtomicU64,
    /// A std lock: held only to look up one request.
    waiting: Mutex<HashMap<u64, Waiter>>,
}

enum Waiter {
    One(oneshot::Sender<Message>),
    Many(Listing, oneshot::Sender<(Listing, Message)>),
}

/// The records of an answer that consists of several messages. A message with a status ends the answer.
pub(super) struct Listing {
    /// The beginning of the records' subjects, before their keys.
    pub(super) prefix: String,
    /// `None` if a message was no record.
    pub(super) entries: Option<Vec<Entry>>,
}

impl Listing {
    fn add(&mut self, message: Message) {
        let Some(entries) = &mut self.entries else { return };
        match wire::entry(&self.prefix, message) {
            Some(entry) => entries.push(entry),
            None => self.entries = None,
        }
    }
}

/// A request that waits for its answer. Dropping it ends the wait.
pub(super) struct Waiting<T> {
    mux: Arc<Mux>,
    id: u64,
    pub(super) reply: String,
    answer: oneshot::Receiver<T>,
}

impl<T> Waiting<T> {
    /// The answer; `None` if the connection was lost first.
    pub(super) async fn answer(&mut self) -> Option<T> {
        (&mut self.answer).await.ok()
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.mux.waiters().remove(&self.id);
    }
}

impl Mux {
    pub(super) fn new(inbox: String) -> Arc<Self> {
        Arc::new(Self { inbox, next: AtomicU64::new(0), waiting: Mutex::default() })
    }

    /// The subject of the subscription.
    pub(super) fn subject(&self) -> String {
        format!("{}.*", self.inbox)
    }

    pub(super) fn one(self: &Arc<Self>) -> Waiting<Message> {
        self.wait(Waiter::One)
    }

    pub(super) fn many(self: &Arc<Self>, prefix: String) -> Waiting<(Listing, Message)> {
        let listing = Listing { prefix, entries: Some(Vec::new()) };
        self.wait(|sender| Waiter::Many(listing, sender))
    }

    fn wait<T>(self: &Arc<Self>, waiter: impl FnOnce(oneshot::Sender<T>) -> Waiter) -> Waiting<T> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiters().insert(id, waiter(sender));
        Waiting { mux: Arc::clone(self), id, reply: format!("{}.{id}", self.inbox), answer }
    }

    /// Each change under this lock is one step, so a panic leaves the map valid.
    fn waiters(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn deliver(&self, message: Message) {
        let id = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
        let Some(id) = id else { return };
        let mut waiters = self.waiters();
        match waiters.get_mut(&id) {
            Some(Waiter::Many(listing, _)) if message.status.is_none() => listing.add(message),
            Some(_) => match waiters.remove(&id) {
                Some(Waiter::One(sender)) => drop(sender.send(message)),
                Some(Waiter::Many(listing, sender)) => drop(sender.send((listing, message))),
                None => {}
            },
            // The request was given up, so nobody waits for this answer.
            None => {}
        }
    }

    /// Fails all waiting requests: their answers will not come.
    pub(super) fn lose_all(&self) {
        self.waiters().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(reply: &str) -> Message {
        Message {
            subject: reply.into(),
            reply: None,
            payload: "said".into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    #[tokio::test]
    async fn an_answer_reaches_the_one_who_waits_for_it() {
        let mux = Mux::new("inbox".to_owned());
        let (mut first, mut second) = (mux.one(), mux.one());
        mux.deliver(answer(&second.reply));
        assert_eq!(second.answer().await.unwrap().subject.as_str(), second.reply);
        for nobody in ["inbox.7", "inbox", "inbox.x"] {
            mux.deliver(answer(nobody));
        }
        mux.deliver(answer(&first.reply));
        assert_eq!(first.answer().await.unwrap().subject.as_str(), first.reply);
    }

    #[tokio::test]
    async fn who_gives_up_is_forgotten() {
        let mux = Mux::new("inbox".to_owned());
        let (one, many) = (mux.one(), mux.many("prefix".to_owned()));
        assert_eq!(mux.waiters().len(), 2);
        drop((one, many));
        assert!(mux.waiters().is_empty());
    }

    #[tokio::test]
    async fn all_who_wait_are_told_when_the_connection_is_lost() {
        let mux = Mux::new("inbox".to_owned());
        let (mut one, mut many) = (mux.one(), mux.many("prefix".to_owned()));
        mux.lose_all();
        assert!(one.answer().await.is_none() && many.answer().await.is_none());
    }
}
