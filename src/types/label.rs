use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Invalid};

/// A user's name for people to read: 0 to 256 bytes of any UTF-8. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Arc<str>);

impl Label {
    /// The most bytes a label may have.
    pub const MAX_BYTES: usize = 256;

    /// Copies `text`.
    ///
    /// Errors: [`Error::Invalid`] for more than [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn new(text: impl AsRef<str>) -> Result<Self, Error> {
        let text = text.as_ref();
        if text.len() > Self::MAX_BYTES {
            let problem =
                format!("is {} bytes long; 0 to {} are allowed", text.len(), Self::MAX_BYTES);
            return Err(Invalid::new("label", problem).into());
        }
        Ok(Self(Arc::from(text)))
    }

    /// The label, exactly as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_to_256_bytes_of_any_utf8() {
        assert_eq!(Label::new("").unwrap().as_str(), "");
        assert_eq!(Label::new("a\n\0").unwrap().as_str(), "a\n\0");
        assert!(Label::new("é".repeat(128)).is_ok());
        assert_eq!(Label::new("a b").unwrap().to_string(), "a b");
        assert_eq!(
            Label::new("x".repeat(257)).unwrap_err().to_string(),
            "invalid label: is 257 bytes long; 0 to 256 are allowed"
        );
    }
}
