use std::sync::Arc;
use std::time::Duration;

use membership::{MemoryStore, Store};
use tokio::runtime::Runtime;

use crate::measure::{Row, each};
use crate::world::{CALLERS, USERS, fill_users, user_key};

pub(crate) fn rows(runtime: &Runtime) -> Vec<Row> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    runtime.block_on(fill_users(&store, CALLERS, USERS));
    let keys: Vec<_> = (0..20_000).map(|number| user_key(number * 5)).collect();
    let ours = || {
        each(20_000, || {
            runtime.block_on(async {
                for key in &keys {
                    assert!(store.is_authorized(key).await.is_allowed());
                }
            });
        })
    };
    vec![Row::absolute("memory is_authorized, 1 caller", Duration::from_micros(1), 15, ours)]
}
