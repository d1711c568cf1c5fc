//! The runner's verdicts on a starved machine. This is a test binary of its own, because it starves
//! everything that runs at the same time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::hint::spin_loop;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

/// The number of busy threads per processor.
const BUSY: usize = 8;

/// Runs the runner beside threads that keep all processors busy.
fn starved(arguments: &[&str]) -> Output {
    let over = AtomicBool::new(false);
    let processors = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for _ in 0..BUSY * processors {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    spin_loop();
                }
            });
        }
        let mut runner = Command::new(env!("CARGO_BIN_EXE_conformance"));
        let output = runner.args(arguments).env_remove("MEMBERSHIP_SEED").output();
        over.store(true, Ordering::Relaxed);
        output.unwrap()
    })
}

fn ends(output: &Output, code: i32, verdict: &str) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    assert!(stdout.contains(verdict), "{stdout}{stderr}");
}

#[test]
fn a_case_that_misses_its_deadline_each_time_is_inconclusive() {
    let late = ["--store", "is_closed_slowly", "--filter", "closing::close_is_idempotent"];
    let output = starved(&late);
    ends(&output, 3, "\nINCONCLUSIVE 1 of 1");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.matches(" runs again: a deadline passed ").count(), 2, "{stderr}");
}

#[test]
fn a_wrong_answer_is_a_failure_on_a_starved_machine_too() {
    let output = starved(&["--store", "replaces_a_user", "--filter", "users::"]);
    ends(&output, 1, "\nFAILED ");
}

#[test]
fn a_store_that_hangs_is_a_failure_on_a_starved_machine_too() {
    let output = starved(&["--store", "hangs_on_a_fault", "--filter", "fail_closed::"]);
    ends(&output, 1, "\nFAILED ");
}
