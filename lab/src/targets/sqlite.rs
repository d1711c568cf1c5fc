mod past;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use membership::{Epoch, Error, Record, RoomId, SqliteConfig, SqliteDefect, SqliteStore, Store};
use rusqlite::Connection;
use tempfile::TempDir;

use membership_conformance::power::{self, Files};
use membership_conformance::{
    Claim, Fault, Instance, Loss, Need, Replacement, Rewind, Stored, Target, TargetError,
};

/// [`SqliteStore`] as a target. Each store is a file in a directory of its own.
#[derive(Debug)]
pub struct Sqlite {
    name: &'static str,
    defect: Option<SqliteDefect>,
}

impl Default for Sqlite {
    fn default() -> Self {
        Self { name: "sqlite", defect: None }
    }
}

impl Sqlite {
    /// The store with this defect in its own code.
    pub(crate) fn broken(name: &'static str, defect: SqliteDefect) -> Self {
        Self { name, defect: Some(defect) }
    }

    fn instance(&self, path: PathBuf, dir: Option<TempDir>) -> Box<dyn Instance> {
        let config = SqliteConfig { op_timeout: OP_TIMEOUT, ..SqliteConfig::new(path) };
        let defect = self.defect;
        Box::new(SqliteInstance { config, defect, _dir: dir, fault: Mutex::default() })
    }
}

const OP_TIMEOUT: Duration = Duration::from_secs(1);

/// In SQLite, readers go on while another connection writes; only writers wait for one another.
const LOCKED: Fault = Fault {
    name: "another connection writes and does not end",
    stops_reads: false,
    stops_writes: true,
};
/// Faults that a person with an SQL shell can cause and undo.
const GONE: Fault =
    Fault { name: "the tables were renamed", stops_reads: true, stops_writes: true };

const TABLES: [&str; 4] = ["rooms", "members", "room_keys", "users"];

#[async_trait]
impl Target for Sqlite {
    fn name(&self) -> &str {
        self.name
    }

    fn op_timeout(&self) -> Duration {
        OP_TIMEOUT
    }

    fn claims(&self, need: Need) -> Claim {
        match need {
            Need::Replicas | Need::Synced => Claim::Declined("one file"),
            Need::Bounded | Need::Suspend => Claim::Declined("it is never out of date"),
            Need::Downgrade => Claim::Declined("the library is part of the store"),
            Need::PowerCuts => power::claim(),
            Need::Unsynced => Claim::Declined("it syncs each commit"),
            _ => Claim::Claimed,
        }
    }

    fn faults(&self) -> &[Fault] {
        &[LOCKED, GONE]
    }

    /// The failover time is short: there are no elections, and a client whose file was replaced
    /// never recovers.
    fn failover(&self) -> Duration {
        OP_TIMEOUT
    }

    fn rewinds(&self) -> &[Rewind] {
        past::REWINDS
    }

    fn replacements(&self) -> &[Replacement] {
        past::REPLACEMENTS
    }

    fn losses(&self) -> &[Loss] {
        past::LOSSES
    }

    async fn create(&self) -> Result<Box<dyn Instance>, TargetError> {
        let dir = directory()?;
        // A folder inside the temporary one, since a replacement renames the database's folder.
        let folder = dir.path().join("data");
        std::fs::create_dir(&folder)?;
        let path = folder.join("members.db");
        Ok(self.instance(path, Some(dir)))
    }

    async fn attach(&self, address: &str) -> Result<Box<dyn Instance>, TargetError> {
        Ok(self.instance(PathBuf::from(address), None))
    }
}

/// Makes a temporary directory beside the executable, which is on a disk, if possible.
///
/// The system's temporary directory is often in memory, where nothing shows that data are durable.
fn directory() -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("membership-");
    let here = std::env::current_exe()?;
    match here.parent().map(|parent| builder.tempdir_in(parent)) {
        Some(Ok(dir)) => Ok(dir),
        _ => builder.tempdir(),
    }
}

struct SqliteInstance {
    config: SqliteConfig,
    defect: Option<SqliteDefect>,
    /// The temporary directory, removed with the instance. An attached instance has none.
    _dir: Option<TempDir>,
    /// The injected fault. A std lock: held for a statement or two, never across an await.
    fault: Mutex<Option<Lasting>>,
}

enum Lasting {
    /// The connection whose open transaction holds the write lock.
    Locked(Connection),
    Gone,
}

