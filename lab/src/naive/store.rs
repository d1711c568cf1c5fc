use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use membership::{
    Ciphertext, Conflict, Decision, DenyReason, EndpointId, Epoch, Error, JetStreamConfig, Member,
    NewMember, NewRoom, NewUser, Page, Record, Rekey, Role, Room, RoomId, SealedKey, Store,
    Timestamp, User, UserKey,
};

use super::bucket::Bucket;
use super::record::{MemberRecord, RoomRecord, UserRecord, hex, last_id};

/// The key of a record that is created with the first admin, so that there is only one bootstrap.
const BOOTSTRAPPED: &str = "bootstrapped";

pub(super) struct NaiveKv {
    rooms: Bucket,
    members: Bucket,
    rooms_by_member: Bucket,
    room_keys: Bucket,
    users: Bucket,
    op_timeout: Duration,
    closed: AtomicBool,
}

impl NaiveKv {
    pub(super) async fn open(config: &JetStreamConfig) -> Result<Self, Error> {
        let options = async_nats::ConnectOptions::new().ignore_discovered_servers();
        let client =
            options.connect(config.servers.as_slice()).await.map_err(Error::unavailable)?;
        let jetstream = async_nats::jetstream::new(client);
        let bucket =
            |name| Bucket::open(&jetstream, format!("{}{name}", config.prefix), config.replicas);
        Ok(Self {
            rooms: bucket("rooms").await?,
            members: bucket("members").await?,
            rooms_by_member: bucket("rooms_by_member").await?,
            room_keys: bucket("room_keys").await?,
            users: bucket("users").await?,
            op_timeout: config.op_timeout,
            closed: AtomicBool::new(false),
        })
    }

    /// Runs a call with the deadline of the naive store.
    async fn call<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        tokio::time::timeout(self.op_timeout, call).await.unwrap_or(Err(Error::Timeout))
    }

    async fn find_room(&self, id: &RoomId) -> Result<(Room, u64), Error> {
        let found = self.rooms.get::<RoomRecord>(&hex(id.as_str())).await?;
        let (record, revision) = found.ok_or_else(|| Error::NotFound(Record::Room(id.clone())))?;
        Ok((record.room(id)?, revision))
    }

    async fn find_member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<Member, Error> {
        let found = self.members.get::<MemberRecord>(&in_room(room, endpoint)).await?;
        let missing = || Record::Member { room: room.clone(), endpoint: endpoint.clone() };
        found.ok_or_else(|| Error::NotFound(missing()))?.0.member(room, endpoint)
    }

    async fn members_of(&self, room: &RoomId) -> Result<Vec<Member>, Error> {
        let mut all = Vec::new();
        for key in self.members.keys(&format!("{}.", hex(room.as_str()))).await? {
            let endpoint: EndpointId = last_id(&key)?.parse()?;
            if let Some((record, _)) = self.members.get::<MemberRecord>(&key).await? {
                all.push(record.member(room, &endpoint)?);
            }
        }
        all.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        Ok(all)
    }

    async fn put_member(&self, member: &Member, key: Option<&Ciphertext>) -> Result<(), Error> {
        if let Some(key) = key {
            self.put_key(&member.room, &member.endpoint, member.joined_epoch, key).await?;
        }
        self.rooms_by_member.put(&of_member(&member.endpoint, &member.room), &()).await?;
        let key = in_room(&member.room, &member.endpoint);
        self.members.put(&key, &MemberRecord::new(member)).await
    }

    async fn put_key(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
        key: &Ciphertext,
    ) -> Result<(), Error> {
        self.room_keys.put(&sealed(room, endpoint, epoch), &key.as_bytes()).await
    }

    async fn take_member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<(), Error> {
        self.members.delete(&in_room(room, endpoint)).await?;
        self.rooms_by_member.delete(&of_member(endpoint, room)).await?;
        for key in self.room_keys.keys(&format!("{}.", in_room(room, endpoint))).await? {
            self.room_keys.delete(&key).await?;
        }
        Ok(())
    }

    async fn find_key(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Option<Epoch>,
    ) -> Result<SealedKey, Error> {
        let current = self.find_room(room).await?.0.epoch;
        let asked = epoch.unwrap_or(current);
        let found = self.room_keys.get::<Vec<u8>>(&sealed(room, endpoint, asked)).await?;
        let missing = || Record::Key { room: room.clone(), endpoint: endpoint.clone(), epoch };
        let (bytes, _) = found.ok_or_else(|| Error::NotFound(missing()))?;
        let ciphertext = Ciphertext::new(bytes)?;
        Ok(SealedKey { room: room.clone(), epoch: asked, endpoint: endpoint.clone(), ciphertext })
    }

    async fn find_user(&self, key: &UserKey) -> Result<Option<(UserRecord, u64)>, Error> {
        self.users.get::<UserRecord>(&person(key)).await
    }

    async fn all_users(&self) -> Result<Vec<User>, Error> {
        let mut all = Vec::new();
        for name in self.users.keys("user.").await? {
            let key: UserKey = name.trim_start_matches("user.").parse()?;
            if let Some((record, _)) = self.find_user(&key).await? {
                all.push(record.user(key)?);
            }
        }
        all.sort_by_key(|user| user.key);
        Ok(all)
    }

    async fn decide(&self, key: &UserKey, as_admin: bool) -> Decision {
        match self.call(self.find_user(key)).await {
            Err(error) => error.into(),
            Ok(None) => Decision::Deny(DenyReason::Unknown),
            Ok(Some((user, _))) if user.revoked_at.is_some() => Decision::Deny(DenyReason::Revoked),
            Ok(Some((user, _))) if as_admin && !user.admin => Decision::Deny(DenyReason::NotAdmin),
            Ok(Some(_)) => Decision::Allow,
        }
    }

    async fn create_user(&self, new: NewUser) -> Result<User, Error> {
        if !self.users.create(&person(&new.key), &UserRecord::new(&new)).await? {
            return Err(Error::AlreadyExists(Record::User(new.key)));
        }
        Ok(new.user())
    }
}

