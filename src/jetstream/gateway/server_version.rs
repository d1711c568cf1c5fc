//! The oldest server that the store works with.

use crate::Error;
use crate::error::Invalid;

/// The oldest nats-server whose atomic batches support expectations.
const OLDEST: (u64, u64, u64) = (2, 12, 1);

/// Refuses a server that is too old. 2.11 accepts the headers of an atomic batch and stores its messages one by one;
/// 2.12.0 refuses every expectation in a batch.
pub(in crate::jetstream) fn check_version(version: &str) -> Result<(), Error> {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse::<u64>);
    if let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) =
        (numbers.next(), numbers.next(), numbers.next())
        && (major, minor, patch) >= OLDEST
    {
        return Ok(());
    }
    Err(Invalid::new("server", too_old_for(version)).into())
}

/// The message for a server of this version.
fn too_old_for(version: &str) -> String {
    let (major, minor, patch) = OLDEST;
    format!(
        "runs nats-server {version}, which has no atomic batches with expectations; upgrade it to \
         {major}.{minor}.{patch} or later"
    )
}

/// The message for a server whose version is unknown and that is too old.
pub(in crate::jetstream) fn too_old(server: &str) -> String {
    let (major, minor, patch) = OLDEST;
    format!(
        "{server} stored an atomic batch message by message, so it is older than nats-server \
         {major}.{minor}.{patch}; upgrade it, and open the store again"
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2.12.0", false)]
    #[case("2.12.1", true)]
    #[case("2.12", false)]
    #[case("2.15.1", true)]
    #[case("2.15.0-dev", true)]
    #[case("3.0.0", true)]
    #[case("2.11.9", false)]
    #[case("2.9.25", false)]
    #[case("", false)]
    fn versions(#[case] version: &str, #[case] good: bool) {
        assert_eq!(check_version(version).is_ok(), good);
    }
}
