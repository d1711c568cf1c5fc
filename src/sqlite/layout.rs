//! The layout of each record as a row: its columns in order, its checksum, and how it is read back.
//!
//! Each table has one struct, which borrows from a record that is to be written, or from a row that
//! was read. `read` checks the checksum, and `parse` uses the types' own constructors. A row that
//! fails either check is [`Corrupt`](Error::Corrupt).

use rusqlite::Row;

use super::columns::{Columns, Problem};
use super::defect::{self, SqliteDefect};
use super::sum::Sum;
use crate::decision::Standing;
use crate::{
    Ciphertext, EndpointId, Epoch, Error, Label, Member, Page, Role, Room, RoomId, SealedKey,
    Timestamp, User, UserKey,
};

/// A row of the table `rooms`.
pub(super) struct RoomRow<'a> {
    pub(super) id: &'a str,
    pub(super) owner: &'a str,
    pub(super) encrypted: bool,
    pub(super) epoch: i64,
    pub(super) rekey_due: bool,
    pub(super) created_at: i64,
}

impl<'a> RoomRow<'a> {
    pub(super) fn of(room: &'a Room) -> Self {
        Self {
            id: room.id.as_str(),
            owner: room.owner.as_str(),
            encrypted: room.encrypted,
            epoch: epoch_column(room.epoch),
            rekey_due: room.rekey_due,
            created_at: room.created_at.as_millis(),
        }
    }

    /// Columns: `id, owner, encrypted, epoch, rekey_due, created_at`.
    pub(super) fn unsealed(columns: &mut Columns<'a>) -> Result<Self, Problem> {
        Ok(Self {
            id: columns.text()?,
            owner: columns.text()?,
            encrypted: columns.flag()?,
            epoch: columns.int()?,
            rekey_due: columns.flag()?,
            created_at: columns.int()?,
        })
    }

    pub(super) fn sum(&self) -> i64 {
        Sum::of("rooms")
            .text(self.id)
            .text(self.owner)
            .flag(self.encrypted)
            .int(self.epoch)
            .flag(self.rekey_due)
            .int(self.created_at)
            .finish()
    }

    /// The room in a row of `id, owner, encrypted, epoch, rekey_due, created_at, sum`.
    pub(super) fn decode(row: &'a Row<'_>) -> Result<Room, Problem> {
        let mut columns = Columns::of(row);
        let found = Self::unsealed(&mut columns)?;
        check(found.sum(), &mut columns)?;
        found.parse()
    }

    pub(super) fn parse(&self) -> Result<Room, Problem> {
        let epoch = parse_epoch(self.epoch)?;
        if self.encrypted == (epoch == Epoch::ZERO) || (self.rekey_due && !self.encrypted) {
            return Err("has an epoch or a rekey due that does not go with its kind".to_owned());
        }
        Ok(Room {
            id: RoomId::new(self.id).map_err(text)?,
            owner: EndpointId::new(self.owner).map_err(text)?,
            encrypted: self.encrypted,
            epoch,
            rekey_due: self.rekey_due,
            created_at: Timestamp::from_millis(self.created_at),
        })
    }
}

/// A row of the table `members`.
pub(super) struct MemberRow<'a> {
    pub(super) room: &'a str,
    pub(super) endpoint: &'a str,
    pub(super) owner: bool,
    pub(super) joined_epoch: i64,
    pub(super) added_at: i64,
}

impl<'a> MemberRow<'a> {
    pub(super) fn of(member: &'a Member) -> Self {
        Self {
            room: member.room.as_str(),
            endpoint: member.endpoint.as_str(),
            owner: member.role == Role::Owner,
            joined_epoch: epoch_column(member.joined_epoch),
            added_at: member.added_at.as_millis(),
        }
    }

    /// Columns: `room, endpoint, owner, joined_epoch, added_at`.
    pub(super) fn unsealed(columns: &mut Columns<'a>) -> Result<Self, Problem> {
        Ok(Self {
            room: columns.text()?,
            endpoint: columns.text()?,
            owner: columns.flag()?,
            joined_epoch: columns.int()?,
            added_at: columns.int()?,
        })
    }

    pub(super) fn sum(&self) -> i64 {
        Sum::of("members")
            .text(self.room)
            .text(self.endpoint)
            .flag(self.owner)
            .int(self.joined_epoch)
            .int(self.added_at)
            .finish()
    }

