use std::fmt;
use std::str::FromStr;

use crc::{CRC_16_XMODEM, Crc};
use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};

use crate::error::{Error, Invalid};

/// The key of a user: an Ed25519 public key of 32 bytes (clause TYPE-2).
///
/// It is parsed from 64 hex digits in any case, or from a NATS user nkey (`U…`: base32 of a prefix byte, the key and a
/// CRC-16; see the [NATS documentation][nkeys]). A key is displayed as lower-case hex. Two spellings of one key are
/// equal.
///
/// ```
/// use membership::UserKey;
///
/// let lower: UserKey = "ab".repeat(32).parse()?;
/// let upper: UserKey = "AB".repeat(32).parse()?;
/// let nkey: UserKey = lower.to_nkey().parse()?;
/// assert!(lower == upper && lower == nkey);
/// # Ok::<(), membership::Error>(())
/// ```
///
/// [nkeys]: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserKey([u8; 32]);

/// The first byte of a decoded user nkey: `20 << 3`, which base32 shows as `U`.
const NKEY_USER_PREFIX: u8 = 20 << 3;
const NKEY_CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

impl UserKey {
    /// Makes a key of any 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key as bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key as a NATS user nkey: 56 characters, the first of them `U`.
    #[must_use]
    pub fn to_nkey(self) -> String {
        let mut raw = Vec::with_capacity(35);
        raw.push(NKEY_USER_PREFIX);
        raw.extend_from_slice(&self.0);
        raw.extend_from_slice(&NKEY_CRC.checksum(&raw).to_le_bytes());
        BASE32_NOPAD.encode(&raw)
    }

    fn from_hex(text: &str) -> Result<Self, String> {
        let mut key = [0; 32];
        match HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), &mut key) {
            Ok(_) => Ok(Self(key)),
            Err(partial) => Err(at_character(text, partial.error.position, "is no hex digit")),
        }
    }

    fn from_nkey(text: &str) -> Result<Self, String> {
        let raw = BASE32_NOPAD
            .decode(text.as_bytes())
            .map_err(|error| at_character(text, error.position, "is not of an nkey"))?;
        let (body, sum) = raw.split_last_chunk::<2>().ok_or("is too short for an nkey")?;
        match body.split_first() {
            Some((&NKEY_USER_PREFIX, key)) => {
                if NKEY_CRC.checksum(body) != u16::from_le_bytes(*sum) {
                    return Err("is an nkey with a wrong checksum".to_owned());
                }
                let key = key.try_into().map_err(|_| "is an nkey of the wrong length")?;
                Ok(Self(key))
            }
            _ => Err("is an nkey, but not a user's (those begin with U)".to_owned()),
        }
    }
}

fn at_character(text: &str, position: usize, problem: &str) -> String {
    let shown = text.get(position..).and_then(|rest| rest.chars().next());
    match shown {
        Some(c) => format!("has {c:?} at byte {position}, which {problem}"),
        None => format!("has a byte at {position} which {problem}"),
    }
}

impl FromStr for UserKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = match text.len() {
            64 => Self::from_hex(text),
            56 => Self::from_nkey(text),
            len => Err(format!(
                "is {len} bytes long; 64 hex digits or a user nkey of 56 characters are allowed"
            )),
        };
        parsed.map_err(|problem| Invalid::new("user key", problem).into())
    }
}

impl fmt::Display for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The example key of the NATS documentation on nkeys.
    const NKEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    const HEX: &str = "ef4e44524b72e440f96dae7bba237c6666a40701cb1365a42244f84e7a67dab1";

    #[rstest]
    #[case::lower(HEX)]
    #[case::nkey(NKEY)]
    fn one_key_many_spellings(#[case] text: &str) {
        let key: UserKey = text.parse().unwrap();
        assert_eq!(key.to_string(), HEX);
        assert_eq!(key.to_nkey(), NKEY);
        assert_eq!(HEX.to_uppercase().parse::<UserKey>().unwrap(), key);
    }

    #[rstest]
    #[case::empty("", "is 0 bytes long; 64 hex digits or a user nkey of 56 characters are allowed")]
    #[case::short(
        "ab",
        "is 2 bytes long; 64 hex digits or a user nkey of 56 characters are allowed"
    )]
    #[case::no_hex(&format!("{}g", "0".repeat(63)), "has 'g' at byte 63, which is no hex digit")]
    #[case::not_ascii(&format!("{}é", "0".repeat(62)), "has 'é' at byte 62, which is no hex digit")]
    #[case::lower_case_nkey(&NKEY.to_lowercase(), "has 'u' at byte 0, which is not of an nkey")]
    #[case::checksum(&NKEY.replace("UDX", "UDY"), "is an nkey with a wrong checksum")]
    #[case::account(
        "ADXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4",
        "is an nkey, but not a user's (those begin with U)"
    )]
    fn illegal(#[case] text: &str, #[case] problem: &str) {
        let error = text.parse::<UserKey>().unwrap_err();
        assert_eq!(error.to_string(), format!("invalid user key: {problem}"));
    }
}
