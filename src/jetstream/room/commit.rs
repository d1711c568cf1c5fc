//! The commit of a change to a room: one compare-and-set of the head, or one atomic batch with it.

use tokio::time::Instant;

use crate::Error;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::exchange::{Put, WriteError, in_doubt};
use crate::jetstream::room::decode::head_changes;
use crate::jetstream::room::view::View;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::changes::Fate;
use crate::jetstream::stored::room_records::Head;
use crate::trace::event;

/// A change to an incarnation, planned on a view of it.
pub(in crate::jetstream) struct PlannedChange<'a> {
    pub(in crate::jetstream) view: &'a View,
    pub(in crate::jetstream) head: Head,
    /// The messages that are stored with the head.
    pub(in crate::jetstream) puts: Vec<Put>,
}

impl PlannedChange<'_> {
    /// Commits the change in one atomic batch if the incarnation has not changed since the view. `false`: the change
    /// was not made and never will be.
    pub(in crate::jetstream) async fn commit(
        self,
        buckets: &BucketClient,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let Self { view, head, mut puts } = self;
        let planned = head.changes.clone();
        let key = view.incarnation.head();
        // The head comes last. If a reader ever saw a part of a batch, the number of members in the head would not fit,
        // and the room would be `Corrupt`.
        let mut put = Put::record(Bucket::Members, key.clone(), &head)?;
        if !buckets.is(JetStreamDefect::ExpectsNothing) {
            put = put.expecting(view.revision);
        }
        puts.push(put);
        let mut doubt = false;
        let mut pause = Pause::new(deadline);
        loop {
            let sent = match puts.as_slice() {
                // A single message is not sent as a batch: with one replica each batch costs the server a directory on
                // disk.
                [head] => buckets.gateway.publish(Bucket::Members, head.clone(), deadline).await,
                all => buckets.gateway.batch(Bucket::Members, all.to_vec(), deadline).await,
            };
            let error = match sent {
                Ok(revision) => {
                    event!(call: debug, "committed", messages = puts.len(), revision);
                    return Ok(true);
                }
                Err(WriteError::Failed(error)) if !doubt => return Err(error),
                Err(WriteError::Refused)
                    if doubt && buckets.is(JetStreamDefect::RepeatsInDoubt) =>
                {
                    return Ok(false);
                }
                Err(WriteError::Refused) => Error::Timeout,
                Err(WriteError::Failed(error) | WriteError::Unknown(error)) => {
                    doubt = true;
                    error
                }
            };
            if doubt && buckets.is(JetStreamDefect::RepeatsInDoubt) {
                pause.after(error).await.map_err(in_doubt)?;
                continue;
            }
            event!(call: debug, "a commit was refused or not acknowledged: its head is read");
            // A refusal proves nothing: it may be a former leader's, or the answer to a second copy of the message.
            let filters = [key.clone()];
            let now = buckets.read_few(Bucket::Members, &filters, deadline).await;
            let now = if doubt { now.map_err(in_doubt)? } else { now? };
            // If there is no head, the room was deleted long ago, and eight later rooms of the id were, too.
            let now = now.find(&key).map(head_changes).transpose()?;
            match now.map_or(Fate::Unknown, |changes| changes.fate_of(&planned)) {
                Fate::Done => return Ok(true),
                Fate::Lost => {
                    event!(call: debug, "another change of the room came first");
                    return Ok(false);
                }
                Fate::Unknown => return Err(Error::Timeout),
                Fate::Open => {}
            }
            let paused = pause.after(error).await;
            paused.map_err(|error| if doubt { in_doubt(error) } else { error })?;
        }
    }
}
