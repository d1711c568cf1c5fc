//! Tests of what a link does with the bytes that it carries.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use nats_cluster::{Flow, Link, Way};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Long enough for loopback on a busy machine. Tests that check that nothing happens wait this
/// long.
const SOON: Duration = Duration::from_millis(300);

/// A link, and both ends of a connection through the link.
struct Ends {
    link: Link,
    client: TcpStream,
    server: TcpStream,
    listener: TcpListener,
}

async fn ends() -> Ends {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = Link::to(listener.local_addr().unwrap()).unwrap();
    let client = TcpStream::connect(link.address()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    Ends { link, client, server, listener }
}

async fn pass(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"hello").await.unwrap();
    arrives(to).await;
}

async fn arrives(to: &mut TcpStream) {
    let mut read = [0; 5];
    timeout(Duration::from_secs(10), to.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"hello");
}

async fn nothing_arrives(to: &mut TcpStream) {
    let mut read = [0; 1];
    assert!(timeout(SOON, to.read(&mut read)).await.is_err(), "something arrived");
}

async fn is_reset(end: &mut TcpStream) {
    let read = timeout(Duration::from_secs(10), end.read(&mut [0; 1])).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_whole_link_passes_bytes_and_their_end() {
    let Ends { link: _link, mut client, mut server, .. } = ends().await;
    pass(&mut client, &mut server).await;
    pass(&mut server, &mut client).await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
    pass(&mut server, &mut client).await;
    drop(server);
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_cut_resets_both_ends_and_new_connections_until_it_is_healed() {
    let Ends { link, mut client, mut server, listener } = ends().await;
    link.cut();
    is_reset(&mut client).await;
    is_reset(&mut server).await;
    match TcpStream::connect(link.address()).await {
        Ok(mut late) => is_reset(&mut late).await,
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    link.heal();
    let mut client = TcpStream::connect(link.address()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    pass(&mut client, &mut server).await;
}

#[tokio::test]
async fn a_cut_that_is_healed_at_once_resets_connections() {
    let Ends { link, mut client, mut server, .. } = ends().await;
    pass(&mut client, &mut server).await;
    link.cut();
    link.heal();
    is_reset(&mut client).await;
    is_reset(&mut server).await;
}

#[tokio::test]
async fn a_black_hole_holds_bytes_and_the_end_of_a_stream() {
    let Ends { link, mut client, mut server, listener } = ends().await;
    link.blackhole();
    client.write_all(b"hello").await.unwrap();
    nothing_arrives(&mut server).await;
    let mut late = TcpStream::connect(link.address()).await.unwrap();
    late.write_all(b"hello").await.unwrap();
    assert!(timeout(SOON, listener.accept()).await.is_err(), "a connection came through");
    link.heal();
    arrives(&mut server).await;
    arrives(&mut listener.accept().await.unwrap().0).await;

    link.blackhole();
    client.shutdown().await.unwrap();
    nothing_arrives(&mut server).await;
    link.heal();
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn each_way_can_be_broken_alone() {
    let Ends { link, mut client, mut server, .. } = ends().await;
    link.set(Way::Up, Flow::Blackhole);
    client.write_all(b"hello").await.unwrap();
    nothing_arrives(&mut server).await;
    pass(&mut server, &mut client).await;
    link.heal();
    arrives(&mut server).await;
    link.set(Way::Down, Flow::Blackhole);
    server.write_all(b"hello").await.unwrap();
    nothing_arrives(&mut client).await;
    pass(&mut client, &mut server).await;
}

#[tokio::test]
async fn a_delay_delays_each_byte_alike_and_keeps_the_rate() {
    let Ends { link, mut client, mut server, .. } = ends().await;
    let delay = Duration::from_millis(200);
    link.set(Way::Up, Flow::Delay(delay));
    let begun = Instant::now();
    for _ in 0..20 {
        client.write_all(b"hello").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    arrives(&mut server).await;
    assert!(begun.elapsed() >= delay);
    for _ in 1..20 {
        arrives(&mut server).await;
    }
    assert!(begun.elapsed() < 10 * delay, "the delays added up: {:?}", begun.elapsed());
    let begun = Instant::now();
    pass(&mut server, &mut client).await;
    assert!(begun.elapsed() < delay, "the other way is late too");
}

#[tokio::test]
async fn a_throttle_limits_the_rate() {
    let Ends { link, mut client, mut server, .. } = ends().await;
    link.set(Way::Down, Flow::Throttle(10_000));
    server.write_all(&[7; 5_000]).await.unwrap();
    let begun = Instant::now();
    let mut read = vec![0; 5_000];
    client.read_exact(&mut read).await.unwrap();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(450), "too fast: {took:?}");
    assert!(took < Duration::from_secs(5), "too slow: {took:?}");
    assert!(read.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_half_close_ends_one_way_and_healing_resets_it() {
    let Ends { link, mut client, mut server, listener } = ends().await;
    link.set(Way::Up, Flow::HalfClosed);
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
    client.write_all(b"into the void").await.unwrap();
    pass(&mut server, &mut client).await;
    link.heal();
    is_reset(&mut client).await;
    let mut client = TcpStream::connect(link.address()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    pass(&mut client, &mut server).await;
}
