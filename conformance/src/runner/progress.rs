//! The progress of a run: a bar on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::case::Case;
use crate::harness::tell;
use crate::report::human;
use crate::run::{Outcome, Status};
use crate::schedule::Begins;

pub(super) struct Progress {
    bar: ProgressBar,
    /// The cases of each store and group that have not run yet; `None` if there is a bar.
    left: Option<Mutex<BTreeMap<(String, &'static str), Left>>>,
}

struct Left {
    cases: usize,
    failed: usize,
    began: Instant,
}

impl Progress {
    pub(super) fn new(cases: &[&'static Case], stores: &[String]) -> Self {
        let total = cases.len() * stores.len();
        // With a log on the same terminal, a bar would be unreadable.
        if std::io::stderr().is_terminal() && std::env::var_os("RUST_LOG").is_none() {
            let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX));
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}  {msg}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            return Self { bar, left: None };
        }
        let mut left = BTreeMap::new();
        for store in stores {
            for case in cases {
                let new = Left { cases: 0, failed: 0, began: Instant::now() };
                left.entry((store.clone(), case.group)).or_insert(new).cases += 1;
            }
        }
        Self { bar: ProgressBar::hidden(), left: Some(Mutex::new(left)) }
    }

    pub(super) fn begin(&self, case: &Case, store: &str, begins: Begins) {
        self.bar.suspend(|| tell(case, store, begins));
        self.bar.set_message(format!("{store} {}", case.name()));
    }

    pub(super) fn end(&self, case: &Case, store: &str, outcome: &Outcome) {
        let failed = matches!(outcome.status, Status::Fail(_));
        if failed {
            self.bar.println(format!("✗ {store} {}", case.name()));
        }
        self.bar.inc(1);
        let Some(left) = &self.left else { return };
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(group) = left.get_mut(&(store.to_owned(), case.group)) else { return };
        group.cases -= 1;
        group.failed += usize::from(failed);
        if group.cases == 0 {
            let failed = if group.failed > 0 {
                format!("  ✗ {} failed", group.failed)
            } else {
                String::new()
            };
            anstream::eprintln!(
                "{store:<14} {:<14} {}{failed}",
                case.group,
                human(group.began.elapsed())
            );
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
