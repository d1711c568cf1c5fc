//! The result of a case, and the checks that cases make.

use std::panic::Location;

use membership::{Decision, DenyReason, Error};

use crate::show::Show;

/// The result of a case, or of a part of it: success, or the first failure.
pub(crate) type Verdict<T = ()> = Result<T, Failure>;

/// A failed check.
#[derive(Debug)]
pub struct Failure {
    /// What the contract demands.
    pub expected: String,
    /// What the store did instead.
    pub got: String,
    /// Where in the suite this was found.
    pub at: &'static Location<'static>,
    /// The broken clause, if the case itself does not cite it.
    pub clause: Option<&'static str>,
    /// Whether the store gave no wrong answer: a deadline passed, or a fault could not be injected.
    /// On a machine that starves the suite or the store, such a failure says nothing about the
    /// store.
    pub timed_out: bool,
}

impl Failure {
    /// Makes a failure: the contract demands `expected`, and the store did `got`.
    #[track_caller]
    pub fn new(expected: impl Into<String>, got: impl Into<String>) -> Self {
        let (expected, got) = (expected.into(), got.into());
        Self { expected, got, at: Location::caller(), clause: None, timed_out: false }
    }

    /// Makes a failure: the contract demands `expected`, and the store answered `got`.
    #[track_caller]
    pub fn answer(expected: impl Into<String>, got: &(impl Show + ?Sized)) -> Self {
        Self { timed_out: got.timed_out(), ..Self::new(expected, got.show()) }
    }

    /// Marks this failure as one in which a deadline passed.
    #[must_use]
    pub fn of_deadline(self) -> Self {
        Self { timed_out: true, ..self }
    }

    /// Marks this failure as one of a call that took too long (clause TIME-1), whatever the case is
    /// about.
    #[must_use]
    pub fn of_time(self) -> Self {
        Self { clause: Some("TIME-1"), ..self.of_deadline() }
    }
}

/// Allows `?` on a call that must succeed.
impl From<Error> for Failure {
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::answer("success", &error)
    }
}

/// `got` must equal `expected`.
#[allow(clippy::needless_pass_by_value, reason = "calls read better without a row of `&`s")]
#[track_caller]
pub(crate) fn same<T: PartialEq + Show>(got: T, expected: T) -> Verdict {
    if got == expected { Ok(()) } else { Err(Failure::answer(expected.show(), &got)) }
}

/// The call must have failed with exactly `expected`.
#[track_caller]
pub(crate) fn fails<T: Show>(got: Result<T, Error>, expected: &Error) -> Verdict {
    match got {
        Err(error) if error == *expected => Ok(()),
        other => Err(Failure::answer(expected.show(), &other)),
    }
}

/// `held` must be true. `expected` and `got` describe the check.
#[track_caller]
pub(crate) fn holds(held: bool, expected: &str, got: &impl Show) -> Verdict {
    if held { Ok(()) } else { Err(Failure::answer(expected, got)) }
}

/// The decision must be a denial with the reason `Failed` (clause AUTH-2).
#[track_caller]
pub(crate) fn denies_as_failed(decision: &Decision) -> Verdict {
    let failed = matches!(decision, Decision::Deny(DenyReason::Failed(_)));
    holds(failed, "Deny, failed", decision)
}

/// The call must have ended in `Timeout` or `Unavailable`.
#[track_caller]
pub(crate) fn unknown<T: Show>(got: &Result<T, Error>) -> Verdict {
    let unknown = got.as_ref().is_err_and(Error::outcome_unknown);
    holds(unknown, "Timeout or Unavailable", got)
}
