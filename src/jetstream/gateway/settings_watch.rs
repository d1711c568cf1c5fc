//! Checks the buckets' settings for as long as a client is open.
//!
//! Somebody may change settings by hand that were right when the store was opened. A `max_age`, for example, removes
//! records that no store removes. Once a client notices wrong settings, calls that need that bucket fail until the
//! settings are right again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Error;
use crate::jetstream::gateway::provision;
use crate::jetstream::gateway::tries::Gateway;
use crate::jetstream::stored::bucket::{Bucket, PerBucket};
use crate::trace::event;

/// How often each bucket is checked.
const PERIOD: Duration = Duration::from_secs(2);

/// The result of each bucket's last check.
#[derive(Default)]
pub(in crate::jetstream) struct SettingsWatch {
    /// Why a bucket must not be used. A std lock: held for a moment, never across an await.
    unfit: PerBucket<Mutex<Option<Error>>>,
}

impl SettingsWatch {
    /// Fails if the bucket's settings were wrong at the last check.
    pub(in crate::jetstream) fn fit(&self, bucket: Bucket) -> Result<(), Error> {
        match &*self.unfit.get(bucket).lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// Checks, for as long as the gateway exists.
    pub(in crate::jetstream) fn begin(gateway: &Gateway, prefix: String) -> Arc<Self> {
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
            match (&unfit, sees.fit(bucket).err()) {
                (Some(error), before) if before.as_ref() != Some(error) => {
                    event!(bucket: warn, "wrong settings: calls that need it fail", bucket = name, error);
                }
                (None, Some(_)) => event!(bucket: info, "right settings again", bucket = name),
                _ => {}
            }
            *sees.unfit.get(bucket).lock().unwrap_or_else(PoisonError::into_inner) = unfit;
        });
        watch
    }
}
