use std::fmt;

/// One of the five KV buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::jetstream) enum Bucket {
    /// The rooms' records: the commit point of a creation.
    Rooms,
    /// The heads and the rosters: the commit point of every change of a room's members, epoch or
    /// keys.
    Members,
    /// The index from endpoints to rooms. The index names candidates only; the rooms themselves
    /// decide.
    RoomsByMember,
    /// The sealed keys, stored before the commit that names them.
    RoomKeys,
    /// The users, and the record that every change of an admin replaces.
    Users,
}

impl Bucket {
    pub(in crate::jetstream) const ALL: [Self; 5] =
        [Self::Rooms, Self::Members, Self::RoomsByMember, Self::RoomKeys, Self::Users];

    /// The name without the configured prefix.
    pub(in crate::jetstream) const fn name(self) -> &'static str {
        match self {
            Self::Rooms => "rooms",
            Self::Members => "members",
            Self::RoomsByMember => "rooms_by_member",
            Self::RoomKeys => "room_keys",
            Self::Users => "users",
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One value per bucket.
#[derive(Debug, Default)]
pub(in crate::jetstream) struct PerBucket<T>([T; 5]);

impl<T> PerBucket<T> {
    pub(in crate::jetstream) fn new(mut make: impl FnMut(Bucket) -> T) -> Self {
        Self(Bucket::ALL.map(&mut make))
    }

    pub(in crate::jetstream) fn get(&self, bucket: Bucket) -> &T {
        let [rooms, members, rooms_by_member, room_keys, users] = &self.0;
        match bucket {
            Bucket::Rooms => rooms,
            Bucket::Members => members,
            Bucket::RoomsByMember => rooms_by_member,
            Bucket::RoomKeys => room_keys,
            Bucket::Users => users,
        }
    }
}