    /// The checked row of `room, endpoint, owner, joined_epoch, added_at, sum`.
    pub(super) fn read(row: &'a Row<'_>) -> Result<Self, Problem> {
        let mut columns = Columns::of(row);
        let found = Self::unsealed(&mut columns)?;
        check(found.sum(), &mut columns)?;
        Ok(found)
    }

    pub(super) fn parse(&self) -> Result<Member, Problem> {
        Ok(Member {
            room: RoomId::new(self.room).map_err(text)?,
            endpoint: EndpointId::new(self.endpoint).map_err(text)?,
            role: if self.owner { Role::Owner } else { Role::Member },
            joined_epoch: parse_epoch(self.joined_epoch)?,
            added_at: Timestamp::from_millis(self.added_at),
        })
    }
}

/// A row of the table `room_keys`.
pub(super) struct KeyRow<'a> {
    pub(super) room: &'a str,
    pub(super) epoch: i64,
    pub(super) endpoint: &'a str,
    pub(super) ciphertext: &'a [u8],
}

impl<'a> KeyRow<'a> {
    pub(super) fn new(
        room: &'a RoomId,
        epoch: Epoch,
        endpoint: &'a EndpointId,
        ciphertext: &'a Ciphertext,
    ) -> Self {
        Self {
            room: room.as_str(),
            epoch: epoch_column(epoch),
            endpoint: endpoint.as_str(),
            ciphertext: ciphertext.as_bytes(),
        }
    }

    /// Columns: `room, epoch, endpoint, ciphertext`.
    pub(super) fn unsealed(columns: &mut Columns<'a>) -> Result<Self, Problem> {
        Ok(Self {
            room: columns.text()?,
            epoch: columns.int()?,
            endpoint: columns.text()?,
            ciphertext: columns.blob()?,
        })
    }

    pub(super) fn sum(&self) -> i64 {
        Sum::of("room_keys")
            .text(self.room)
            .int(self.epoch)
            .text(self.endpoint)
            .blob(self.ciphertext)
            .finish()
    }

    /// The sealed key in a row of `room, epoch, endpoint, ciphertext, sum`.
    pub(super) fn decode(row: &'a Row<'_>) -> Result<SealedKey, Problem> {
        let mut columns = Columns::of(row);
        let found = Self::unsealed(&mut columns)?;
        check(found.sum(), &mut columns)?;
        found.parse()
    }

    pub(super) fn parse(&self) -> Result<SealedKey, Problem> {
        Ok(SealedKey {
            room: RoomId::new(self.room).map_err(text)?,
            epoch: parse_epoch(self.epoch)?,
            endpoint: EndpointId::new(self.endpoint).map_err(text)?,
            ciphertext: Ciphertext::new(self.ciphertext).map_err(text)?,
        })
    }
}

/// A row of the table `users`.
pub(super) struct UserRow<'a> {
    pub(super) key: &'a [u8],
    pub(super) label: &'a str,
    pub(super) admin: bool,
    pub(super) revoked: bool,
    pub(super) added_at: i64,
    pub(super) revoked_at: Option<i64>,
}

impl<'a> UserRow<'a> {
    pub(super) fn of(user: &'a User) -> Self {
        Self {
            key: user.key.as_bytes(),
            label: user.label.as_str(),
            admin: user.admin,
            revoked: user.revoked,
            added_at: user.added_at.as_millis(),
            revoked_at: user.revoked_at.map(Timestamp::as_millis),
        }
    }

    /// Columns: `key, label, admin, revoked, added_at, revoked_at`.
    pub(super) fn unsealed(columns: &mut Columns<'a>) -> Result<Self, Problem> {
        Ok(Self {
            key: columns.blob()?,
            label: columns.text()?,
            admin: columns.flag()?,
            revoked: columns.flag()?,
            added_at: columns.int()?,
            revoked_at: columns.maybe()?,
        })
    }

    pub(super) fn sum(&self) -> i64 {
        Sum::of("users")
            .blob(self.key)
            .text(self.label)
            .flag(self.admin)
            .flag(self.revoked)
            .int(self.added_at)
            .maybe(self.revoked_at)
            .finish()
    }

