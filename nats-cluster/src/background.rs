//! The tokio runtime on which the links run.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

use super::NatsError;

/// Returns the runtime of the links. The first call starts it.
///
/// The links do not run on the test's runtime. So a cluster outlives the test that started it, and
/// a test that blocks its own runtime does not stall the links.
pub(super) fn runtime() -> Result<&'static Runtime, NatsError> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let build = || {
        Builder::new_multi_thread().worker_threads(1).thread_name("links").enable_all().build().ok()
    };
    RUNTIME.get_or_init(build).as_ref().ok_or(NatsError::NoRuntime)
}
