//! Stored bytes: the only code that turns records into bytes and back.
//!
//! The format is `1:<CRC-64 of bucket, key and payload, 16 hex digits>:<payload>`. The checksum
//! covers the key, so that a value copied to another key is as corrupt as one that was edited
//! (clause ERR-3).

use bytes::Bytes;
use crc::{CRC_64_XZ, Crc, Table};
use data_encoding::HEXLOWER;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::jetstream::stored::bucket::Bucket;

const CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);
const HEAD: usize = "1:0123456789abcdef:".len();

fn checksum(bucket: Bucket, key: &str, payload: &[u8]) -> [u8; 16] {
    let mut digest = CRC.digest();
    digest.update(bucket.name().as_bytes());
    digest.update(b"\0");
    digest.update(key.as_bytes());
    digest.update(b"\0");
    digest.update(payload);
    let mut hex = [0; 16];
    HEXLOWER.encode_mut(&digest.finalize().to_be_bytes(), &mut hex);
    hex
}

/// Encodes raw bytes, with a checksum that covers their bucket and key.
pub(in crate::jetstream) fn seal(bucket: Bucket, key: &str, payload: &[u8]) -> Bytes {
    let mut value = Vec::with_capacity(HEAD + payload.len());
    value.extend_from_slice(b"1:");
    value.extend_from_slice(&checksum(bucket, key, payload));
    value.push(b':');
    value.extend_from_slice(payload);
    Bytes::from(value)
}

/// Returns the bytes that [`seal`] encoded; [`Error::Corrupt`] for anything else.
pub(in crate::jetstream) fn open<'a>(
    bucket: Bucket,
    key: &str,
    value: &'a [u8],
) -> Result<&'a [u8], Error> {
    let corrupt = |problem: &str| Err(Error::corrupt(bucket.name(), key, problem));
    let Some((head, payload)) = value.split_at_checked(HEAD) else {
        return corrupt("the value is too short to be one of ours");
    };
    let Some((version, sum)) = head.split_at_checked(2) else {
        return corrupt("the value is too short to be one of ours");
    };
    if version != b"1:" {
        return corrupt("the value is of no version this program knows");
    }
    let expected = checksum(bucket, key, payload);
    if sum.strip_suffix(b":") != Some(&expected[..]) {
        return corrupt("the checksum is wrong: the value was changed by hand or damaged");
    }
    Ok(payload)
}

/// Encodes a record as JSON, with a checksum that covers its bucket and key.
pub(in crate::jetstream) fn seal_record<T: Serialize>(
    bucket: Bucket,
    key: &str,
    record: &T,
) -> Result<Bytes, Error> {
    let json = serde_json::to_vec(record)
        .map_err(|error| Error::unavailable(format!("cannot encode {bucket} {key}: {error}")))?;
    Ok(seal(bucket, key, &json))
}

/// Returns the record that [`seal_record`] encoded; [`Error::Corrupt`] for anything else.
pub(in crate::jetstream) fn open_record<T: DeserializeOwned>(
    bucket: Bucket,
    key: &str,
    value: &[u8],
) -> Result<T, Error> {
    serde_json::from_slice(open(bucket, key, value)?)
        .map_err(|error| Error::corrupt(bucket.name(), key, format!("no such record: {error}")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn what_was_sealed_opens() {
        let value = seal(Bucket::RoomKeys, "a", b"\0\xff");
        assert_eq!(open(Bucket::RoomKeys, "a", &value).unwrap(), b"\0\xff");
    }

    #[rstest]
    #[case::another_key(Bucket::Users, "b", None)]
    #[case::another_bucket(Bucket::Rooms, "a", None)]
    #[case::payload(Bucket::Users, "a", Some(19))]
    #[case::checksum(Bucket::Users, "a", Some(5))]
    #[case::version(Bucket::Users, "a", Some(0))]
    #[case::colon(Bucket::Users, "a", Some(18))]
    fn what_was_changed_is_corrupt(
        #[case] bucket: Bucket,
        #[case] key: &str,
        #[case] flip: Option<usize>,
    ) {
        let mut value = seal(Bucket::Users, "a", b"payload").to_vec();
        if let Some(at) = flip {
            value[at] ^= 1;
        }
        let error = open(bucket, key, &value).unwrap_err();
        assert!(matches!(error, Error::Corrupt(c) if c.key() == key && c.place() == bucket.name()));
    }

    #[rstest]
    #[case(b"")]
    #[case(b"1:")]
    #[case(b"hello, world, this is no value of ours")]
    fn what_is_not_ours_is_corrupt(#[case] value: &[u8]) {
        assert!(matches!(open(Bucket::Users, "a", value), Err(Error::Corrupt(_))));
    }
}
