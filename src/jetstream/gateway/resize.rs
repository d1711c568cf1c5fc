use std::time::Duration;

use futures_util::future;
use tokio::time::Instant;

use crate::Error;
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::tries::Gateway;
use crate::jetstream::stored::bucket::Bucket;

/// The progress of a bucket towards a new number of replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketProgress {
    /// The bucket, without its prefix.
    pub bucket: &'static str,
    /// How many servers are to keep it.
    pub wanted: u8,
    /// How many servers keep it now.
    pub replicas: u8,
    /// How many of these servers have all messages.
    pub current: u8,
}

impl BucketProgress {
    /// Whether the wanted number of servers have all messages.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.replicas == self.wanted && self.current == self.wanted
    }
}

/// Changes the number of replicas of all buckets to `wanted`, and waits until every replica has all
/// messages.
pub(in crate::jetstream) async fn set_replicas(
    gateway: &Gateway,
    wanted: u8,
    progress: &(dyn Fn(&[BucketProgress]) + Send + Sync),
    deadline: Instant,
) -> Result<(), Error> {
    let change = Bucket::ALL.map(|bucket| gateway.set_replicas(bucket, wanted, deadline));
    future::try_join_all(change).await?;
    let mut said = Vec::new();
    loop {
        let states = Bucket::ALL.map(|bucket| gateway.bucket(bucket, deadline));
        let states = future::try_join_all(states).await?;
        let now: Vec<_> = Bucket::ALL
            .into_iter()
            .zip(states)
            .filter_map(|(bucket, state)| {
                let now = state?.status;
                let (replicas, current) = (now.replicas, now.current);
                Some(BucketProgress { bucket: bucket.name(), wanted, replicas, current })
            })
            .collect();
        if now != said {
            progress(&now);
            said.clone_from(&now);
        }
        if now.len() == Bucket::ALL.len() && now.iter().all(BucketProgress::is_done) {
            return Ok(());
        }
        let mut pause = Pause::new(deadline);
        pause.after(Error::Timeout).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::as_wanted(3, 3, true)]
    #[case::one_is_behind(3, 2, false)]
    #[case::too_few(1, 1, false)]
    #[case::too_many(5, 5, false)]
    #[case::too_many_of_which_enough_are_current(5, 3, false)]
    fn a_bucket_is_done_when_all_who_keep_it_have_everything(
        #[case] replicas: u8,
        #[case] current: u8,
        #[case] done: bool,
    ) {
        let progress = BucketProgress { bucket: "users", wanted: 3, replicas, current };
        assert_eq!(progress.is_done(), done);
    }
}
