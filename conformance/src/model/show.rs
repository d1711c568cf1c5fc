use std::fmt::Write;

use membership::{NewMember, NewRoom, NewUser, Page};

use super::{Model, Op};
use crate::show::Show;

impl Show for Op {
    fn show(&self) -> String {
        match self {
            Self::CreateRoom(NewRoom { id, owner, created_at, owner_key }) => {
                let key = match owner_key {
                    Some(key) => format!("encrypted, key {}", key.show()),
                    None => "unencrypted".to_owned(),
                };
                format!("create_room({id:?}, owner {owner:?}, {key}, at {created_at})")
            }
            Self::Room(room) => format!("room({room:?})"),
            Self::RoomsOf(endpoint, page) => format!("rooms_of({endpoint:?}{})", show_page(page)),
            Self::DeleteRoom(room) => format!("delete_room({room:?})"),
            Self::AddMember(room, NewMember { endpoint, added_at, key }) => {
                let key = match key {
                    Some((epoch, key)) => format!("key {} for epoch {epoch}", key.show()),
                    None => "no key".to_owned(),
                };
                format!("add_member({room:?}, {endpoint:?}, {key}, at {added_at})")
            }
            Self::Member(room, endpoint) => format!("member({room:?}, {endpoint:?})"),
            Self::Members(room, page) => format!("members({room:?}{})", show_page(page)),
            Self::RemoveMember(room, endpoint) => format!("remove_member({room:?}, {endpoint:?})"),
            Self::Rekey(room, rekey) => {
                let remove: Vec<_> = rekey.remove().iter().collect();
                let keys: Vec<_> =
                    rekey.keys().iter().map(|(e, key)| format!("{e:?}: {}", key.show())).collect();
                let keys = match keys.as_slice() {
                    [first, .., last] if keys.len() > 12 => {
                        format!("{first}, … {} more …, {last}", keys.len() - 2)
                    }
                    few => few.join(", "),
                };
                let (from, remove) = (rekey.from(), remove.show());
                format!("rekey({room:?}, from {from}, remove {remove}, keys {{{keys}}})")
            }
            Self::Key(room, endpoint, epoch) => {
                format!("key({room:?}, {endpoint:?}, epoch {epoch})")
            }
            Self::LatestKey(room, endpoint) => format!("latest_key({room:?}, {endpoint:?})"),
            Self::BootstrapAdmin(new) => format!("bootstrap_admin({})", show_new_user(new)),
            Self::AddUser(new) => format!("add_user({})", show_new_user(new)),
            Self::User(key) => format!("user({key})"),
            Self::Users(page) => {
                format!("users({})", show_page(page).trim_start_matches(", "))
            }
            Self::RevokeUser(key, at) => format!("revoke_user({key}, at {at})"),
            Self::IsAuthorized(key) => format!("is_authorized({key})"),
            Self::IsAdmin(key) => format!("is_admin({key})"),
            Self::HasAdmin => "has_admin()".to_owned(),
            Self::Close => "close()".to_owned(),
        }
    }
}

/// Shows every record on a line of its own.
impl Show for Model {
    fn show(&self) -> String {
        let mut lines: Vec<_> = self.rooms.values().map(Show::show).collect();
        lines.extend(self.members.values().map(Show::show));
        lines.extend(self.keys.iter().map(|((room, endpoint, epoch), key)| {
            format!("key {} of {endpoint:?} for epoch {epoch} of {room:?}", key.show())
        }));
        lines.extend(self.users.values().map(Show::show));
        if self.admin_ever {
            lines.push("there was an admin".to_owned());
        }
        lines.join("\n")
    }
}

fn show_page<Id: Show>(page: &Page<Id>) -> String {
    let mut text = page.after().map(|id| format!(", after {}", id.show())).unwrap_or_default();
    if page.limit() != usize::from(Page::<Id>::MAX_LIMIT) {
        let _ = write!(text, ", limit {}", page.limit());
    }
    text
}

fn show_new_user(new: &NewUser) -> String {
    let NewUser { key, label, admin, added_at } = new;
    let admin = if *admin { ", admin" } else { "" };
    format!("{key} {label:?}{admin}, at {added_at}")
}
