//! The first message of each bucket: the version of the layout, and the store that the bucket belongs to.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::{bucket_key, codec};

/// The version of the layout of all buckets: keys and values.
pub(in crate::jetstream) const FORMAT_VERSION: u32 = 2;

/// The first message of every bucket: the version of the layout, and the store that the bucket belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::jetstream) struct FormatRecord {
    /// The version of the layout: [`FORMAT_VERSION`].
    pub(in crate::jetstream) membership_format: u32,
    /// The store's id, which its five buckets share.
    #[serde(default)]
    pub(in crate::jetstream) store: String,
    /// Whether an admin was ever made; only in `users`. The batch that makes the first admin sets this field. So if the
    /// field is set and `=admins` is missing, `=admins` was lost (clause PAST-3).
    #[serde(default)]
    pub(in crate::jetstream) admin_made: bool,
}

impl FormatRecord {
    /// The record for a bucket of this store, with the current version.
    pub(in crate::jetstream) fn new(store: String) -> Self {
        Self { membership_format: FORMAT_VERSION, store, admin_made: false }
    }
}

/// The id of the store in a format record.
pub(in crate::jetstream) fn store_of(
    bucket: Bucket,
    value: &[u8],
    removal: bool,
) -> Result<String, Error> {
    format_of(bucket, value, removal).map(|record| record.store)
}

/// A format record of the current version.
pub(in crate::jetstream) fn format_of(
    bucket: Bucket,
    value: &[u8],
    removal: bool,
) -> Result<FormatRecord, Error> {
    let corrupt = |problem: String| Err(Error::corrupt(bucket.name(), bucket_key::FORMAT, problem));
    if removal {
        return corrupt("removed by hand".to_owned());
    }
    let record: FormatRecord = codec::open_record(bucket, bucket_key::FORMAT, value)?;
    match record.membership_format {
        FORMAT_VERSION => Ok(record),
        other => corrupt(format!(
            "format {other}, and this program knows {FORMAT_VERSION}; use the program that made it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_is_corrupt() {
        let key = bucket_key::FORMAT;
        let record = FormatRecord { membership_format: 3, ..FormatRecord::new("s".to_owned()) };
        let value = codec::seal_record(Bucket::Users, key, &record).unwrap();
        let error = store_of(Bucket::Users, &value, false).unwrap_err().to_string();
        assert_eq!(
            error,
            "corrupt users =format: format 3, and this program knows 2; use the program that made it"
        );
    }
}
