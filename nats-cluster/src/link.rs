//! A TCP proxy in this process that can break the connections through it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::{NatsError, background};

/// What a link does with the bytes that go one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// Passes them on.
    #[default]
    Pass,
    /// Holds the bytes: connections stay open, nothing arrives, and neither end is told. The bytes
    /// arrive after healing, as if TCP had sent them again. New connections wait, too.
    Blackhole,
    /// Passes the bytes on after this delay. Delays of the bytes of one connection do not add up.
    Delay(Duration),
    /// Passes on this many bytes a second, on each connection.
    Throttle(u32),
    /// Ends the stream this way, and drops further bytes. The other way goes on. Healing resets the
    /// connections whose stream was ended.
    HalfClosed,
}

/// One of the two directions through a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the end that connected to the end that listens.
    Up,
    /// From the end that listens to the end that connected.
    Down,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    cut: bool,
    up: Flow,
    down: Flow,
    /// How often all connections have been reset. A watcher sees only the latest state. A flag
    /// would hide a cut that is healed at once, and a count does not.
    resets: u64,
}

impl State {
    /// Sets what happens to each way. A stream that was ended cannot go on, so its connections are
    /// reset.
    fn flows_are(&mut self, up: Flow, down: Flow) {
        let reopened = |was, is| was == Flow::HalfClosed && is != Flow::HalfClosed;
        if reopened(self.up, up) || reopened(self.down, down) {
            self.resets += 1;
        }
        (self.up, self.down) = (up, down);
    }

    fn flow(&self, way: Way) -> Flow {
        match way {
            Way::Up => self.up,
            Way::Down => self.down,
        }
    }

    fn flows(&self) -> [Flow; 2] {
        [self.up, self.down]
    }

    /// Whether a connection can be made. That takes packets both ways.
    fn connects(&self) -> bool {
        !self.flows().contains(&Flow::Blackhole)
    }
}

/// Where a link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upstream {
    /// A server that does not run: connections are reset.
    Down,
    /// A server that is starting: connections wait for it. A route that is refused at the start
    /// would be tried again only a second later, and would miss the first election.
    Starting,
    /// A server that listens here.
    At(SocketAddr),
}

/// A TCP proxy on a loopback port of its own. The proxy passes all bytes on until it is told
/// otherwise. Dropping it resets its connections.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
    upstream: watch::Sender<Upstream>,
    task: JoinHandle<()>,
}

impl Link {
    /// Makes a link to `upstream`.
    ///
    /// # Errors
    /// [`NatsError::Io`] if there is no free port.
    pub fn to(upstream: SocketAddr) -> Result<Self, NatsError> {
        Self::new(Upstream::At(upstream))
    }

