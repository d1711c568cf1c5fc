//! A text that errors, logs and `Debug` do not show.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A text that `Debug` does not show (clause TYPE-5).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// This impl is written out. The derived one would return serde's own error, which shows the value
/// that it found instead of a text.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer);
        text.map(Self).map_err(|_| serde::de::Error::custom("a secret must be a text in quotes"))
    }
}

impl Secret {
    /// Makes a secret of any text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_its_length_alone() {
        let secret = Secret::new("s3cr3t");
        assert_eq!(secret.reveal(), "s3cr3t");
        assert_eq!(format!("{secret:?}"), "<6 bytes>");
    }
}
