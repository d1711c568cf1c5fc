use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Invalid};

/// A room's secret key, sealed to one endpoint: 1 to 4096 opaque bytes.
///
/// `Debug` shows the length, never the bytes (clause TYPE-5). Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Ciphertext(Arc<[u8]>);

impl Ciphertext {
    /// The most bytes a sealed key may have.
    pub const MAX_BYTES: usize = 4096;

    /// Copies `bytes`.
    ///
    /// Errors: [`Error::Invalid`] for no bytes at all, or more than [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, Error> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() || bytes.len() > Self::MAX_BYTES {
            let problem =
                format!("is {} bytes long; 1 to {} are allowed", bytes.len(), Self::MAX_BYTES);
            return Err(Invalid::new("ciphertext", problem).into());
        }
        Ok(Self(Arc::from(bytes)))
    }

    /// The bytes, exactly as they were given.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(1)]
    #[case(4096)]
    fn legal(#[case] len: usize) {
        assert_eq!(Ciphertext::new(vec![7; len]).unwrap().as_bytes().len(), len);
    }

    #[rstest]
    #[case(0)]
    #[case(4097)]
    fn illegal(#[case] len: usize) {
        assert_eq!(
            Ciphertext::new(vec![7; len]).unwrap_err().to_string(),
            format!("invalid ciphertext: is {len} bytes long; 1 to 4096 are allowed")
        );
    }

    #[test]
    fn debug_shows_the_length_and_not_the_bytes() {
        let shown = format!("{:?}", Ciphertext::new(b"secret").unwrap());
        assert_eq!(shown, "<6 bytes>");
    }
}
