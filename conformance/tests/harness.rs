//! The suite as the test binary of a store: the arguments that it accepts, the targets that it
//! refuses, and how it ends when a store misbehaves.
//!
//! This binary is also the test binary under test: started with `TARGET` in its environment, it
//! runs the suite on the target of that name.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use membership::{
    Decision, EndpointId, Epoch, Error, Member, MemoryStore, NewMember, NewRoom, NewUser, Page,
    Rekey, Room, RoomId, SealedKey, Store, Timestamp, User, UserKey,
};
use membership_conformance::{Claim, Instance, Need, Target, TargetError, async_trait, harness};

const TARGET: &str = "MEMBERSHIP_TEST_TARGET";

fn main() -> ExitCode {
    if let Ok(how) = std::env::var(TARGET) {
        return harness::main(&targets(&how));
    }
    let trials = [
        ("a_sound_store_passes", a_sound_store_passes as fn()),
        ("two_filters_are_accepted", two_filters_are_accepted),
        ("an_unclaimed_case_is_ignored_even_if_it_is_selected", an_unclaimed_case_is_ignored),
        ("a_store_that_exits_ends_no_run_with_success", exits),
        ("a_store_that_blocks_its_thread_is_reported_and_ends_the_run", blocks),
        ("a_target_that_cannot_be_run_is_refused_in_one_line", refused),
        ("a_target_that_panics_is_refused", panics),
        ("claims_that_change_are_noticed", changes),
    ];
    let trials = trials.map(|(name, test)| Trial::test(name, move || caught(test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

fn caught(test: fn()) -> Result<(), Failed> {
    std::panic::catch_unwind(test).map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        Failed::from(said.unwrap_or_else(|| "a panic".to_owned()))
    })
}

/// A run's exit code and output.
struct Ended {
    code: Option<i32>,
    said: String,
}

/// Runs the suite on the target `how`. The run must end within a minute.
fn run(how: &str, arguments: &[&str]) -> Ended {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .env(TARGET, how)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).map(|_| text)
    });
    let prints = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + Duration::from_mins(1);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{how} has not ended");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = child.wait().unwrap();
    let said = errors.join().unwrap().unwrap() + &prints.join().unwrap().unwrap();
    Ended { code: status.code(), said }
}

const ONE: &str = "sound::decisions::an_unknown_key_is_denied_as_unknown";

fn a_sound_store_passes() {
    let ended = run("sound", &["rooms::", "--test-threads", "2"]);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(ended.said.contains("test result: ok"), "{}", ended.said);
}

fn two_filters_are_accepted() {
    let other = "sound::decisions::there_is_no_admin_in_an_empty_store";
    let ended = run("sound", &[ONE, "--exact", other]);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(ended.said.contains("2 passed"), "{}", ended.said);
}

fn an_unclaimed_case_is_ignored() {
    for flag in ["--include-ignored", "--ignored"] {
        let ended = run("sound", &["durability::", "corruption::", flag]);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        assert!(ended.said.contains("0 passed; 0 failed"), "{}", ended.said);
    }
}

fn exits() {
    let ended = run("exits", &["decisions::"]);
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains("error: the process ended with code 0"), "{}", ended.said);
}

fn blocks() {
    let ended = run("blocks", &[ONE]);
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    for part in ["TIME-1 ", "AUTH-1 ", "  again     MEMBERSHIP_SEED=", "blocked for ever"] {
        assert!(ended.said.contains(part), "no {part:?} in {}", ended.said);
    }
}

fn refused() {
    let refusals = [
        ("no name", "a target's name is empty"),
        ("breaks its name", "a target's name is \"so\\nund\""),
        ("twice", "two targets are named \"sound\""),
        ("an hour", "sound: its op_timeout is 3600s; it must be from 1ms to 30s"),
        ("for ever", "sound: its op_timeout is"),
        ("no time", "sound: its op_timeout is 0ns"),
        ("nothing", "no target was given"),
    ];
    for (how, why) in refusals {
        let ended = run(how, &["decisions::"]);
        assert_eq!(ended.code, Some(2), "{how}: {}", ended.said);
        assert!(ended.said.starts_with(&format!("error: {why}")), "{how}: {}", ended.said);
        assert_eq!(ended.said.lines().count(), 1, "{how}: {}", ended.said);
    }
}

fn panics() {
    for (how, why) in [
        ("claims panics", "error: sound: claims panicked: the trouble"),
        ("prepare panics", "error: sound: a panic: the trouble, in prepare"),
        ("finish panics", "error: sound: a panic: the trouble, in finish"),
    ] {
        let ended = run(how, &[ONE]);
        assert_eq!(ended.code, Some(2), "{how}: {}", ended.said);
        assert!(ended.said.contains(why), "{how}: {}", ended.said);
    }
}

fn changes() {
    let ended = run("changes", &["decisions::"]);
    assert_ne!(ended.code, Some(0), "{}", ended.said);
    assert!(ended.said.contains("its claim of several clients changed"), "{}", ended.said);
}

