//! Controls as a test binary.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use super::hunt::SCHEDULE;
use super::{Control, hunt, quiet_panics};
use crate::case::{Case, Company, registry};
use crate::run::{self, Status};
use crate::target::Target;
use crate::{child, golden, harness, report};

/// Runs controls as a test binary with `harness = false`. Each control has a test that passes if a
/// case catches it, and, if its defect is visible, a test that passes if a golden transcript
/// changes. `sound` is a store without a defect; each case on it is a test, which passes if the
/// case does. The seed is `MEMBERSHIP_SEED`, as for [`harness::main`].
#[must_use]
pub fn main(controls: Vec<Control>, sound: Option<&Arc<dyn Target>>) -> ExitCode {
    let mut targets: Vec<_> = controls.iter().map(|control| Arc::clone(&control.target)).collect();
    targets.extend(sound.cloned());
    if let Some(code) = child::run_if_asked(&targets) {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // A thread for each test that may run at once; the schedule holds back the others.
    arguments.test_threads.get_or_insert_with(|| SCHEDULE.most());
    quiet_panics();
    let (seed, runtime) = match harness::begun() {
        Ok(begun) => begun,
        Err(error) => return report::refuse(&error),
    };
    let mut trials = Vec::new();
    for control in controls {
        if control.visible {
            let (runtime, control) = (Arc::clone(&runtime), control.clone());
            trials.push(Trial::test(format!("golden::{}", control.name), move || {
                runtime.block_on(seen_by_a_golden(&control)).map_err(Failed::from)
            }));
        }
        let runtime = Arc::clone(&runtime);
        trials.push(Trial::test(format!("controls::{}", control.name), move || {
            match runtime.block_on(hunt(&control, seed)) {
                Ok(_) => Ok(()),
                Err(survived) => Err(Failed::from(format!("{survived} (seed {seed:#x})"))),
            }
        }));
    }
    // Of the groups that wait, the sound store runs only these two. These groups test faults and
    // losses of data, and of all stores in memory only those of the controls can have them.
    let tried = |case: &&Case| {
        case.company() == Company::Working || ["past", "fail_closed"].contains(&case.group)
    };
    let cases = || registry().filter(tried);
    for (case, target) in sound.iter().flat_map(|sound| cases().map(|case| (case, *sound))) {
        let (runtime, target) = (Arc::clone(&runtime), Arc::clone(target));
        let ignored = run::declined(case, &*target).is_some();
        let test = move || {
            let tell = |begins| harness::tell(case, target.name(), begins);
            let outcome = runtime.block_on(SCHEDULE.run(case, &target, seed, tell));
            match outcome.status {
                Status::Fail(failed) => {
                    Err(Failed::from(report::failure(case, target.name(), &failed)))
                }
                Status::Pass | Status::NotClaimed(..) | Status::Inconclusive(_) => Ok(()),
            }
        };
        trials
            .push(Trial::test(format!("sound::{}", case.name()), test).with_ignored_flag(ignored));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Err(why) = runtime.block_on(run::finish(&targets)) {
        return report::refuse(&why);
    }
    conclusion.exit_code()
}

/// Fails unless the broken store changes a golden transcript.
async fn seen_by_a_golden(control: &Control) -> Result<(), String> {
    let _inside = SCHEDULE.enter(Company::Working).await;
    for scenario in golden::all() {
        let target = Arc::clone(&control.target);
        // A panic of the store counts as a change, so it must not leave this task.
        let told = tokio::spawn(async move {
            let instance = target.create().await.map_err(|error| error.to_string())?;
            let open = async || instance.open().await.map_err(|error| error.to_string());
            golden::play(&scenario, open).await
        });
        if !matches!(told.await, Ok(Ok(told)) if told == scenario.transcript) {
            return Ok(());
        }
    }
    Err(format!("{} ({}) changes no golden transcript", control.name, control.what))
}
