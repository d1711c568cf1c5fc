use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use membership::{Epoch, Error, MemoryStore, RoomId, Store};

use super::defect::{Broken, Defect};
use crate::target::{Claim, Fault, Instance, Need, Target, TargetError};

/// The memory store with the defect `D`, as a target.
///
/// Its data belong to the instance and so outlive their clients: that is enough to reopen it.
pub(super) struct Museum<D> {
    name: &'static str,
    defect: PhantomData<fn() -> D>,
}

impl<D> Museum<D> {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, defect: PhantomData }
    }
}

const POISONED: Fault =
    Fault { name: "a thread panicked in a write", stops_reads: true, stops_writes: true };
const SILENT: Fault =
    Fault { name: "no call is answered in time", stops_reads: true, stops_writes: true };
/// How long a silent store lets a call wait, which is less than it might.
const SILENCE: Duration = Duration::from_millis(50);

#[async_trait]
impl<D: Defect> Target for Museum<D> {
    fn name(&self) -> &str {
        self.name
    }

    fn op_timeout(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn claims(&self, need: Need) -> Claim {
        match need {
            Need::Clients | Need::Reopen | Need::Faults | Need::Epochs => Claim::Claimed,
            Need::Processes | Need::PowerCuts => Claim::Declined("nothing outlives the process"),
            Need::Corruption => Claim::Declined("records are typed values, not bytes"),
            Need::Replicas | Need::Synced => Claim::Declined("one process"),
            Need::Bounded => Claim::Declined("it is never out of date"),
        }
    }

    fn faults(&self) -> &[Fault] {
        &[POISONED, SILENT]
    }

    async fn create(&self) -> Result<Box<dyn Instance>, TargetError> {
        let (data, silence) = (MemoryStore::new(), Arc::default());
        Ok(Box::new(Piece { data, silence, defect: Arc::new(D::default()) }))
    }
}

struct Piece<D> {
    data: MemoryStore,
    silence: Arc<Silence>,
    defect: Arc<D>,
}

/// The fault [`SILENT`], between the defect and the data.
#[derive(Default)]
struct Silence(AtomicBool);

#[async_trait]
impl Defect for Silence {
    async fn before(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) {
            tokio::time::sleep(SILENCE).await;
            return Err(Error::Timeout);
        }
        Ok(())
    }
}

#[async_trait]
impl<D: Defect> Instance for Piece<D> {
    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        let defect = if D::PER_CLIENT { Arc::default() } else { Arc::clone(&self.defect) };
        let data = Arc::new(defect.open(&self.data));
        let inner = Arc::new(Broken { inner: data, defect: Arc::clone(&self.silence) });
        Ok(Arc::new(Broken { inner, defect }))
    }

    async fn inject(&self, fault: &Fault) -> Result<(), TargetError> {
        match *fault {
            _ if !self.defect.breaks() => {}
            SILENT => self.silence.0.store(true, Ordering::Relaxed),
            _ => self.data.poison(),
        }
        Ok(())
    }

    async fn heal(&self) -> Result<(), TargetError> {
        self.data.heal();
        self.silence.0.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), TargetError> {
        Ok(self.data.plant_epoch(room, epoch)?)
    }
}
