//! Connections that end, and come back.

mod support;

use std::time::{Duration, Instant};

use synod_core::{Incarnation, NodeId, Peer, Transport};
use synod_transport::frame::HEARTBEAT;
use synod_transport::handshake::{Greeting, Hello};
use synod_transport::{Loss, TcpOptions};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::{
    Client, PATIENCE, connect, hello, letter, node, node_at, nowhere, numbers, quick, receive, reserve, until,
};

#[tokio::test]
async fn a_peer_that_comes_back_in_a_new_life_is_reached_again_in_both_directions() {
    let ports = [reserve(), reserve()];
    let addresses = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let one = node_at(addresses[0], 1, 1, &[(2, addresses[1])], quick()).await;
    for life in 1..=5 {
        let two = node_at(addresses[1], 2, life, &[(1, addresses[0])], quick()).await;
        connect((1, &one), (2, &two)).await;
        connect((2, &two), (1, &one)).await;
        drop(two);
        let monitor = one.monitor();
        until("the end is noticed", || monitor.metrics().lost.total() >= 2 * life).await;
    }
    let metrics = one.monitor().metrics();
    assert_eq!((metrics.dialed, metrics.accepted, metrics.refused.total()), (5, 5, 0), "{metrics:?}");
}

#[tokio::test]
async fn a_caller_whose_connection_is_half_open_is_given_up() {
    let tcp = node(1, 1, &[(2, nowhere())], quick()).await;
    // It is connected, and says nothing ever again, as if the network were cut.
    let mut client = Client::welcomed(&tcp, hello()).await;
    client.closed().await;
    let monitor = tcp.monitor();
    until("it is counted", || monitor.metrics().lost.of(Loss::Silent) == 1).await;
}

#[tokio::test]
async fn a_peer_that_gives_no_sign_of_life_is_given_up_and_called_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let tcp = node(1, 1, &[(2, listener.local_addr().expect("it is bound"))], quick()).await;
    let monitor = tcp.monitor();
    for ended in 1..=3 {
        let mut called = Client(listener.accept().await.expect("node 1 calls").0);
        assert!(matches!(called.greeting().await, Some(Greeting::Hello(_))));
        called.write(&Greeting::Welcome(hello()).to_bytes()).await;
        // It reads what comes, heartbeats among it, and answers nothing.
        called.closed().await;
        until("it is counted", || monitor.metrics().lost.of(Loss::Silent) == ended).await;
    }
}

#[tokio::test]
async fn a_connection_without_traffic_is_kept_by_signs_of_life() {
    let ports = [reserve(), reserve()];
    let addresses = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let one = node_at(addresses[0], 1, 1, &[(2, addresses[1])], quick()).await;
    let two = node_at(addresses[1], 2, 1, &[(1, addresses[0])], quick()).await;
    connect((1, &one), (2, &two)).await;
    let monitor = two.monitor();
    let before = monitor.metrics();
    // Ten times what half of the longest silence allows.
    let beats = 10 * (quick().silence_max.as_millis() / quick().heartbeat.as_millis()) as u64 / 2;
    let bytes = before.bytes_received + beats * HEARTBEAT.len() as u64;
    until("heartbeats", || monitor.metrics().bytes_received >= bytes).await;
    assert_eq!((monitor.metrics().lost.total(), one.monitor().metrics().lost.total()), (0, 0));
    assert_eq!(monitor.metrics().accepted, 1);
}

#[tokio::test]
async fn a_connection_to_an_older_life_is_left_when_the_newer_one_calls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let tcp = node(1, 1, &[(2, listener.local_addr().expect("it is bound"))], quick()).await;
    let mut older = Client(listener.accept().await.expect("node 1 calls").0);
    assert!(matches!(older.greeting().await, Some(Greeting::Hello(_))));
    older.write(&Greeting::Welcome(hello()).to_bytes()).await;
    let monitor = tcp.monitor();
    until("it is connected", || monitor.metrics().dialed == 1).await;
    let second = Hello { incarnation: Incarnation(2), ..hello() };
    let _newer = Client::welcomed(&tcp, second).await;
    older.closed().await;
    until("it is counted", || monitor.metrics().lost.of(Loss::Replaced) == 1).await;
    let mut again = Client(listener.accept().await.expect("node 1 calls again").0);
    assert!(matches!(again.greeting().await, Some(Greeting::Hello(hello)) if hello.to == NodeId(2)));
    again.write(&Greeting::Welcome(second).to_bytes()).await;
    until("it is connected again", || monitor.metrics().dialed == 2).await;
}

