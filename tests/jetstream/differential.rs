//! Random calls on the JetStream store and on the memory store must return the same.

use membership::{MemoryStore, Store};

use crate::calls;
use crate::rng::Rng;
use crate::server::Server;

async fn compare(test: &str, clients: usize, calls: usize) {
    let server = Server::start().await;
    let mut rng = Rng::new(test);
    let model = MemoryStore::new();
    let mut stores = Vec::new();
    for _ in 0..clients {
        stores.push(server.open("diff-").await);
    }
    let mut done = Vec::new();
    for n in 0..calls {
        let call = calls::random(&mut rng, &model).await;
        let client = rng.below(clients);
        let expected = call.run(&model).await;
        let got = call.run(&stores[client]).await;
        done.push(format!("#{n} client {client} {call:?} -> {got}"));
        let tail = done.len().saturating_sub(40);
        assert_eq!(got, expected, "\n{}", done[tail..].join("\n"));
    }
    for store in stores {
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_answers_as_the_memory_store_does() {
    compare("one client", 1, 4000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_in_turn_answer_as_the_memory_store_does() {
    compare("two clients", 2, 4000).await;
}
