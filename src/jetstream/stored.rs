//! The layout of the buckets: their names, the keys and the records in them, and the bytes of a record.

pub(super) mod bucket;
pub(super) mod bucket_key;
pub(super) mod changes;
pub(super) mod codec;
pub(super) mod format;
pub(super) mod random_id;
pub(super) mod room_records;
#[cfg(feature = "testing")]
pub(super) mod seeded;
pub(super) mod user_records;