impl SqliteInstance {
    async fn open_with(&self, config: SqliteConfig) -> Result<SqliteStore, Error> {
        match self.defect {
            Some(defect) => SqliteStore::open_broken(config, defect).await,
            None => SqliteStore::open(config).await,
        }
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let db = Connection::open(&self.config.path)?;
        db.busy_timeout(OP_TIMEOUT)?;
        Ok(db)
    }

    fn rename(&self, name: impl Fn(&str) -> (String, String)) -> rusqlite::Result<()> {
        let mut db = self.connect()?;
        let all = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for table in TABLES {
            let (from, to) = name(table);
            all.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}"))?;
        }
        all.commit()
    }
}

#[async_trait]
impl Instance for SqliteInstance {
    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        Ok(Arc::new(self.open_with(self.config.clone()).await?))
    }

    async fn open_existing(&self) -> Result<Arc<dyn Store>, Error> {
        let config = SqliteConfig { must_exist: true, ..self.config.clone() };
        Ok(Arc::new(self.open_with(config).await?))
    }

    /// Counts this process's descriptors of the database, its log and its shared memory.
    #[cfg(target_os = "linux")]
    async fn held(&self) -> Result<Option<usize>, TargetError> {
        let path = self.config.path.to_str().ok_or("the path is not UTF-8")?;
        let ours = |entry: std::io::Result<std::fs::DirEntry>| {
            // The descriptor was closed meanwhile, so its entry is gone.
            let target = entry.ok().and_then(|entry| std::fs::read_link(entry.path()).ok());
            target.is_some_and(|target| target.to_string_lossy().starts_with(path))
        };
        Ok(Some(std::fs::read_dir("/proc/self/fd")?.map(ours).filter(|ours| *ours).count()))
    }

    fn address(&self) -> Result<String, TargetError> {
        Ok(self.config.path.to_str().ok_or("the path is not UTF-8")?.to_owned())
    }

    fn files(&self) -> Result<Files, TargetError> {
        let folder = self.config.path.parent().ok_or("a path without a folder")?.to_owned();
        // SQLite makes the index of the write-ahead log anew from the log.
        Ok(Files { folder, scratch: &["-shm"] })
    }

    async fn inject(&self, fault: &Fault) -> Result<(), TargetError> {
        let lasting = if *fault == LOCKED {
            let db = self.connect()?;
            db.execute_batch("BEGIN IMMEDIATE")?;
            Lasting::Locked(db)
        } else {
            self.rename(|table| (table.to_owned(), format!("{table}_gone")))?;
            Lasting::Gone
        };
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(lasting);
        Ok(())
    }

    async fn heal(&self) -> Result<(), TargetError> {
        let lasting = self.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        match lasting {
            Some(Lasting::Locked(db)) => db.execute_batch("ROLLBACK")?,
            Some(Lasting::Gone) => {
                self.rename(|table| (format!("{table}_gone"), table.to_owned()))?;
            }
            None => {}
        }
        Ok(())
    }

    async fn corrupt(&self, record: &Stored) -> Result<(), TargetError> {
        let record = match record.clone() {
            Stored::Room(room) => Record::Room(room),
            Stored::Member(room, endpoint) => Record::Member { room, endpoint },
            Stored::Key(room, endpoint, epoch) => {
                Record::Key { room, endpoint, epoch: Some(epoch) }
            }
            Stored::User(key) if SqliteStore::unrevoke(&self.config.path, &key)? => return Ok(()),
            Stored::User(key) => Record::User(key),
            Stored::Version => {
                return Ok(self.connect()?.pragma_update(None, "user_version", i32::MAX)?);
            }
            other => return Err(format!("there is no record to corrupt: {other:?}").into()),
        };
        Ok(SqliteStore::spoil(&self.config.path, &record)?)
    }

    async fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), TargetError> {
        let store = SqliteStore::open(self.config.clone()).await?;
        store.plant_epoch(room, epoch).await?;
        Ok(store.close().await?)
    }

    async fn remember(&self) -> Result<(), TargetError> {
        past::remember(&self.connect()?, &self.config.path)
    }

    async fn rewind(&self, how: &Rewind) -> Result<(), TargetError> {
        past::rewind(|| self.connect(), &self.config.path, how)
    }

    async fn replace(&self, how: &Replacement) -> Result<(), TargetError> {
        let other = past::other(&self.config.path);
        let config = SqliteConfig { path: other.clone(), ..self.config.clone() };
        self.open_with(config).await?.close().await?;
        past::replace(&self.config.path, how, &other)
    }

    async fn lose(&self, how: &Loss) -> Result<bool, TargetError> {
        past::lose(&self.connect()?, how)?;
        Ok(true)
    }
}
