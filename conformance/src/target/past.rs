//! Harm to stored data: they go back to an earlier state, are replaced, vanish, or are served by an older
//! server or library.

/// A way in which the data go back to the state that [`Instance::remember`](super::Instance::remember)
/// copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// What happens, in words. [`Instance::rewind`](super::Instance::rewind) knows the way by this name.
    pub name: &'static str,
    /// Whether all clients must be closed first.
    pub closed: bool,
    /// Which data are there afterwards.
    pub leaves: Leaves,
}

/// Which data are there after a [`Rewind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// The copied state.
    Past,
    /// The latest state, since enough servers kept it.
    Latest,
    /// A mixture of both states, the same for every client. Some records may be `Corrupt`.
    Mixture,
    /// Servers whose data differ. No client can tell which of them is right; only writes that are acknowledged
    /// afterwards are sure.
    Split,
}

/// A way in which an empty store's data replace these while clients are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// What happens, in words. [`Instance::replace`](super::Instance::replace) knows the way by this name.
    pub name: &'static str,
}

/// A way in which records vanish while clients are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What happens, in words. [`Instance::lose`](super::Instance::lose) knows the way by this name.
    pub name: &'static str,
    /// Which records vanish.
    pub of: Lost,
    /// Whether the remaining records show that the store was used.
    pub traces: bool,
}

/// Records that vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// All users.
    Users,
    /// All sealed keys.
    Keys,
    /// All rooms with their members and keys, or a part of them.
    Rooms,
    /// Every record.
    Everything,
}

/// A server or library that is older than the store needs and can serve its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downgrade {
    /// What it is, in words. [`Instance::downgrade`](super::Instance::downgrade) knows it by this name.
    pub name: &'static str,
}
