use std::fmt;

use crate::error::{Error, Invalid};

/// The epoch of a room: a number that grows by one with each rekey (clauses KEY-4, TYPE-6).
///
/// An unencrypted room is at 0. An encrypted one starts at 1 and ends at 2^53 − 1, the largest
/// integer that every JSON reader keeps exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of an unencrypted room.
    pub const ZERO: Self = Self(0);
    /// The first epoch of an encrypted room.
    pub const FIRST: Self = Self(1);
    /// The last epoch: 2^53 − 1.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// Makes an epoch.
    ///
    /// Errors: [`Error::Invalid`] for a number above [`MAX`](Self::MAX).
    pub fn new(number: u64) -> Result<Self, Error> {
        if number > Self::MAX.0 {
            let problem = format!("is {number}; at most {} is allowed", Self::MAX);
            return Err(Invalid::new("epoch", problem).into());
        }
        Ok(Self(number))
    }

    /// The epoch as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The epoch after this one; `None` at [`MAX`](Self::MAX).
    #[must_use]
    pub fn next(self) -> Option<Self> {
        (self < Self::MAX).then(|| Self(self.0 + 1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A moment as the caller gave it: milliseconds since the Unix epoch, negative before it.
///
/// A store returns it exactly as given, and never reads a clock for what it stores (clause TYPE-3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Makes a timestamp of any number of milliseconds.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// The milliseconds, exactly as they were given.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_two_to_the_53_minus_one() {
        assert_eq!(Epoch::new(9_007_199_254_740_991).unwrap(), Epoch::MAX);
        assert_eq!(
            Epoch::new(9_007_199_254_740_992).unwrap_err().to_string(),
            "invalid epoch: is 9007199254740992; at most 9007199254740991 is allowed"
        );
    }

    #[test]
    fn next_grows_by_one_until_the_limit() {
        assert_eq!(Epoch::FIRST.next(), Some(Epoch(2)));
        assert_eq!(Epoch::MAX.next(), None);
    }

    #[test]
    fn an_epoch_is_shown_as_its_number() {
        assert_eq!(format!("{} {:?}", Epoch::FIRST, Epoch::FIRST), "1 1");
    }

    #[test]
    fn a_time_is_shown_with_its_unit() {
        let time = Timestamp::from_millis(-3);
        assert_eq!(
            (time.to_string(), format!("{time:?}")),
            ("-3 ms".to_owned(), "-3 ms".to_owned())
        );
    }
}
