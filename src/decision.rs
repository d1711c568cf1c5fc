use crate::Error;

/// Whether a user is let in (clause AUTH-1).
///
/// No error becomes an `Allow`: a failure is [`DenyReason::Failed`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a decision that is not looked at lets nobody in and keeps nobody out"]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub enum Decision {
    /// The user is let in.
    Allow,
    /// The user is kept out.
    Deny(DenyReason),
}

impl Decision {
    /// Whether this is [`Decision::Allow`].
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow)
    }
}

/// Why a user is kept out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub enum DenyReason {
    /// The store has no such user.
    #[error("unknown user")]
    Unknown,
    /// The user was revoked.
    #[error("revoked user")]
    Revoked,
    /// The user is not an admin, and [`Store::is_admin`](crate::Store::is_admin) was called.
    #[error("not an admin")]
    NotAdmin,
    /// The store could not decide (clause AUTH-2).
    #[error("no decision could be reached: {0}")]
    Failed(#[source] Error),
}

impl From<Error> for Decision {
    fn from(error: Error) -> Self {
        Self::Deny(DenyReason::Failed(error))
    }
}

/// The part of a user on which decisions depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) admin: bool,
    pub(crate) revoked: bool,
}

/// Decides `is_authorized`, for every store.
pub(crate) fn authorized(found: Result<Option<Standing>, Error>) -> Decision {
    match found {
        Err(error) => error.into(),
        Ok(None) => Decision::Deny(DenyReason::Unknown),
        Ok(Some(Standing { revoked: true, .. })) => Decision::Deny(DenyReason::Revoked),
        Ok(Some(Standing { revoked: false, .. })) => Decision::Allow,
    }
}

/// Decides `is_admin`, for every store.
pub(crate) fn admin(found: Result<Option<Standing>, Error>) -> Decision {
    let standing = found.as_ref().ok().copied().flatten();
    match authorized(found) {
        Decision::Allow if standing.is_some_and(|s| s.admin) => Decision::Allow,
        Decision::Allow => Decision::Deny(DenyReason::NotAdmin),
        denied @ Decision::Deny(_) => denied,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn standing(admin: bool, revoked: bool) -> Option<Standing> {
        Standing { admin, revoked }.into()
    }

    #[rstest]
    #[case::error(
        Err(Error::Timeout),
        Err(DenyReason::Failed(Error::Timeout)),
        Err(DenyReason::Failed(Error::Timeout))
    )]
    #[case::absent(Ok(None), Err(DenyReason::Unknown), Err(DenyReason::Unknown))]
    #[case::user(Ok(standing(false, false)), Ok(()), Err(DenyReason::NotAdmin))]
    #[case::admin(Ok(standing(true, false)), Ok(()), Ok(()))]
    #[case::revoked(Ok(standing(false, true)), Err(DenyReason::Revoked), Err(DenyReason::Revoked))]
    #[case::revoked_admin(
        Ok(standing(true, true)),
        Err(DenyReason::Revoked),
        Err(DenyReason::Revoked)
    )]
    fn decisions(
        #[case] found: Result<Option<Standing>, Error>,
        #[case] user: Result<(), DenyReason>,
        #[case] admin_: Result<(), DenyReason>,
    ) {
        let expect =
            |r: Result<(), DenyReason>| r.map_or_else(Decision::Deny, |()| Decision::Allow);
        assert_eq!(authorized(found.clone()), expect(user));
        assert_eq!(admin(found), expect(admin_));
    }
}
