//! The reports of a run, for people and for machines.

mod failure;
pub(crate) mod rerun;
#[cfg(feature = "runner")]
mod results;

use std::process::ExitCode;
use std::time::Duration;

use crate::case::Case;
pub(crate) use failure::failure;
#[cfg(feature = "runner")]
pub(crate) use results::{
    Caught, Results, broken, cases, cases_with_controls, clauses, controls, json, junit, matrix,
    not_claimed, reached, verdict,
};

/// The message that a case runs again, and why.
pub(crate) fn again(case: &Case, store: &str, slower: f64) -> String {
    let name = case.name();
    format!(
        "{store} {name} runs again: a deadline passed while the machine was {slower:.0} times slower"
    )
}

/// The message that says what this many inconclusive cases mean.
pub(crate) fn inconclusive(cases: usize) -> String {
    let cases = if cases == 1 { "1 case".to_owned() } else { format!("{cases} cases") };
    format!(
        "{cases}: a deadline passed in each run, on a starved machine; run again with less other load"
    )
}

/// Prints one line that says why nothing was run, and returns exit code 2.
#[must_use]
pub fn refuse(why: &str) -> ExitCode {
    complain(why);
    ExitCode::from(2)
}

/// Prints an error in one line to standard error.
pub(crate) fn complain(why: &str) {
    use owo_colors::OwoColorize;
    anstream::eprintln!("{} {why}", "error:".red().bold());
}

/// Formats a duration for people.
#[must_use]
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else if seconds < 60.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(40, "0.0 s")]
    #[case(1_240, "1.2 s")]
    #[case(41_200, "41 s")]
    #[case(161_000, "2 min 41 s")]
    fn durations(#[case] millis: u64, #[case] text: &str) {
        assert_eq!(human(Duration::from_millis(millis)), text);
    }
}
