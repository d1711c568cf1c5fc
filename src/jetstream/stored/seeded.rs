//! Random ids that a seed brings back.

use std::cell::RefCell;

thread_local! {
    /// Where the ids of this thread come from, if not from the system.
    static SEEDED: RefCell<Option<fastrand::Rng>> = const { RefCell::new(None) };
}

/// Has all ids that this thread makes come from a seed, until it is dropped.
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

/// Fills the bytes of an id; `false` where this thread's ids come from the system.
pub(in crate::jetstream) fn fill(bytes: &mut [u8]) -> bool {
    SEEDED.with_borrow_mut(|rng| rng.as_mut().map(|rng| rng.fill(bytes)).is_some())
}
