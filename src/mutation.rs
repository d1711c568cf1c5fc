//! Defects on purpose, by which the conformance suite sees itself catch one in a store's own code.

/// The defect that a store has: none, unless a test opened it with one.
///
/// Without the feature `testing` there is no way to name one, and every question is answered by a
/// constant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutation<D>(Option<D>);

impl<D: Copy + PartialEq> Mutation<D> {
    pub(crate) const NONE: Self = Self(None);

    #[cfg(feature = "testing")]
    pub(crate) const fn of(defect: D) -> Self {
        Self(Some(defect))
    }

    /// Whether it is this one.
    #[inline]
    pub(crate) fn is(self, defect: D) -> bool {
        cfg!(feature = "testing") && self.0 == Some(defect)
    }
}
