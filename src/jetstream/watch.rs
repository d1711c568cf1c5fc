//! The buckets' settings, looked at for as long as a client is open.
//!
//! What was right when the store was opened can be changed by hand later: a `max_age` set on a bucket
//! removes records that no store would ever remove. From the moment a client notices, it answers
//! nothing any more from that bucket, until the settings are right again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Error;
use crate::jetstream::bucket::{Bucket, PerBucket};
use crate::jetstream::gateway::Gateway;
use crate::jetstream::provision;

/// How often each bucket is looked at.
const PERIOD: Duration = Duration::from_secs(2);

/// What was last seen of each bucket.
#[derive(Default)]
pub(super) struct Watch {
    /// Why a bucket is not to be used. A std lock: held for a moment, never across an await.
    unfit: PerBucket<Mutex<Option<Error>>>,
}

impl Watch {
    /// Whether the bucket's settings were right when they were last seen.
    pub(super) fn fit(&self, bucket: Bucket) -> Result<(), Error> {
        match &*self.unfit.get(bucket).lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// Looks, for as long as the gateway is there.
    pub(super) fn begin(gateway: &Gateway, prefix: String) -> Arc<Self> {
        let watch = Arc::new(Self::default());
        let sees = Arc::clone(&watch);
        gateway.look_on(PERIOD, move |bucket, state| {
            let name = format!("{prefix}{bucket}");
            let unfit = match state {
                Some(state) => provision::check(&name, bucket, &state.settings)
                    .err()
                    .map(|error| Error::unavailable(error.to_string())),
                None => Some(Error::unavailable(format!("there is no bucket {name} any more"))),
            };
            *sees.unfit.get(bucket).lock().unwrap_or_else(PoisonError::into_inner) = unfit;
        });
        watch
    }
}
