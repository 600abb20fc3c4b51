//! Queues are bounded in both directions, and a send never waits for anybody.

mod support;

use std::time::{Duration, Instant};

use synod_core::{Envelope, NodeId, Transport};
use synod_transport::handshake::Greeting;
use synod_transport::{Loss, TcpOptions};
use tokio::net::{TcpListener, TcpSocket};

use crate::support::{
    Client, connect, framed, hello, letter, node, node_at, nowhere, numbers, quick, receive, reserve, until,
};

/// Patient enough not to give a connection up during a test.
fn patient() -> TcpOptions {
    TcpOptions { silence_max: Duration::from_secs(60), ..quick() }
}

#[tokio::test]
async fn a_peer_that_never_reads_costs_a_bounded_amount_and_is_given_up() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("an option of every socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(8).expect("a port");
    let tcp = node(1, 1, &[(2, listener.local_addr().expect("it is bound"))], quick()).await;
    let monitor = tcp.monitor();
    let mut called = Client(listener.accept().await.expect("node 1 calls").0);
    assert!(matches!(called.greeting().await, Some(Greeting::Hello(_))));
    called.write(&Greeting::Welcome(hello()).to_bytes()).await;
    until("it is connected", || monitor.metrics().dialed == 1).await;

    let envelope = letter(1, 1, vec![7; 16 << 10]);
    let (len, mut slowest) = (framed(&envelope).len() as u64, Duration::ZERO);
    for _ in 0..10_000 {
        let begun = Instant::now();
        tcp.send(NodeId(2), envelope.clone());
        slowest = slowest.max(begun.elapsed());
    }
    // Far from a promise about time: it only must not wait for a peer that is silent for ever.
    assert!(slowest < quick().silence_max, "a send took {slowest:?}");
    let metrics = monitor.metrics();
    assert_eq!(metrics.frames_sent + metrics.dropped_full, 10_000, "{metrics:?}");
    let waiting = metrics.frames_sent * len - metrics.bytes_sent.min(metrics.frames_sent * len);
    assert!(waiting <= quick().queue_bytes_max as u64, "{waiting} bytes wait: {metrics:?}");

    until("it is given up", || monitor.metrics().lost.total() == 1).await;
    let lost = monitor.metrics().lost;
    assert_eq!(lost.of(Loss::Stalled) + lost.of(Loss::Silent), 1, "{lost:?}");
    assert!(monitor.metrics().dropped_down > 0, "what waited is dropped");
}

#[tokio::test]
async fn a_peer_that_gives_signs_of_life_and_never_reads_is_given_up_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let tcp = node(1, 1, &[(2, listener.local_addr().expect("it is bound"))], quick()).await;
    let monitor = tcp.monitor();
    let mut called = Client(listener.accept().await.expect("node 1 calls").0);
    assert!(matches!(called.greeting().await, Some(Greeting::Hello(_))));
    called.write(&Greeting::Welcome(hello()).to_bytes()).await;
    until("it is connected", || monitor.metrics().dialed == 1).await;
    let envelope = letter(1, 1, vec![7; 16 << 10]);
    let mut beats = tokio::time::interval(quick().heartbeat);
    while monitor.metrics().lost.total() == 0 {
        for _ in 0..1000 {
            tcp.send(NodeId(2), envelope.clone());
        }
        called.write(&synod_transport::frame::HEARTBEAT).await;
        beats.tick().await;
    }
    assert_eq!(monitor.metrics().lost.of(Loss::Stalled), 1);
}

#[tokio::test]
async fn the_queue_of_one_peer_is_bounded_in_envelopes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let options = TcpOptions { queue_envelopes_max: 10, ..patient() };
    let tcp = node(1, 1, &[(2, listener.local_addr().expect("it is bound"))], options).await;
    // The handshake is not over: what is sent waits.
    let mut called = Client(listener.accept().await.expect("node 1 calls").0);
    assert!(matches!(called.greeting().await, Some(Greeting::Hello(_))));
    for number in 0..25 {
        tcp.send(NodeId(2), letter(1, number, ""));
    }
    let metrics = tcp.monitor().metrics();
    assert_eq!((metrics.frames_sent, metrics.dropped_full), (10, 15));
}

