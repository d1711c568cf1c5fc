//! Events and spans for the crate `tracing`, if the feature `tracing` is on.
//!
//! Without the feature, the macros only check the types of their arguments, and [`Span`] passes futures through.
//!
//! The target of an event is `membership::` and a topic, so that a filter can choose topics:
//!
//! | topic | events |
//! |---|---|
//! | `call` | each call of a store, with its outcome and duration |
//! | `exchange` | retries, stale replies, and, at `trace`, each request to a NATS server |
//! | `barrier` | barriers, and how many calls share one |
//! | `users` | the copy of users and its consumers |
//! | `garbage` | garbage collection, and its errors, which no call returns |
//! | `connection` | the connection to a NATS server |
//! | `bucket` | buckets that went back, were replaced, or have wrong settings |
//! | `file` | the SQLite file and its transactions |
//!
//! The levels are: `warn` for events that an operator must know; `info` for reconnects, and for a copy of users that
//! begins anew; `debug` for calls and their steps; `trace` for single exchanges. No event has a sealed key, a password
//! or a URL with a user in it. The NATS driver has events of its own, with the target `async_nats`: at `trace` they have
//! whole messages, sealed keys included.

#[cfg(feature = "tracing")]
use std::fmt::Display;
#[cfg(feature = "tracing")]
use std::time::Instant;

#[cfg(feature = "tracing")]
use tracing::field::display;
#[cfg(feature = "tracing")]
use tracing::{Instrument, Level};

#[cfg(feature = "tracing")]
use crate::{Decision, DenyReason, Error};

/// Emits an event: `event!(topic: level, "text", field, other = value)`. Fields are shown by `Display`.
#[cfg(feature = "tracing")]
macro_rules! event {
    (@value $field:ident) => { $field };
    (@value $field:ident $value:expr) => { $value };
    ($topic:ident: $level:ident, $text:literal $(, $field:ident $(= $value:expr)?)* $(,)?) => {
        tracing::$level!(
            target: concat!("membership::", stringify!($topic)),
            $($field = %$crate::trace::event!(@value $field $($value)?),)*
            $text
        )
    };
}

/// Makes a [`Span`] of level `debug`: `span!("name", field, other = value)`. Fields are shown by `Display`.
#[cfg(feature = "tracing")]
macro_rules! span {
    ($name:literal $(, $field:ident $(= $value:expr)?)* $(,)?) => {
        $crate::trace::Span(tracing::debug_span!(
            target: "membership::call",
            $name,
            $($field = %$crate::trace::event!(@value $field $($value)?),)*
        ))
    };
}

#[cfg(not(feature = "tracing"))]
macro_rules! event {
    (@value $field:ident) => { $field };
    (@value $field:ident $value:expr) => { $value };
    ($topic:ident: $level:ident, $text:literal $(, $field:ident $(= $value:expr)?)* $(,)?) => {
        if false {
            $(let _ = &$crate::trace::event!(@value $field $($value)?);)*
        }
    };
}

#[cfg(not(feature = "tracing"))]
macro_rules! span {
    ($name:literal $(, $field:ident $(= $value:expr)?)* $(,)?) => {{
        $crate::trace::event!(call: debug, $name $(, $field $(= $value)?)*);
        $crate::trace::Span
    }};
}

pub(crate) use {event, span};

/// A span of `tracing`: it groups events, such as those of one call.
#[cfg(feature = "tracing")]
pub(crate) struct Span(pub(crate) tracing::Span);

#[cfg(not(feature = "tracing"))]
pub(crate) struct Span;

#[cfg(feature = "tracing")]
impl Span {
    /// Runs a call in the span, and emits the call's outcome and duration.
    pub(crate) async fn call<T: Outcome>(self, call: impl Future<Output = T>) -> T {
        // The block begins with the first poll, so a call that is never polled emits nothing.
        let call = async {
            let mut unanswered = Unanswered::new();
            let answer = call.await;
            unanswered.answered(&answer);
            answer
        };
        call.instrument(self.0).await
    }

    /// Runs work that is not a call, such as a background task, in the span.
    pub(crate) fn inside<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        work.instrument(self.0)
    }
}

#[cfg(not(feature = "tracing"))]
#[allow(clippy::unused_self, reason = "the same calls as with the feature")]
impl Span {
    /// Runs a call.
    pub(crate) fn call<F: Future>(self, call: F) -> F {
        call
    }

    /// Runs work that is not a call.
    #[cfg(feature = "jetstream")]
    pub(crate) fn inside<F: Future>(self, work: F) -> F {
        work
    }
}

/// A call that has no answer yet. If this value is dropped before the answer, the caller has dropped the call.
#[cfg(feature = "tracing")]
struct Unanswered {
    /// When the call began. `None` if no subscriber is interested, or once the call is answered.
    began: Option<Instant>,
}

#[cfg(feature = "tracing")]
impl Unanswered {
    fn new() -> Self {
        let heard = tracing::enabled!(target: "membership::call", Level::WARN);
        Self { began: heard.then(Instant::now) }
    }

    fn answered(&mut self, answer: &impl Outcome) {
        let Some(began) = self.began.take() else { return };
        let duration = began.elapsed();
        let (outcome, error) = answer.outcome();
        let reason = answer.reason().map(display);
        // A corrupt record is a warning, because the caller may ignore the error, and the record stays corrupt.
        if matches!(error, Some(Error::Corrupt(_))) {
            tracing::warn!(target: "membership::call", outcome, reason, ?duration, "answered");
        } else {
            tracing::debug!(target: "membership::call", outcome, reason, ?duration, "answered");
        }
    }
}

#[cfg(feature = "tracing")]
impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(began) = self.began {
            let duration = began.elapsed();
            tracing::debug!(target: "membership::call", ?duration, "dropped by the caller");
        }
    }
}

/// An answer in the form in which events show it. The value itself is left out, since a value may be a sealed key.
#[cfg(feature = "tracing")]
pub(crate) trait Outcome {
    /// The outcome in one word, and the error if the call failed.
    fn outcome(&self) -> (&'static str, Option<&Error>);

    /// Why the call failed, or why a user is denied.
    fn reason(&self) -> Option<&dyn Display>;
}

#[cfg(feature = "tracing")]
impl<T> Outcome for Result<T, Error> {
    fn outcome(&self) -> (&'static str, Option<&Error>) {
        match self {
            Ok(_) => ("ok", None),
            Err(error) => ("error", Some(error)),
        }
    }

    fn reason(&self) -> Option<&dyn Display> {
        self.as_ref().err().map(|error| error as &dyn Display)
    }
}

#[cfg(feature = "tracing")]
impl Outcome for Decision {
    fn outcome(&self) -> (&'static str, Option<&Error>) {
        match self {
            Self::Allow => ("allow", None),
            Self::Deny(DenyReason::Failed(error)) => ("deny", Some(error)),
            Self::Deny(_) => ("deny", None),
        }
    }

    fn reason(&self) -> Option<&dyn Display> {
        match self {
            Self::Allow => None,
            Self::Deny(reason) => Some(reason),
        }
    }
}
