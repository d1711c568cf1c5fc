use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::room::addition_queue::AdditionQueue;
use crate::jetstream::room::background_tasks::BackgroundTasks;
use crate::jetstream::room::epoch_guesses::EpochGuesses;
use crate::jetstream::room::renewals::Renewals;
use crate::jetstream::room::roster::{self, Roster};
use crate::jetstream::room::roster_cache::RosterCache;
use crate::jetstream::room::turns::Turns;
use crate::jetstream::room::view::View;
use crate::jetstream::stored::random_id;

/// Reads and changes rooms, for one client.
pub(in crate::jetstream) struct RoomClient {
    pub(in crate::jetstream) buckets: Arc<BucketClient>,
    pub(in crate::jetstream) background: BackgroundTasks,
    pub(super) turns: Turns,
    pub(super) rosters: RosterCache,
    pub(super) renewals: Renewals,
    pub(super) epochs: EpochGuesses,
    pub(super) waiting: AdditionQueue,
    pub(super) op_timeout: Duration,
}

impl RoomClient {
    pub(in crate::jetstream) fn new(buckets: Arc<BucketClient>, op_timeout: Duration) -> Self {
        Self {
            buckets,
            background: BackgroundTasks::default(),
            turns: Turns::default(),
            rosters: RosterCache::default(),
            renewals: Renewals::default(),
            epochs: EpochGuesses::default(),
            waiting: AdditionQueue::default(),
            op_timeout,
        }
    }

    /// Returns a new id; with the given defect, always the same id.
    pub(super) fn fresh_unless(&self, defect: JetStreamDefect) -> Result<String, Error> {
        if self.buckets.is(defect) { Ok("same".to_owned()) } else { random_id::fresh() }
    }

    /// All members of a view's room; `None` if the room has changed since.
    pub(super) async fn roster(
        &self,
        view: &View,
        deadline: Instant,
    ) -> Result<Option<Arc<Roster>>, Error> {
        if let Some(roster) = self.rosters.of(view) {
            return Ok(Some(roster));
        }
        let Some(roster) = roster::read(&self.buckets, view, deadline).await? else {
            return Ok(None);
        };
        let roster = Arc::new(roster);
        self.rosters.keep(&view.incarnation, view.head.changes.last(), Arc::clone(&roster));
        Ok(Some(roster))
    }

    /// Starts background work with a long call's deadline.
    pub(super) fn in_background<F>(&self, work: impl FnOnce(Arc<BucketClient>, Instant) -> F)
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let deadline = Instant::now() + self.op_timeout * 10;
        self.background.spawn(work(Arc::clone(&self.buckets), deadline));
    }
}