fn targets(how: &str) -> Vec<Arc<dyn Target>> {
    let target =
        || -> Arc<dyn Target> { Arc::new(Odd { how: how.to_owned(), asked: AtomicUsize::new(0) }) };
    match how {
        "nothing" => Vec::new(),
        "twice" => vec![target(), target()],
        _ => vec![target()],
    }
}

/// The memory store, with the misbehavior `how`.
struct Odd {
    how: String,
    /// How many claims the target was asked for.
    asked: AtomicUsize,
}

impl Odd {
    fn panics(&self, here: &str) {
        assert!(self.how != here, "the trouble");
    }
}

#[async_trait]
impl Target for Odd {
    fn name(&self) -> &str {
        match self.how.as_str() {
            "no name" => "",
            "breaks its name" => "so\nund",
            _ => "sound",
        }
    }

    fn op_timeout(&self) -> Duration {
        match self.how.as_str() {
            "an hour" => Duration::from_hours(1),
            "for ever" => Duration::MAX,
            "no time" => Duration::ZERO,
            _ => Duration::from_millis(500),
        }
    }

    fn claims(&self, need: Need) -> Claim {
        self.panics("claims panics");
        // The claims are asked for twice before the run, and must be the same then.
        let later = self.asked.fetch_add(1, Ordering::SeqCst) >= 2 * Need::ALL.len();
        match need {
            Need::Clients if self.how != "changes" || !later => Claim::Claimed,
            _ => Claim::Declined("it is in memory"),
        }
    }

    async fn prepare(&self) -> Result<Option<String>, TargetError> {
        self.panics("prepare panics");
        Ok(None)
    }

    async fn finish(&self) {
        self.panics("finish panics");
    }

    async fn create(&self) -> Result<Box<dyn Instance>, TargetError> {
        Ok(Box::new(Data { how: self.how.clone(), store: MemoryStore::new() }))
    }
}

struct Data {
    how: String,
    store: MemoryStore,
}

#[async_trait]
impl Instance for Data {
    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        Ok(Arc::new(OddStore { how: self.how.clone(), store: self.store.client() }))
    }
}

struct OddStore {
    how: String,
    store: MemoryStore,
}

#[async_trait]
impl Store for OddStore {
    async fn is_authorized(&self, key: &UserKey) -> Decision {
        match self.how.as_str() {
            "exits" => std::process::exit(0),
            "blocks" => loop {
                std::thread::park();
            },
            _ => self.store.is_authorized(key).await,
        }
    }

    async fn create_room(&self, new: NewRoom) -> Result<Room, Error> {
        self.store.create_room(new).await
    }

    async fn room(&self, room: &RoomId) -> Result<Room, Error> {
        self.store.room(room).await
    }

    async fn rooms_of(&self, who: &EndpointId, page: Page<RoomId>) -> Result<Vec<Room>, Error> {
        self.store.rooms_of(who, page).await
    }

    async fn delete_room(&self, room: &RoomId) -> Result<(), Error> {
        self.store.delete_room(room).await
    }

    async fn add_member(&self, room: &RoomId, new: NewMember) -> Result<Member, Error> {
        self.store.add_member(room, new).await
    }

    async fn member(&self, room: &RoomId, who: &EndpointId) -> Result<Member, Error> {
        self.store.member(room, who).await
    }

    async fn members(&self, room: &RoomId, page: Page<EndpointId>) -> Result<Vec<Member>, Error> {
        self.store.members(room, page).await
    }

    async fn remove_member(&self, room: &RoomId, who: &EndpointId) -> Result<(), Error> {
        self.store.remove_member(room, who).await
    }

    async fn rekey(&self, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        self.store.rekey(room, rekey).await
    }

    async fn key(&self, room: &RoomId, who: &EndpointId, epoch: Epoch) -> Result<SealedKey, Error> {
        self.store.key(room, who, epoch).await
    }

    async fn latest_key(&self, room: &RoomId, who: &EndpointId) -> Result<SealedKey, Error> {
        self.store.latest_key(room, who).await
    }

    async fn bootstrap_admin(&self, new: NewUser) -> Result<User, Error> {
        self.store.bootstrap_admin(new).await
    }

    async fn add_user(&self, new: NewUser) -> Result<User, Error> {
        self.store.add_user(new).await
    }

    async fn user(&self, key: &UserKey) -> Result<User, Error> {
        self.store.user(key).await
    }

    async fn users(&self, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        self.store.users(page).await
    }

    async fn revoke_user(&self, key: &UserKey, at: Timestamp) -> Result<(), Error> {
        self.store.revoke_user(key, at).await
    }

    async fn is_admin(&self, key: &UserKey) -> Decision {
        self.store.is_admin(key).await
    }

    async fn has_admin(&self) -> Result<bool, Error> {
        self.store.has_admin().await
    }

    async fn close(&self) -> Result<(), Error> {
        self.store.close().await
    }
}