#[tokio::test]
async fn two_that_connect_and_lose_the_connection_at_once_do_not_bring_each_other_back_without_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let options =
        TcpOptions { backoff_min: Duration::from_millis(40), backoff_max: Duration::from_secs(2), ..quick() };
    let tcp = node(1, 1, &[(2, listener.local_addr().expect("it is bound"))], options).await;
    let mut begun = Instant::now();
    for attempt in 0..4 {
        let mut called = Client(listener.accept().await.expect("node 1 calls").0);
        if attempt == 0 {
            begun = Instant::now();
        }
        assert!(matches!(called.greeting().await, Some(Greeting::Hello(_))));
        called.write(&Greeting::Welcome(hello()).to_bytes()).await;
        drop(called);
        let monitor = tcp.monitor();
        until("the end is noticed", || monitor.metrics().lost.total() == 2 * attempt + 1).await;
        // The peer does as this node does.
        drop(Client::welcomed(&tcp, hello()).await);
        until("the end of the other is noticed", || monitor.metrics().lost.total() == 2 * attempt + 2).await;
    }
    // Half of each wait is random; each is twice the one before.
    assert!(begun.elapsed() >= Duration::from_millis(20 + 40 + 80), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_waits_for_a_connection_that_is_never_made_is_dropped() {
    let tcp = node(1, 1, &[(2, nowhere())], quick()).await;
    let monitor = tcp.monitor();
    for number in 0..100 {
        tcp.send(NodeId(2), letter(1, number, "to nobody"));
    }
    until("all are dropped", || monitor.metrics().dropped_down == 100).await;
    assert!(monitor.metrics().dials_failed >= 1);
}

#[tokio::test]
async fn addresses_of_the_membership_win_and_peers_come_and_go() {
    let ports = [reserve(), reserve(), reserve()];
    let addresses = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let one = node_at(addresses[0], 1, 1, &[(2, addresses[1])], quick()).await;
    let two = node_at(addresses[1], 2, 1, &[(1, addresses[0])], quick()).await;
    connect((1, &one), (2, &two)).await;
    connect((2, &two), (1, &one)).await;
    // Node 2 moves.
    let moved = node_at(addresses[2], 2, 2, &[(1, addresses[0])], quick()).await;
    one.set_peers(&[Peer { id: NodeId(2), address: addresses[2].to_string() }]);
    connect((1, &one), (2, &moved)).await;
    connect((2, &moved), (1, &one)).await;
    drop(two);
    // Node 2 leaves: it is not heard and not called any more.
    one.set_peers(&[]);
    let monitor = moved.monitor();
    until("it is refused", || monitor.metrics().refused_by_peers.total() > 0).await;
    let dropped = one.monitor().metrics().dropped_down;
    one.send(NodeId(2), letter(1, 9, "to nobody"));
    assert_eq!(one.monitor().metrics().dropped_down, dropped + 1);
    // And comes back.
    one.set_peers(&[Peer { id: NodeId(2), address: addresses[2].to_string() }]);
    connect((1, &one), (2, &moved)).await;
    connect((2, &moved), (1, &one)).await;
}

#[tokio::test]
async fn addresses_given_to_bind_are_used_for_members_without_one() {
    let two = node(2, 1, &[(1, nowhere())], quick()).await;
    let fallback = Peer { id: NodeId(2), address: two.local_addr().to_string() };
    let one =
        synod_transport::Tcp::bind_plaintext_with("127.0.0.1:0", [fallback], quick()).await.expect("a port");
    one.open(&synod_core::Identity { node: NodeId(1), ..hello().identity }, Incarnation(1));
    one.set_peers(&[Peer { id: NodeId(2), address: String::new() }]);
    connect((1, &one), (2, &two)).await;
}

#[tokio::test]
async fn a_closed_transport_gives_out_what_has_arrived_and_leaves_nothing_open() {
    let one = node(1, 1, &[(2, nowhere())], quick()).await;
    let mut client = Client::welcomed(&one, hello()).await;
    client.write(&support::framed(&letter(2, 4, "in time"))).await;
    let monitor = one.monitor();
    until("it has arrived", || monitor.metrics().frames_received == 1).await;
    one.close();
    client.closed().await;
    assert_eq!(numbers(&receive(&one).await), [4]);
    let mut into = Vec::new();
    assert!(timeout(PATIENCE, one.receive(&mut into)).await.expect("at once").is_err());
    assert!(tokio::net::TcpStream::connect(one.local_addr()).await.is_err(), "nobody listens");
    one.set_peers(&[Peer { id: NodeId(2), address: nowhere().to_string() }]);
    one.send(NodeId(2), letter(1, 1, "too late"));
    assert!(one.try_receive(&mut into).is_err());
    let mut rest = Vec::new();
    assert_eq!(client.0.read_to_end(&mut rest).await.unwrap_or(0), 0);
}
