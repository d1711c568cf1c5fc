//! Ways in which stored data stop being what clients knew: they go back, are replaced, vanish, or are
//! served by something older.

/// A way in which the data go back to the state that [`Instance::remember`](super::Instance::remember)
/// kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// What happens, in words; it names the way to [`Instance::rewind`](super::Instance::rewind).
    pub name: &'static str,
    /// Whether all clients must be closed meanwhile.
    pub closed: bool,
    /// What is there afterwards.
    pub leaves: Leaves,
}

/// What is there after a [`Rewind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// The state that was remembered.
    Past,
    /// The latest state: enough copies kept it.
    Latest,
    /// A mixture of both, the same for everybody; records of it may be `Corrupt`.
    Mixture,
    /// Copies that differ from one another, without a way to tell which of them is right. Only what is
    /// acknowledged afterwards is sure.
    Split,
}

/// A way in which other data, of an empty store, take the place of these under open clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// What happens, in words; it names the way to [`Instance::replace`](super::Instance::replace).
    pub name: &'static str,
}

/// A way in which records vanish under open clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What happens, in words; it names the way to [`Instance::lose`](super::Instance::lose).
    pub name: &'static str,
    /// Which records vanish.
    pub of: Lost,
    /// Whether what stays shows that the store was used.
    pub traces: bool,
}

/// Records that vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// All users.
    Users,
    /// All sealed keys.
    Keys,
    /// All rooms, their members and their keys, or some of these.
    Rooms,
    /// All that is stored.
    Everything,
}

/// Something older than the store needs, which may come to serve its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downgrade {
    /// What it is, in words; it names it to
    /// [`Instance::downgrade`](super::Instance::downgrade).
    pub name: &'static str,
}
