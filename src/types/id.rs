use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Invalid};

/// The most bytes an id may have (clause TYPE-1).
const MAX_BYTES: usize = 128;

fn parse(field: &'static str, text: &str) -> Result<Arc<str>, Error> {
    let refuse = |problem: String| Err(Invalid::new(field, problem).into());
    if text.is_empty() || text.len() > MAX_BYTES {
        return refuse(format!("is {} bytes long; 1 to {MAX_BYTES} are allowed", text.len()));
    }
    // `char::is_control` is Unicode category Cc: C0, DEL and C1, exactly what TYPE-1 forbids.
    if let Some((at, c)) = text.char_indices().find(|(_, c)| c.is_control()) {
        return refuse(format!(
            "has the control character U+{:04X} at byte {at}; control characters are not allowed",
            u32::from(c)
        ));
    }
    Ok(Arc::from(text))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        ///
        /// Opaque: 1 to 128 bytes of UTF-8 without control characters. Ids are compared and ordered
        /// byte for byte, without case folding, normalization or trimming (clause TYPE-1). Cloning
        /// is cheap.
        ///
        /// # Errors
        ///
        /// [`new`](Self::new) refuses any other text with [`Error::Invalid`], which names the
        /// length or the illegal character (clause TYPE-4).
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Copies `text`, if it is a legal id.
            pub fn new(text: impl AsRef<str>) -> Result<Self, Error> {
                parse($field, text.as_ref()).map(Self)
            }

            /// The id, exactly as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&*self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

id!(
    /// The name of a room: a channel on the bus.
    RoomId,
    "room id"
);
id!(
    /// The name of an endpoint: a device, agent or service that can be a member of rooms.
    EndpointId,
    "endpoint id"
);

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one_byte("a")]
    #[case::spaces("  a b  ")]
    #[case::kv_and_sql("a.*>/$'\"%;--\\")]
    #[case::dots("...")]
    #[case::emoji("🦀")]
    #[case::decomposed("e\u{301}")]
    #[case::no_break_space_is_no_control("\u{a0}")]
    fn legal(#[case] text: &str) {
        assert_eq!(RoomId::new(text).unwrap().as_str(), text);
        assert_eq!(EndpointId::new(text).unwrap().as_str(), text);
    }

    #[test]
    fn length_is_counted_in_bytes() {
        assert!(RoomId::new("é".repeat(64)).is_ok());
        let error = RoomId::new("é".repeat(65)).unwrap_err();
        assert_eq!(error.to_string(), "invalid room id: is 130 bytes long; 1 to 128 are allowed");
    }

    #[rstest]
    #[case::empty("", "invalid endpoint id: is 0 bytes long; 1 to 128 are allowed")]
    #[case::nul(
        "a\0",
        "invalid endpoint id: has the control character U+0000 at byte 1; control characters are not allowed"
    )]
    #[case::newline(
        "\n",
        "invalid endpoint id: has the control character U+000A at byte 0; control characters are not allowed"
    )]
    #[case::del(
        "ab\u{7f}",
        "invalid endpoint id: has the control character U+007F at byte 2; control characters are not allowed"
    )]
    #[case::c1(
        "é\u{85}",
        "invalid endpoint id: has the control character U+0085 at byte 2; control characters are not allowed"
    )]
    fn illegal(#[case] text: &str, #[case] message: &str) {
        assert_eq!(EndpointId::new(text).unwrap_err().to_string(), message);
    }
}
