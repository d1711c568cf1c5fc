use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use membership::{Epoch, Error, MemoryStore, RoomId, Store};

use crate::target::{Claim, Fault, Instance, Need, Target, TargetError};

/// [`MemoryStore`] as a target.
#[derive(Debug, Default)]
pub struct Memory;

/// The only way in which a store in memory fails while its process lives.
const POISONED: Fault =
    Fault { name: "a thread panicked in a write", stops_reads: true, stops_writes: true };

#[async_trait]
impl Target for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn op_timeout(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn claims(&self, need: Need) -> Claim {
        match need {
            Need::Clients | Need::Faults | Need::Epochs => Claim::Claimed,
            Need::Reopen
            | Need::Existing
            | Need::Processes
            | Need::PowerCuts
            | Need::Unsynced
            | Need::Rewind
            | Need::Replace
            | Need::Vanish => Claim::Declined("nothing outlives the process"),
            Need::Downgrade => Claim::Declined("nothing serves it"),
            Need::Corruption => Claim::Declined("records are typed values, not bytes"),
            Need::Replicas | Need::Synced => Claim::Declined("one process"),
            Need::Bounded | Need::Suspend => Claim::Declined("it is never out of date"),
        }
    }

    fn faults(&self) -> &[Fault] {
        &[POISONED]
    }

    async fn create(&self) -> Result<Box<dyn Instance>, TargetError> {
        Ok(Box::new(MemoryInstance(MemoryStore::new())))
    }
}

struct MemoryInstance(MemoryStore);

#[async_trait]
impl Instance for MemoryInstance {
    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        Ok(Arc::new(self.0.client()))
    }

    async fn inject(&self, _: &Fault) -> Result<(), TargetError> {
        self.0.poison();
        Ok(())
    }

    async fn heal(&self) -> Result<(), TargetError> {
        self.0.heal();
        Ok(())
    }

    async fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), TargetError> {
        Ok(self.0.plant_epoch(room, epoch)?)
    }
}
