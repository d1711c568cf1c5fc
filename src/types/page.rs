use crate::error::{Error, Invalid};

/// Which part of a list to return: the records after an id, and at most how many (clause LIST-1).
///
/// `Id` orders the list: [`EndpointId`](crate::EndpointId) for `members`, [`RoomId`](crate::RoomId)
/// for `rooms_of`, [`UserKey`](crate::UserKey) for `users`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<Id> {
    after: Option<Id>,
    limit: u16,
}

impl<Id> Page<Id> {
    /// The most records one page may have (clause TYPE-6).
    pub const MAX_LIMIT: u16 = 1000;

    /// The first `limit` records whose ids are greater than `after`, in byte order.
    ///
    /// There need not be a record with the id `after`.
    ///
    /// Errors: [`Error::Invalid`] for a limit outside 1 to [`MAX_LIMIT`](Self::MAX_LIMIT).
    pub fn new(after: Option<Id>, limit: usize) -> Result<Self, Error> {
        match u16::try_from(limit) {
            Ok(limit @ 1..=Self::MAX_LIMIT) => Ok(Self { after, limit }),
            _ => {
                let problem = format!("is {limit}; 1 to {} is allowed", Self::MAX_LIMIT);
                Err(Invalid::new("page limit", problem).into())
            }
        }
    }

    /// The first [`MAX_LIMIT`](Self::MAX_LIMIT) records.
    #[must_use]
    pub const fn first() -> Self {
        Self { after: None, limit: Self::MAX_LIMIT }
    }

    /// The first [`MAX_LIMIT`](Self::MAX_LIMIT) records whose ids are greater than `id`.
    #[must_use]
    pub const fn after_id(id: Id) -> Self {
        Self { after: Some(id), limit: Self::MAX_LIMIT }
    }

    /// The id after which the page starts; `None` starts at the first record.
    #[must_use]
    pub const fn after(&self) -> Option<&Id> {
        self.after.as_ref()
    }

    /// The most records the page may have.
    #[must_use]
    pub fn limit(&self) -> usize {
        usize::from(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(1)]
    #[case(1000)]
    fn legal(#[case] limit: usize) {
        assert_eq!(Page::<u8>::new(None, limit).unwrap().limit(), limit);
    }

    #[rstest]
    #[case(0)]
    #[case(1001)]
    #[case(65_537)]
    fn illegal(#[case] limit: usize) {
        assert_eq!(
            Page::<u8>::new(None, limit).unwrap_err().to_string(),
            format!("invalid page limit: is {limit}; 1 to 1000 is allowed")
        );
    }
}
