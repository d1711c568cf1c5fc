//! Random ids from a seed, so that a simulation can be repeated.

use std::cell::RefCell;

thread_local! {
    /// The source of this thread's ids; `None` if they come from the operating system.
    static SEEDED: RefCell<Option<fastrand::Rng>> = const { RefCell::new(None) };
}

/// Takes all ids of this thread from a seed, until this value is dropped.
#[derive(Debug)]
pub(in crate::jetstream) struct Seeded(());

impl Seeded {
    pub(in crate::jetstream) fn new(seed: u64) -> Self {
        SEEDED.with_borrow_mut(|rng| *rng = Some(fastrand::Rng::with_seed(seed)));
        Self(())
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        SEEDED.with_borrow_mut(|rng| *rng = None);
    }
}

/// Fills the bytes of an id from the seed. Returns `false` if this thread has none.
pub(in crate::jetstream) fn fill(bytes: &mut [u8]) -> bool {
    SEEDED.with_borrow_mut(|rng| rng.as_mut().map(|rng| rng.fill(bytes)).is_some())
}