    /// Reads a row of `key, label, admin, revoked, added_at, revoked_at, sum`, and whether the
    /// table `revocations` has the key. Checks the checksum, and that `users` and `revocations`
    /// agree on the revocation.
    pub(super) fn read(row: &'a Row<'_>) -> Result<Self, Problem> {
        let mut columns = Columns::of(row);
        let found = Self::unsealed(&mut columns)?;
        check(found.sum(), &mut columns)?;
        if found.revoked != columns.flag()? && !defect::is(SqliteDefect::SkipsTheWitness) {
            return Err("is revoked in one of users and revocations, and not in the other".into());
        }
        Ok(found)
    }

    fn makes_sense(&self) -> Result<(), Problem> {
        if self.revoked == self.revoked_at.is_some() {
            Ok(())
        } else {
            Err("has a time of revocation that does not go with its state".to_owned())
        }
    }

    pub(super) fn standing(&self) -> Result<Standing, Problem> {
        self.makes_sense()?;
        Ok(Standing { admin: self.admin, revoked: self.revoked })
    }

    pub(super) fn parse(&self) -> Result<User, Problem> {
        let key = self.key.try_into().map_err(|_| "has a key that is not 32 bytes long")?;
        self.makes_sense()?;
        Ok(User {
            key: UserKey::from_bytes(key),
            label: Label::new(self.label).map_err(text)?,
            admin: self.admin,
            revoked: self.revoked,
            added_at: Timestamp::from_millis(self.added_at),
            revoked_at: self.revoked_at.map(Timestamp::from_millis),
        })
    }
}

/// The checksum of the one row of the table `bootstrap`.
pub(super) fn bootstrap_sum(admin_made: bool) -> i64 {
    Sum::of("bootstrap").flag(admin_made).finish()
}

pub(super) fn check(sum: i64, columns: &mut Columns<'_>) -> Result<(), Problem> {
    if sum == columns.int()? || defect::is(SqliteDefect::SkipsChecksums) {
        Ok(())
    } else {
        Err("does not match its checksum".to_owned())
    }
}

/// The epoch as SQLite stores it. An epoch is at most 2^53 − 1, so it always fits.
pub(super) fn epoch_column(epoch: Epoch) -> i64 {
    i64::try_from(epoch.get()).unwrap_or(i64::MAX)
}

/// The limit of a page as SQLite takes it. A limit is at most 1000, so it always fits.
pub(super) fn limit_column<Id>(page: &Page<Id>) -> i64 {
    i64::try_from(page.limit()).unwrap_or(i64::MAX)
}

fn parse_epoch(column: i64) -> Result<Epoch, Problem> {
    let number = u64::try_from(column).map_err(|_| "has a negative epoch")?;
    Epoch::new(number).map_err(text)
}

// The error is taken by value, so that this function fits `map_err`.
#[expect(clippy::needless_pass_by_value)]
fn text(error: Error) -> Problem {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The checksums of these rows are right, and the rows are refused all the same.
    #[rstest]
    #[case::encrypted_without_an_epoch(true, 0, false)]
    #[case::plain_with_an_epoch(false, 1, false)]
    #[case::plain_with_a_rekey_due(false, 0, true)]
    #[case::no_epoch(true, -1, false)]
    fn a_room_that_contradicts_itself_is_none(
        #[case] encrypted: bool,
        #[case] epoch: i64,
        #[case] rekey_due: bool,
    ) {
        let sound = RoomRow {
            id: "r",
            owner: "o",
            encrypted: true,
            epoch: 1,
            rekey_due: true,
            created_at: 0,
        };
        assert!(sound.parse().is_ok());
        assert!(RoomRow { encrypted, epoch, rekey_due, ..sound }.parse().is_err());
    }

    #[rstest]
    #[case::in_force_with_a_time(false, Some(1))]
    #[case::revoked_at_no_time(true, None)]
    fn a_user_that_contradicts_itself_is_none(
        #[case] revoked: bool,
        #[case] revoked_at: Option<i64>,
    ) {
        let key = [1; 32];
        let sound = UserRow {
            key: &key,
            label: "ann",
            admin: false,
            revoked: true,
            added_at: 0,
            revoked_at: Some(1),
        };
        assert!(sound.parse().is_ok());
        assert!(UserRow { revoked, revoked_at, ..sound }.parse().is_err());
    }
}