#[async_trait]
impl Store for NaiveKv {
    async fn create_room(&self, new: NewRoom) -> Result<Room, Error> {
        self.call(async {
            let room = new.room();
            if !self.rooms.create(&hex(new.id.as_str()), &RoomRecord::new(&room)).await? {
                return Err(Error::AlreadyExists(Record::Room(new.id.clone())));
            }
            self.put_member(&new.owner_member(), new.owner_key.as_ref()).await?;
            Ok(room)
        })
        .await
    }

    async fn room(&self, room: &RoomId) -> Result<Room, Error> {
        self.call(async { Ok(self.find_room(room).await?.0) }).await
    }

    async fn rooms_of(
        &self,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        self.call(async {
            let mut rooms = Vec::new();
            let prefix = format!("{}.", hex(endpoint.as_str()));
            for key in self.rooms_by_member.keys(&prefix).await? {
                let id: RoomId = last_id(&key)?.parse()?;
                rooms.push(self.find_room(&id).await?.0);
            }
            rooms.sort_by(|a, b| a.id.cmp(&b.id));
            Ok(cut(rooms, &page, |room| room.id.clone()))
        })
        .await
    }

    async fn delete_room(&self, room: &RoomId) -> Result<(), Error> {
        self.call(async {
            self.find_room(room).await?;
            self.rooms.delete(&hex(room.as_str())).await?;
            for member in self.members_of(room).await? {
                self.take_member(room, &member.endpoint).await?;
            }
            Ok(())
        })
        .await
    }

    async fn add_member(&self, room: &RoomId, new: NewMember) -> Result<Member, Error> {
        self.call(async {
            let (found, _) = self.find_room(room).await?;
            match &new.key {
                Some(_) if !found.encrypted => return Err(Conflict::RoomUnencrypted.into()),
                None if found.encrypted => return Err(Conflict::KeyMissing.into()),
                _ => {}
            }
            if self.find_member(room, &new.endpoint).await.is_ok() {
                let (room, endpoint) = (room.clone(), new.endpoint.clone());
                return Err(Error::AlreadyExists(Record::Member { room, endpoint }));
            }
            if new.key.as_ref().is_some_and(|(epoch, _)| *epoch != found.epoch) {
                return Err(Error::StaleEpoch { current: found.epoch });
            }
            let member = Member {
                room: room.clone(),
                endpoint: new.endpoint.clone(),
                role: Role::Member,
                joined_epoch: found.epoch,
                added_at: new.added_at,
            };
            self.put_member(&member, new.key.as_ref().map(|(_, key)| key)).await?;
            Ok(member)
        })
        .await
    }

    async fn member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<Member, Error> {
        self.call(async {
            self.find_room(room).await?;
            self.find_member(room, endpoint).await
        })
        .await
    }

    async fn members(&self, room: &RoomId, page: Page<EndpointId>) -> Result<Vec<Member>, Error> {
        self.call(async {
            self.find_room(room).await?;
            Ok(cut(self.members_of(room).await?, &page, |member| member.endpoint.clone()))
        })
        .await
    }

    async fn remove_member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<(), Error> {
        self.call(async {
            let (found, revision) = self.find_room(room).await?;
            if self.find_member(room, endpoint).await?.role == Role::Owner {
                return Err(Conflict::OwnerStays.into());
            }
            self.take_member(room, endpoint).await?;
            if found.encrypted {
                let due = RoomRecord { rekey_due: true, ..RoomRecord::new(&found) };
                self.rooms.update(&hex(room.as_str()), &due, revision).await?;
            }
            Ok(())
        })
        .await
    }

