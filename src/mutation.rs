//! Deliberate defects in a store's own code, which the conformance suite must catch.

/// The deliberate defect of a store: none, unless a test opened the store with one.
///
/// Without the feature `testing` a defect cannot be set, and [`is`](Self::is) is constantly false.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutation<D>(Option<D>);

impl<D: Copy + PartialEq> Mutation<D> {
    pub(crate) const NONE: Self = Self(None);

    #[cfg(feature = "testing")]
    pub(crate) const fn of(defect: D) -> Self {
        Self(Some(defect))
    }

    /// Whether the store has this defect.
    #[inline]
    pub(crate) fn is(self, defect: D) -> bool {
        cfg!(feature = "testing") && self.0 == Some(defect)
    }
}