#[tokio::test]
async fn a_node_that_does_not_receive_lets_its_peers_wait_and_takes_up_again() {
    let ports = [reserve(), reserve()];
    let addresses = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let bounded = TcpOptions { inbox_envelopes_max: 100, inbox_bytes_max: 64 << 10, ..patient() };
    let one = node_at(addresses[0], 1, 1, &[(2, addresses[1]), (3, nowhere())], bounded).await;
    let two = node_at(addresses[1], 2, 1, &[(1, addresses[0])], patient()).await;
    connect((2, &two), (1, &one)).await;
    for number in 0..10_000 {
        two.send(NodeId(1), letter(2, number, vec![1; 4096]));
    }
    let (sender, receiver) = (two.monitor(), one.monitor());
    assert!(sender.metrics().dropped_full > 0, "{:?}", sender.metrics());
    // Another peer is heard all the same.
    let mut three = hello();
    three.identity.node = NodeId(3);
    let mut client = Client::welcomed(&one, three).await;
    client.write(&framed(&letter(3, 33, "beside them"))).await;
    let mut arrived = Vec::new();
    until("the inbox is full", || receiver.metrics().bytes_received >= 64 << 10).await;
    until("the letter of node 3 is there, and not much more", || {
        one.try_receive(&mut arrived).expect("it is open");
        arrived.iter().any(|inbound| inbound.from == NodeId(3))
    })
    .await;
    let sent = sender.metrics().frames_sent;
    until("all that was sent arrives", || {
        one.try_receive(&mut arrived).expect("it is open");
        // And the letter of node 3.
        receiver.metrics().frames_received == sent + 1
    })
    .await;
    one.try_receive(&mut arrived).expect("it is open");
    let of_two: Vec<u64> =
        numbers(&arrived.into_iter().filter(|one| one.from == NodeId(2)).collect::<Vec<_>>());
    assert!(of_two.is_sorted(), "a connection keeps the order, and the newest are dropped");
    connect((2, &two), (1, &one)).await;
}

#[tokio::test]
async fn what_waits_to_be_received_is_bounded_for_each_peer() {
    let bounded = TcpOptions { inbox_envelopes_max: 50, ..patient() };
    let one = node(1, 1, &[(2, nowhere())], bounded).await;
    let mut client = Client::welcomed(&one, hello()).await;
    let frame = framed(&letter(2, 1, vec![1; 1024]));
    let flood = frame.repeat(64);
    // Nobody receives: sooner or later the writes find no room any more.
    let mut stuck = false;
    for _ in 0..1000 {
        stuck = tokio::time::timeout(Duration::from_millis(200), client.write(&flood)).await.is_err();
        if stuck {
            break;
        }
    }
    assert!(stuck, "{} bytes are taken although nobody receives", 1000 * flood.len());
    // One read goes beyond the bound.
    let most = 50 + (256 << 10) / frame.len() as u64 + 1;
    let taken = one.monitor().metrics().frames_received;
    assert!((50..=most).contains(&taken), "{taken} envelopes wait, at most {most} may");
    let before = receive(&one).await.len() as u64;
    assert_eq!(before, taken);
    let monitor = one.monitor();
    until("it is read again", || monitor.metrics().frames_received > taken).await;
}

#[tokio::test]
async fn an_envelope_longer_than_a_frame_is_sent_in_parts_and_a_packet_longer_than_one_is_dropped() {
    let ports = [reserve(), reserve()];
    let addresses = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let one = node_at(addresses[0], 1, 1, &[(2, addresses[1])], patient()).await;
    let two = node_at(addresses[1], 2, 1, &[(1, addresses[0])], patient()).await;
    connect((2, &two), (1, &one)).await;
    let mut long: Envelope<_> = letter(2, 1, vec![1; 20 << 10]);
    for number in 2..=10 {
        // Number 5 fits into no frame.
        let body = vec![1; if number == 5 { 70 << 10 } else { 20 << 10 }];
        long.packets.extend(letter(2, number, body).packets);
    }
    two.send(NodeId(1), long);
    let mut arrived = Vec::new();
    until("all but one arrive", || {
        one.try_receive(&mut arrived).expect("it is open");
        let packets: usize = arrived.iter().map(|inbound| inbound.envelope.packets.len()).sum();
        numbers(&arrived).iter().filter(|number| **number > 0).count() >= 9 && packets >= 9
    })
    .await;
    let arrived: Vec<u64> = numbers(&arrived).into_iter().filter(|number| *number > 0).collect();
    assert_eq!(arrived, [1, 2, 3, 4, 6, 7, 8, 9, 10]);
    assert_eq!(two.monitor().metrics().dropped_too_long, 1);
}
