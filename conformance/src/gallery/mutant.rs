use std::marker::PhantomData;
use std::sync::Arc;
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
            Need::Processes => Claim::Declined("nothing outlives the process"),
            Need::Corruption => Claim::Declined("records are typed values, not bytes"),
            Need::Replicas | Need::Synced => Claim::Declined("one process"),
            Need::Bounded => Claim::Declined("it is never out of date"),
        }
    }

    fn faults(&self) -> &[Fault] {
        &[POISONED]
    }

    async fn create(&self) -> Result<Box<dyn Instance>, TargetError> {
        Ok(Box::new(Piece { data: MemoryStore::new(), defect: Arc::new(D::default()) }))
    }
}

struct Piece<D> {
    data: MemoryStore,
    defect: Arc<D>,
}

#[async_trait]
impl<D: Defect> Instance for Piece<D> {
    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        let defect = if D::PER_CLIENT { Arc::default() } else { Arc::clone(&self.defect) };
        Ok(Arc::new(Broken { inner: self.data.client(), defect }))
    }

    async fn inject(&self, _: &Fault) -> Result<(), TargetError> {
        self.defect.inject(&self.data);
        Ok(())
    }

    async fn heal(&self) -> Result<(), TargetError> {
        self.data.heal();
        Ok(())
    }

    async fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), TargetError> {
        Ok(self.data.plant_epoch(room, epoch)?)
    }
}
