//! Records, requests and errors as JSON: the suite saves calls and their results.
//!
//! Values that the constructors refuse are refused here, too (clause TYPE-4).

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::error::{Cause, Invalid};
use crate::{Ciphertext, EndpointId, Epoch, Error, Label, Page, Rekey, RoomId, Timestamp, UserKey};

/// Implements JSON for a type by way of a plain type: how to convert to it, and back.
macro_rules! as_plain {
    ($($type:ty: $plain:ty, $to:expr, $from:expr;)+) => { $(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let to: fn(&$type) -> $plain = $to;
                to(self).serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let from: fn($plain) -> Result<$type, String> = $from;
                from(<$plain>::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )+ };
}

type Keys = BTreeMap<EndpointId, Ciphertext>;

as_plain! {
    RoomId: String, |id| id.as_str().to_owned(), |text| said(Self::new(text));
    EndpointId: String, |id| id.as_str().to_owned(), |text| said(Self::new(text));
    Label: String, |label| label.as_str().to_owned(), |text| said(Self::new(text));
    UserKey: String, ToString::to_string, |text| said(Self::from_str(&text));
    Epoch: u64, |epoch| epoch.get(), |number| said(Self::new(number));
    Timestamp: i64, |at| at.as_millis(), |millis| Ok(Self::from_millis(millis));
    Ciphertext: String, |key| HEXLOWER.encode(key.as_bytes()), |text| {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|error| error.to_string())?;
        said(Self::new(bytes))
    };
    Rekey: (Epoch, BTreeSet<EndpointId>, Keys),
        |rekey| (rekey.from(), rekey.remove().clone(), rekey.keys().clone()),
        |(from, remove, keys)| said(Self::new(from, remove, keys));
    Cause: String, ToString::to_string, |text| match Error::unavailable(text) {
        Error::Unavailable(cause) => Ok(cause),
        other => Err(other.to_string()),
    };
    // `Invalid` keeps a `'static` name of the field, so the name is leaked. Only saved histories
    // are read this way, so few names are leaked.
    Invalid: (String, String),
        |invalid| (invalid.field().to_owned(), invalid.problem().to_owned()),
        |(field, problem)| Ok(Self::new(field.leak(), problem));
}

impl<Id: Serialize> Serialize for Page<Id> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.after(), self.limit()).serialize(serializer)
    }
}

impl<'de, Id: Deserialize<'de>> Deserialize<'de> for Page<Id> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (after, limit) = Deserialize::deserialize(deserializer)?;
        Self::new(after, limit).map_err(D::Error::custom)
    }
}

fn said<T>(result: Result<T, Error>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}
