//! The text of calls and results in transcripts and failures, the same for every store.
//!
//! Unlike `Debug`, [`Show`] shows the bytes of sealed keys: two different keys of one length must
//! not look the same. The suite's keys are no secrets.

use std::fmt::Write;

use membership::{Ciphertext, Decision, DenyReason, Error, Member, Role, Room, SealedKey, User};

/// A value that transcripts and failures can show.
pub trait Show {
    /// The text, on one line.
    fn show(&self) -> String;

    /// Whether the value is `Timeout` or `Unavailable`: no answer came in time.
    fn timed_out(&self) -> bool {
        false
    }
}

/// The longest list that is shown in full. A longer list is shown as its first and its last
/// element.
const LONG: usize = 12;

impl<T: Show> Show for [T] {
    fn show(&self) -> String {
        match self {
            [first, .., last] if self.len() > LONG => {
                format!("[{}; … {} more …; {}]", first.show(), self.len() - 2, last.show())
            }
            _ => format!("[{}]", self.iter().map(Show::show).collect::<Vec<_>>().join("; ")),
        }
    }

    fn timed_out(&self) -> bool {
        self.iter().any(Show::timed_out)
    }
}

impl<T: Show> Show for Vec<T> {
    fn show(&self) -> String {
        self.as_slice().show()
    }

    fn timed_out(&self) -> bool {
        self.as_slice().timed_out()
    }
}

impl<T: Show, E: Show> Show for Result<T, E> {
    fn show(&self) -> String {
        match self {
            Ok(value) => value.show(),
            Err(error) => error.show(),
        }
    }

    fn timed_out(&self) -> bool {
        match self {
            Ok(value) => value.timed_out(),
            Err(error) => error.timed_out(),
        }
    }
}

impl<T: Show> Show for Option<T> {
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "nothing".to_owned(), Show::show)
    }

    fn timed_out(&self) -> bool {
        self.as_ref().is_some_and(Show::timed_out)
    }
}

impl<A: Show, B: Show> Show for (A, B) {
    fn show(&self) -> String {
        format!("({}, {})", self.0.show(), self.1.show())
    }

    fn timed_out(&self) -> bool {
        self.0.timed_out() || self.1.timed_out()
    }
}

impl Show for () {
    fn show(&self) -> String {
        "done".to_owned()
    }
}

macro_rules! show_as_debug {
    ($($type:ty),*) => { $(
        impl Show for $type {
            fn show(&self) -> String {
                format!("{self:?}")
            }
        }
    )* };
}

show_as_debug!(
    bool,
    u64,
    usize,
    String,
    str,
    membership::RoomId,
    membership::EndpointId,
    membership::UserKey,
    membership::Epoch,
    membership::Timestamp,
    Role
);

impl<T: Show + ?Sized> Show for &T {
    fn show(&self) -> String {
        (**self).show()
    }

    fn timed_out(&self) -> bool {
        (**self).timed_out()
    }
}

impl Show for Error {
    fn show(&self) -> String {
        let kind = match self {
            Self::NotFound(_) => "NotFound",
            Self::AlreadyExists(_) => "AlreadyExists",
            Self::StaleEpoch { .. } => "StaleEpoch",
            Self::Conflict(_) => "Conflict",
            Self::Invalid(_) => "Invalid",
            Self::Timeout => "Timeout",
            Self::Unavailable(_) => "Unavailable",
            Self::Closed => "Closed",
            Self::Corrupt(_) => "Corrupt",
            _ => "Error",
        };
        format!("{kind}: {self}")
    }

    fn timed_out(&self) -> bool {
        self.outcome_unknown()
    }
}

impl Show for Decision {
    fn show(&self) -> String {
        match self {
            Self::Allow => "Allow".to_owned(),
            Self::Deny(DenyReason::Failed(error)) => format!("Deny, failed: {}", error.show()),
            Self::Deny(reason) => format!("Deny: {reason}"),
        }
    }

    fn timed_out(&self) -> bool {
        matches!(self, Self::Deny(DenyReason::Failed(error)) if error.timed_out())
    }
}

impl Show for Ciphertext {
    fn show(&self) -> String {
        match self.as_bytes() {
            short if short.len() <= 64 => {
                format!("\"{}\"", short.escape_ascii())
            }
            bytes => {
                // FNV-1a: the hash depends on each byte and on its place.
                let fnv = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
                let sum = bytes.iter().fold(0x811c_9dc5, fnv);
                format!("<{} bytes, sum {sum:08x}>", bytes.len())
            }
        }
    }
}

impl Show for Room {
    fn show(&self) -> String {
        let mut text = format!("room {:?} of {:?}, ", self.id, self.owner);
        text.push_str(if self.encrypted { "encrypted" } else { "unencrypted" });
        let _ = write!(text, ", epoch {}", self.epoch);
        if self.rekey_due {
            text.push_str(", rekey due");
        }
        let _ = write!(text, ", created at {}", self.created_at);
        text
    }
}

impl Show for Member {
    fn show(&self) -> String {
        let role = match self.role {
            Role::Owner => "owner",
            Role::Member => "member",
        };
        let Self { endpoint, room, joined_epoch, added_at, .. } = self;
        format!("{role} {endpoint:?} of {room:?}, since epoch {joined_epoch}, added at {added_at}")
    }
}

impl Show for SealedKey {
    fn show(&self) -> String {
        let Self { room, epoch, endpoint, ciphertext } = self;
        format!("key {} of {endpoint:?} for epoch {epoch} of {room:?}", ciphertext.show())
    }
}

impl Show for User {
    fn show(&self) -> String {
        let mut text = format!("user {} {:?}", self.key, self.label);
        if self.admin {
            text.push_str(", admin");
        }
        let _ = write!(text, ", added at {}", self.added_at);
        match (self.revoked, self.revoked_at) {
            (true, Some(at)) => {
                let _ = write!(text, ", revoked at {at}");
            }
            (false, None) => {}
            (revoked, at) => {
                let _ = write!(text, ", revoked: {revoked}, revoked_at: {at:?}");
            }
        }
        text
    }
}