    pub(super) fn new(upstream: Upstream) -> Result<Self, NatsError> {
        let runtime = background::runtime()?;
        let _guard = runtime.enter();
        let listen = || {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, TcpListener::from_std(listener)?))
        };
        let (address, listener) = listen().map_err(NatsError::io("listen on 127.0.0.1"))?;
        let state = watch::Sender::default();
        let upstream = watch::Sender::new(upstream);
        let task = runtime.spawn(accept(listener, state.subscribe(), upstream.subscribe()));
        Ok(Self { address, state, upstream, task })
    }

    /// The address to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection, and each new one as soon as it is made, until the link is healed.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.cut = true;
            state.resets += 1;
        });
    }

    /// Holds the bytes of both ways: [`Flow::Blackhole`].
    pub fn blackhole(&self) {
        self.both(Flow::Blackhole);
    }

    /// Sets what happens to the bytes of one way.
    pub fn set(&self, way: Way, flow: Flow) {
        self.state.send_modify(|state| match way {
            Way::Up => state.flows_are(flow, state.down),
            Way::Down => state.flows_are(state.up, flow),
        });
    }

    /// Sets what happens to the bytes of both ways.
    pub fn both(&self, flow: Flow) {
        self.state.send_modify(|state| state.flows_are(flow, flow));
    }

    /// Passes everything on again.
    pub fn heal(&self) {
        self.state.send_modify(|state| {
            state.cut = false;
            state.flows_are(Flow::Pass, Flow::Pass);
        });
    }

    pub(super) fn lead(&self, upstream: Upstream) {
        self.upstream.send_replace(upstream);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    state: watch::Receiver<State>,
    upstream: watch::Receiver<Upstream>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((inbound, _)) => {
                    connections.spawn(connection(inbound, state.clone(), upstream.clone()));
                }
                // Too many files are open, or the caller has gone. The next `accept` may succeed.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection to its end. Unless both ways end in
/// order, both connections are reset.
async fn connection(
    mut inbound: TcpStream,
    mut state: watch::Receiver<State>,
    upstream: watch::Receiver<Upstream>,
) {
    // With this option, dropping the socket resets the connection. After an orderly end there is
    // nothing to reset.
    let _ = inbound.set_zero_linger();
    let _ = inbound.set_nodelay(true);
    let mut end = state.clone();
    let born = end.borrow_and_update().resets;
    let carried = async {
        let mut outbound = dial(&mut state, upstream).await?;
        let (from_client, to_client) = inbound.split();
        let (from_server, to_server) = outbound.split();
        tokio::try_join!(
            carry(from_client, to_server, state.clone(), Way::Up),
            carry(from_server, to_client, state.clone(), Way::Down),
        )
    };
    tokio::select! {
        // This branch comes first, so that nothing is begun through a link that is cut.
        biased;
        _ = end.wait_for(|state| state.cut || state.resets != born) => {}
        _ = carried => {}
    }
}

async fn dial(
    state: &mut watch::Receiver<State>,
    mut upstream: watch::Receiver<Upstream>,
) -> io::Result<TcpStream> {
    let gone = |_| io::Error::from(io::ErrorKind::NotConnected);
    state.wait_for(State::connects).await.map_err(gone)?;
    let led = *upstream.wait_for(|upstream| *upstream != Upstream::Starting).await.map_err(gone)?;
    match led {
        Upstream::At(address) => {
            let socket = TcpSocket::new_v4()?;
            // The state is set before connecting, since a cut may come meanwhile.
            socket.set_zero_linger()?;
            socket.set_nodelay(true)?;
            socket.connect(address).await
        }
        Upstream::Down | Upstream::Starting => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

/// Bytes in flight, and when they arrive. An error says that the sender reset its connection, and
/// is delayed like bytes.
type Parcel = (Instant, io::Result<Vec<u8>>);

async fn carry(
    from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    state: watch::Receiver<State>,
    way: Way,
) -> io::Result<()> {
    // The capacity is that of packets on the wire and of a kernel's buffers: a megabyte.
    let (sender, receiver) = mpsc::channel::<Parcel>(64);
    let mut closed = state.clone();
    let send = async {
        tokio::select! {
            sent = deliver(receiver, &mut to, state.clone(), way) => sent?,
            _ = closed.wait_for(|state| state.flow(way) == Flow::HalfClosed) => {}
        }
        to.shutdown().await
    };
    tokio::try_join!(collect(from, sender, &state, way), send).map(drop)
}

/// Reads bytes until the end of the stream. Drops bytes that the receiver does not take any more.
async fn collect(
    mut from: ReadHalf<'_>,
    sender: mpsc::Sender<Parcel>,
    state: &watch::Receiver<State>,
    way: Way,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        let delay = match state.borrow().flow(way) {
            Flow::Delay(delay) => delay,
            _ => Duration::ZERO,
        };
        let parcel = match read {
            Ok(0) => return Ok(()),
            Ok(length) => Ok(buffer.get(..length).unwrap_or_default().to_vec()),
            Err(error) => Err(error),
        };
        let last = parcel.is_err();
        let _ = sender.send((Instant::now() + delay, parcel)).await;
        if last {
            return Ok(());
        }
    }
}

async fn deliver(
    mut receiver: mpsc::Receiver<Parcel>,
    to: &mut WriteHalf<'_>,
    mut state: watch::Receiver<State>,
    way: Way,
) -> io::Result<()> {
    while let Some((due, parcel)) = receiver.recv().await {
        // A timer fires at the next millisecond, which is ten times as long as a link without a
        // delay takes.
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        let bytes = parcel?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            // Waits while the way is a black hole, even if it became one in the middle of a parcel.
            let flow = state.wait_for(|state| state.flow(way) != Flow::Blackhole).await;
            let flow = flow.map_or(Flow::Blackhole, |state| state.flow(way));
            let Flow::Throttle(rate) = flow else {
                to.write_all(rest).await?;
                break;
            };
            // The link sends fifty small pieces a second rather than one large one.
            let length = usize::try_from(rate / 50).unwrap_or(usize::MAX).clamp(1, rest.len());
            let (piece, later) = rest.split_at(length);
            to.write_all(piece).await?;
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            tokio::time::sleep(Duration::from_secs(1) * length / rate.max(1)).await;
            rest = later;
        }
    }
    // A black hole holds the end of the stream like its bytes.
    let _ = state.wait_for(|state| state.flow(way) != Flow::Blackhole).await;
    Ok(())
}
