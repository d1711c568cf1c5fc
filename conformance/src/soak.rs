//! The duration of the cases that play histories.

use std::sync::OnceLock;
use std::time::Duration;

/// The default duration of a case.
const SHORT: Duration = Duration::from_secs(2);

static LENGTH: OnceLock<Duration> = OnceLock::new();

/// Sets the duration for this process, once. The runner calls this.
pub fn set(length: Duration) {
    let _ = LENGTH.set(length);
}

/// Sets the duration in `MEMBERSHIP_SOAK`, if the variable is there. The test harness calls this.
///
/// # Errors
/// Returns one line that says why the variable is no duration.
pub(crate) fn set_from_environment() -> Result<(), String> {
    match std::env::var("MEMBERSHIP_SOAK") {
        Ok(text) => set(parse(&text).map_err(|error| format!("MEMBERSHIP_SOAK: {error}"))?),
        Err(std::env::VarError::NotPresent) => {}
        Err(error) => return Err(format!("MEMBERSHIP_SOAK: {error}")),
    }
    Ok(())
}

/// The duration that was set, or else two seconds.
pub fn length() -> Duration {
    *LENGTH.get_or_init(|| SHORT)
}

/// Parses a duration such as `90s`, `10m` or `1h`; a bare number is seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "" | "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let seconds = number.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    match seconds {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => {
            Err(format!("{text:?} is no duration: give seconds, minutes or hours, as 90s, 10m, 1h"))
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("90", Some(90))]
    #[case("90s", Some(90))]
    #[case("10m", Some(600))]
    #[case("1h", Some(3600))]
    #[case("0", None)]
    #[case("", None)]
    #[case("h", None)]
    #[case("-1s", None)]
    #[case("1d", None)]
    #[case("99999999999999999999h", None)]
    fn durations(#[case] text: &str, #[case] seconds: Option<u64>) {
        assert_eq!(parse(text).ok(), seconds.map(Duration::from_secs));
    }
}
