//! A consumer on a simulated server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout_at};

use crate::jetstream::gateway::exchange::{Deliveries, Delivery, Entry};
use crate::jetstream::simulation::cluster::Cluster;
use crate::jetstream::simulation::cluster::SharedCluster;
use crate::jetstream::simulation::group::server_name;
use crate::jetstream::simulation::weather::Weather;

const HEARTBEAT: Duration = Duration::from_millis(500);

pub(super) struct SimulatedDeliveries {
    shared: Arc<SharedCluster>,
    stream: String,
    /// The client's server and the consumer's server, each with the number of its life when the
    /// feed began.
    servers: [(usize, u32); 2],
    /// The consumer's filters.
    filters: Vec<String>,
    /// The sequence of the next message to be sent, or a lower one.
    from: u64,
    /// The name of the server that holds the consumer; `None` if the bucket has one replica.
    place: Option<String>,
    count: u64,
    /// A message that is delivered a second time.
    again: Option<Sent>,
    /// Whether the consumer has fallen silent for good.
    silent: bool,
}

/// A message with its count, its time of storing, and the number of further messages.
type Sent = (u64, Entry, u64, u64);

/// What the feed does next.
enum NextDelivery {
    Deliver(Sent, Duration),
    Wait(Option<Instant>),
    Gone,
}

impl SimulatedDeliveries {
    pub(super) fn begin(
        shared: Arc<SharedCluster>,
        cluster: &mut Cluster,
        stream: String,
        servers: [usize; 2],
        filters: Vec<String>,
        from: u64,
    ) -> Self {
        cluster.reached.feeds_begun += 1;
        let [_, holder] = servers;
        let several = cluster.group(&stream).is_some_and(|(group, ..)| group.is_replicated());
        let place = several.then(|| server_name(holder));
        let life = |server| cluster.servers.get(server).map_or(0, |server| server.life);
        let servers = servers.map(|server| (server, life(server)));
        let (count, again, silent) = (0, None, false);
        Self { shared, stream, servers, filters, from, place, count, again, silent }
    }

    fn look(&mut self) -> NextDelivery {
        let mut cluster = self.shared.lock();
        let [(near, near_life), (far, far_life)] = self.servers;
        let lives = |server, life| {
            cluster.servers.get(server).is_some_and(|server| server.up && server.life == life)
        };
        if !lives(near, near_life) {
            return NextDelivery::Gone;
        }
        if self.silent || !lives(far, far_life) || !cluster.servers.reach(near, far) {
            return NextDelivery::Wait(None);
        }
        if let Some(sent) = self.again.take() {
            return NextDelivery::Deliver(sent, Duration::ZERO);
        }
        let (next, due) = match cluster.group(&self.stream) {
            Some((group, ..)) => match group.replica(far) {
                Some((stream, due)) => {
                    let next = stream.next(self.from, &self.filters);
                    let more = |sequence| stream.next(sequence + 1, &self.filters).is_some();
                    (next.map(|(next, stored)| (more(next.sequence), next, stored)), due)
                }
                None => return NextDelivery::Wait(None),
            },
            None => return NextDelivery::Wait(None),
        };
        let Some((more, entry, stored)) = next else { return NextDelivery::Wait(due) };
        let Weather { feed_faults, .. } = cluster.chance.weather;
        // Messages that wait at the same time are delivered together, so that faults between them
        // are rarer.
        let faults = if more { feed_faults / 8 } else { feed_faults };
        self.from = entry.sequence + 1;
        self.count += 1;
        let sent = (self.count, entry, stored, u64::from(more));
        if cluster.chance.happens(faults) {
            cluster.reached.feed_gaps += 1;
            match cluster.chance.between(0, 2).as_millis() {
                // The message is left out: the count of the next delivery has a gap.
                0 => {
                    cluster.note(|| format!("{} is left out of a feed", sent.1.sequence));
                    return NextDelivery::Wait(Some(Instant::now()));
                }
                1 => self.again = Some(sent.clone()),
                _ => self.silent = true,
            }
        }
        let latency = cluster.chance.latency();
        NextDelivery::Deliver(sent, latency)
    }
}

#[async_trait]
impl Deliveries for SimulatedDeliveries {
    async fn next(&mut self) -> Option<Delivery> {
        let mut heartbeat = Instant::now() + HEARTBEAT;
        loop {
            let shared = Arc::clone(&self.shared);
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.look() {
                NextDelivery::Gone => return None,
                NextDelivery::Deliver((count, entry, stored, pending), latency) => {
                    sleep(latency).await;
                    return Some(Delivery::Entry { count, entry, stored, pending });
                }
                NextDelivery::Wait(due) => {
                    let until = due.unwrap_or(heartbeat).min(heartbeat);
                    let _ = timeout_at(until, changed).await;
                    if Instant::now() >= heartbeat {
                        if self.is_heard() {
                            return Some(Delivery::Idle { count: Some(self.count) });
                        }
                        heartbeat = Instant::now() + HEARTBEAT;
                    }
                }
            }
        }
    }

    fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    async fn end(&mut self) {}
}

impl SimulatedDeliveries {
    /// Whether heartbeats of the consumer reach the client.
    fn is_heard(&self) -> bool {
        let cluster = self.shared.lock();
        let [(near, _), (far, life)] = self.servers;
        let lives = cluster.servers.get(far).is_some_and(|server| server.life == life);
        !self.silent && lives && cluster.servers.reach(near, far)
    }
}
