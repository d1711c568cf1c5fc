use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use membership::{Epoch, Error, Invalid, MemoryStore, RoomId, Store};

use super::defect::{Broken, Defect};
use super::listings::locked;
use super::surroundings::{Events, Surroundings, too_old};
use crate::target::{
    Claim, Downgrade, Fault, Instance, Leaves, Loss, Lost, Need, Replacement, Rewind, Target,
    TargetError,
};

/// The memory store with the defect `D`, as a target.
///
/// The data belong to the instance and outlive its clients, so the store can be reopened.
pub(super) struct BrokenMemory<D> {
    name: &'static str,
    defect: PhantomData<fn() -> D>,
}

impl<D> BrokenMemory<D> {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, defect: PhantomData }
    }
}

const POISONED: Fault =
    Fault { name: "a thread panicked in a write", stops_reads: true, stops_writes: true };
const SILENT: Fault =
    Fault { name: "no call is answered in time", stops_reads: true, stops_writes: true };
const REWIND: Rewind = Rewind { name: "the data go back", closed: false, leaves: Leaves::Past };
const REPLACED: Replacement = Replacement { name: "the data are replaced" };
const LOSSES: &[Loss] = &[
    Loss { name: "all users vanish", of: Lost::Users, traces: true },
    Loss { name: "all keys vanish", of: Lost::Keys, traces: true },
    Loss { name: "all rooms vanish", of: Lost::Rooms, traces: true },
    Loss { name: "everything vanishes", of: Lost::Everything, traces: true },
];
const OLDER: Downgrade = Downgrade { name: "something older serves the data" };

#[async_trait]
impl<D: Defect> Target for BrokenMemory<D> {
    fn name(&self) -> &str {
        self.name
    }

    fn op_timeout(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn claims(&self, need: Need) -> Claim {
        match need {
            Need::Clients
            | Need::Reopen
            | Need::Existing
            | Need::Faults
            | Need::Epochs
            | Need::Rewind
            | Need::Replace
            | Need::Vanish
            | Need::Downgrade => Claim::Claimed,
            Need::Processes | Need::PowerCuts | Need::Unsynced => {
                Claim::Declined("nothing outlives the process")
            }
            Need::Corruption => Claim::Declined("records are typed values, not bytes"),
            Need::Replicas | Need::Synced => Claim::Declined("one process"),
            Need::Bounded | Need::Suspend => Claim::Declined("it is never out of date"),
        }
    }

    fn faults(&self) -> &[Fault] {
        &[POISONED, SILENT]
    }

    /// Short, since there are no elections.
    fn failover(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn rewinds(&self) -> &[Rewind] {
        &[REWIND]
    }

    fn replacements(&self) -> &[Replacement] {
        &[REPLACED]
    }

    fn losses(&self) -> &[Loss] {
        LOSSES
    }

    fn downgrades(&self) -> &[Downgrade] {
        &[OLDER]
    }

    async fn create(&self) -> Result<Box<dyn Instance>, TargetError> {
        Ok(Box::new(BrokenInstance {
            data: MemoryStore::new(),
            past: Mutex::default(),
            made: AtomicBool::new(false),
            events: Arc::default(),
            defect: Arc::new(D::default()),
            opened: Mutex::default(),
        }))
    }
}

struct BrokenInstance<D> {
    data: MemoryStore,
    /// The copy of the data that `remember` made.
    past: Mutex<Option<MemoryStore>>,
    /// Whether a client was opened, which makes the data.
    made: AtomicBool,
    events: Arc<Events>,
    defect: Arc<D>,
    /// The defects of the opened clients, if each client has its own.
    opened: Mutex<Vec<Arc<D>>>,
}

impl<D: Defect> BrokenInstance<D> {
    /// Gives every defect a copy of the data before they go back, are replaced or vanish.
    fn become_past(&self) -> Result<(), Error> {
        for defect in locked(&self.opened).iter().chain([&self.defect]) {
            defect.become_past(self.data.copy()?);
        }
        Ok(())
    }
}

#[async_trait]
impl<D: Defect> Instance for BrokenInstance<D> {
    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        if self.defect.looks_when_opened() && self.events.older.load(Ordering::SeqCst) {
            return Err(too_old());
        }
        self.made.store(true, Ordering::SeqCst);
        let defect = D::client(&self.defect);
        if D::PER_CLIENT {
            locked(&self.opened).push(Arc::clone(&defect));
        }
        let data = Arc::new(defect.open(&self.data));
        let surroundings = Arc::new(Surroundings::new(&self.events, defect.looks()));
        let inner = Arc::new(Broken { inner: data, defect: surroundings });
        Ok(Arc::new(Broken { inner, defect }))
    }

    async fn open_existing(&self) -> Result<Arc<dyn Store>, Error> {
        if self.defect.makes_nothing() && !self.made.load(Ordering::SeqCst) {
            return Err(Invalid::new("data", "do not exist, and must").into());
        }
        self.open().await
    }

    async fn inject(&self, fault: &Fault) -> Result<(), TargetError> {
        match *fault {
            _ if !self.defect.breaks() => {}
            SILENT => self.events.silent.store(true, Ordering::SeqCst),
            _ => self.data.poison(),
        }
        Ok(())
    }

    async fn heal(&self) -> Result<(), TargetError> {
        self.data.heal();
        self.events.silent.store(false, Ordering::SeqCst);
        Ok(())
    }

    async fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), TargetError> {
        Ok(self.data.plant_epoch(room, epoch)?)
    }

    async fn remember(&self) -> Result<(), TargetError> {
        *locked(&self.past) = Some(self.data.copy()?);
        Ok(())
    }

    async fn rewind(&self, _: &Rewind) -> Result<(), TargetError> {
        self.become_past()?;
        let past = locked(&self.past).take().ok_or("nothing was remembered")?;
        Ok(self.data.become_like(&past)?)
    }

    async fn replace(&self, _: &Replacement) -> Result<(), TargetError> {
        self.become_past()?;
        self.events.replaced.fetch_add(1, Ordering::SeqCst);
        Ok(self.data.become_like(&MemoryStore::new())?)
    }

    async fn lose(&self, how: &Loss) -> Result<bool, TargetError> {
        self.become_past()?;
        let of = |lost| how.of == lost || how.of == Lost::Everything;
        if of(Lost::Users) {
            self.events.lost_users.store(true, Ordering::SeqCst);
        }
        if of(Lost::Keys) {
            self.events.lost_keys.store(true, Ordering::SeqCst);
        }
        self.data.forget(of(Lost::Users), of(Lost::Rooms), of(Lost::Keys))?;
        Ok(true)
    }

    async fn downgrade(&self, _: &Downgrade) -> Result<(), TargetError> {
        self.events.older.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn upgrade(&self) -> Result<(), TargetError> {
        self.events.older.store(false, Ordering::SeqCst);
        Ok(())
    }
}
