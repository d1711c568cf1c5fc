//! The seed of a run: the number from which all its random choices are drawn.

use rand::TryRng;
use rand::rngs::SysRng;

/// Parses a seed: hexadecimal after `0x`, or decimal.
pub fn parse(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| {
        format!(
            "{text:?} is no seed ({error}): give a number from 0 to 2^64 - 1, such as 42 or 0x2a"
        )
    })
}

/// Draws a random seed.
pub(crate) fn fresh() -> Result<u64, String> {
    // 32 bits are enough to tell runs apart, and short enough to be read aloud or typed.
    SysRng
        .try_next_u32()
        .map(u64::from)
        .map_err(|error| format!("the system gives no randomness: {error}"))
}

/// The seed in `MEMBERSHIP_SEED`, or a random one if the variable is not set.
pub fn from_environment() -> Result<u64, String> {
    match std::env::var("MEMBERSHIP_SEED") {
        Ok(text) => parse(&text).map_err(|error| format!("MEMBERSHIP_SEED: {error}")),
        Err(std::env::VarError::NotPresent) => fresh(),
        Err(error) => Err(format!("MEMBERSHIP_SEED: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", Some(0))]
    #[case("42", Some(42))]
    #[case("0x2a", Some(42))]
    #[case("0xffffffffffffffff", Some(u64::MAX))]
    #[case("", None)]
    #[case("-1", None)]
    #[case("0x", None)]
    #[case("2a", None)]
    fn seeds(#[case] text: &str, #[case] seed: Option<u64>) {
        assert_eq!(parse(text).ok(), seed);
    }
}
