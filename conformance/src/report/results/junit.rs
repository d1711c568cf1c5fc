use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Results, failure};
use crate::run::Status;

/// The run as a JUnit document: one suite per store, one test per case.
pub(crate) fn junit(results: &Results) -> Result<String, quick_junit::SerializeError> {
    let mut document = Report::new("membership conformance");
    document.set_time(results.took);
    for name in &results.stores {
        let mut suite = TestSuite::new(name);
        suite.add_properties(results.servers.iter().map(|server| ("server", server.as_str())));
        for (case, store, outcome) in results.outcomes() {
            if store != name {
                continue;
            }
            let status = match &outcome.status {
                Status::Pass => TestCaseStatus::success(),
                Status::Fail(report) | Status::Inconclusive(report) => {
                    // In JUnit a failure is a finding, and an error is a test without a verdict.
                    let kind = match outcome.status {
                        Status::Inconclusive(_) => NonSuccessKind::Error,
                        _ => NonSuccessKind::Failure,
                    };
                    let mut status = TestCaseStatus::non_success(kind);
                    status.set_message(format!("expected {}", report.failure.expected));
                    let plain =
                        anstream::adapter::strip_str(&failure(case, store, report)).to_string();
                    status.set_description(plain);
                    status
                }
                Status::NotClaimed(need, reason) => {
                    let mut status = TestCaseStatus::skipped();
                    status.set_message(format!("not claimed: {need}: {reason}"));
                    status
                }
            };
            let mut test = TestCase::new(case.name(), status);
            test.set_classname(name.as_str());
            test.set_time(outcome.took);
            suite.add_test_case(test);
        }
        document.add_test_suite(suite);
    }
    document.to_string()
}