    async fn rekey(&self, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        self.call(async {
            let (found, revision) = self.find_room(room).await?;
            if !found.encrypted {
                return Err(Conflict::RoomUnencrypted.into());
            }
            if rekey.from() != found.epoch {
                return Err(Error::StaleEpoch { current: found.epoch });
            }
            for endpoint in rekey.remove() {
                if self.find_member(room, endpoint).await?.role == Role::Owner {
                    return Err(Conflict::OwnerStays.into());
                }
            }
            let epoch = found.epoch.next().ok_or(Conflict::LastEpoch)?;
            let members = self.members_of(room).await?;
            let remain = members.iter().map(|member| &member.endpoint);
            let remain: Vec<_> = remain.filter(|who| !rekey.remove().contains(*who)).collect();
            if let Some(mismatch) = Conflict::keys_mismatch(
                remain.iter().copied().filter(|who| !rekey.keys().contains_key(*who)),
                rekey.keys().keys().filter(|who| !remain.contains(who)),
            ) {
                return Err(mismatch.into());
            }
            for (endpoint, key) in rekey.keys() {
                self.put_key(room, endpoint, epoch, key).await?;
            }
            let next = Room { epoch, rekey_due: false, ..found };
            let record = RoomRecord::new(&next);
            if !self.rooms.update(&hex(room.as_str()), &record, revision).await? {
                let current = self.find_room(room).await?.0.epoch;
                return Err(Error::StaleEpoch { current });
            }
            for endpoint in rekey.remove() {
                self.take_member(room, endpoint).await?;
            }
            Ok(next)
        })
        .await
    }

    async fn key(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        self.call(self.find_key(room, endpoint, Some(epoch))).await
    }

    async fn latest_key(&self, room: &RoomId, endpoint: &EndpointId) -> Result<SealedKey, Error> {
        self.call(self.find_key(room, endpoint, None)).await
    }

    async fn bootstrap_admin(&self, new: NewUser) -> Result<User, Error> {
        self.call(async {
            if !self.users.create(BOOTSTRAPPED, &true).await? {
                return Err(Conflict::AdminExists.into());
            }
            self.create_user(NewUser { admin: true, ..new }).await
        })
        .await
    }

    async fn add_user(&self, new: NewUser) -> Result<User, Error> {
        self.call(async {
            let user = self.create_user(new).await?;
            if user.admin {
                self.users.create(BOOTSTRAPPED, &true).await?;
            }
            Ok(user)
        })
        .await
    }

    async fn user(&self, key: &UserKey) -> Result<User, Error> {
        self.call(async {
            let found = self.find_user(key).await?;
            found.ok_or(Error::NotFound(Record::User(*key)))?.0.user(*key)
        })
        .await
    }

    async fn users(&self, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        self.call(async { Ok(cut(self.all_users().await?, &page, |user| user.key)) }).await
    }

    async fn revoke_user(&self, key: &UserKey, at: Timestamp) -> Result<(), Error> {
        self.call(async {
            loop {
                let found = self.find_user(key).await?;
                let (user, revision) = found.ok_or(Error::NotFound(Record::User(*key)))?;
                if user.revoked_at.is_some() {
                    return Ok(());
                }
                let other = |user: &User| user.admin && !user.revoked && user.key != *key;
                if user.admin && !self.all_users().await?.iter().any(other) {
                    return Err(Conflict::LastAdmin.into());
                }
                let revoked = UserRecord { revoked_at: Some(at.as_millis()), ..user };
                if self.users.update(&person(key), &revoked, revision).await? {
                    return Ok(());
                }
            }
        })
        .await
    }

    async fn is_authorized(&self, key: &UserKey) -> Decision {
        self.decide(key, false).await
    }

    async fn is_admin(&self, key: &UserKey) -> Decision {
        self.decide(key, true).await
    }

    async fn has_admin(&self) -> Result<bool, Error> {
        self.call(async {
            Ok(self.all_users().await?.iter().any(|user| user.admin && !user.revoked))
        })
        .await
    }

    async fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

fn in_room(room: &RoomId, endpoint: &EndpointId) -> String {
    format!("{}.{}", hex(room.as_str()), hex(endpoint.as_str()))
}

fn of_member(endpoint: &EndpointId, room: &RoomId) -> String {
    format!("{}.{}", hex(endpoint.as_str()), hex(room.as_str()))
}

fn sealed(room: &RoomId, endpoint: &EndpointId, epoch: Epoch) -> String {
    format!("{}.{epoch}", in_room(room, endpoint))
}

fn person(key: &UserKey) -> String {
    format!("user.{key}")
}

/// One page of a sorted list.
fn cut<T, Id: Ord>(all: Vec<T>, page: &Page<Id>, id: impl Fn(&T) -> Id) -> Vec<T> {
    let after = |record: &T| page.after().is_none_or(|after| id(record) > *after);
    all.into_iter().filter(after).take(page.limit()).collect()
}
