//! Who is refused, and that both ends know why.

mod support;

use std::time::Duration;

use synod_core::{ClusterId, GroupId, Identity, Incarnation, NodeId, Transport};
use synod_transport::handshake::{Greeting, Hello, MAGIC, Refusal, Versions};
use synod_transport::{Tcp, TcpOptions};
use tokio::net::TcpListener;

use crate::support::{
    Client, framed, hello, letter, node, node_at, nowhere, numbers, quick, receive, reserve, until,
};

#[tokio::test]
async fn a_caller_that_does_not_belong_is_told_the_reason_and_counted() {
    let tcp = node(1, 1, &[(2, nowhere())], quick()).await;
    let monitor = tcp.monitor();
    let identity = hello().identity;
    let cases = [
        (Hello { versions: Versions { min: 2, max: 9 }, ..hello() }, Refusal::Version),
        (Hello { identity: Identity { cluster: ClusterId(1), ..identity }, ..hello() }, Refusal::Cluster),
        (Hello { to: NodeId(3), ..hello() }, Refusal::Node),
        (Hello { identity: Identity { node: NodeId(9), ..identity }, ..hello() }, Refusal::Stranger),
        (Hello { identity: Identity { node: NodeId(1), ..identity }, ..hello() }, Refusal::Stranger),
        (Hello { identity: Identity { group: GroupId(1), ..identity }, ..hello() }, Refusal::Group),
        (Hello { frame_bytes_max: (64 << 10) + 1, ..hello() }, Refusal::FrameLimit),
        (Hello { incarnation: Incarnation(0), ..hello() }, Refusal::Malformed),
    ];
    for (hello, reason) in cases {
        let before = monitor.metrics().refused.of(reason);
        let mut client = Client::connect(&tcp).await;
        client.write(&Greeting::Hello(hello).to_bytes()).await;
        assert_eq!(client.greeting().await, Some(Greeting::Refused(Some(reason))));
        client.closed().await;
        assert_eq!(monitor.metrics().refused.of(reason), before + 1, "{reason:?}");
    }
    assert_eq!(monitor.metrics().accepted, 0);
    // Who belongs is welcome all the same.
    Client::welcomed(&tcp, hello()).await;
}

#[tokio::test]
async fn what_is_no_hello_is_refused_as_malformed() {
    let tcp = node(1, 1, &[(2, nowhere())], quick()).await;
    let welcome = Greeting::Welcome(hello()).to_bytes();
    let refusal = Greeting::Refused(Some(Refusal::Busy)).to_bytes();
    let mut too_long = [0; 11];
    too_long[..8].copy_from_slice(&MAGIC);
    too_long[8..].copy_from_slice(&[1, 0xff, 0xff]);
    let cases = [&welcome[..], &refusal[..], &too_long[..], b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"];
    for bytes in cases {
        let mut client = Client::connect(&tcp).await;
        client.write(bytes).await;
        assert_eq!(client.greeting().await, Some(Greeting::Refused(Some(Refusal::Malformed))));
        client.closed().await;
    }
    assert_eq!(tcp.monitor().metrics().refused.of(Refusal::Malformed), 4);
}

#[tokio::test]
async fn a_caller_that_says_nothing_is_refused_when_its_time_is_over() {
    let tcp = node(1, 1, &[(2, nowhere())], quick()).await;
    let mut silent = Client::connect(&tcp).await;
    let mut slow = Client::connect(&tcp).await;
    slow.write(&Greeting::Hello(hello()).to_bytes()[..40]).await;
    for client in [&mut silent, &mut slow] {
        assert_eq!(client.greeting().await, Some(Greeting::Refused(Some(Refusal::Timeout))));
        client.closed().await;
    }
    assert_eq!(tcp.monitor().metrics().refused.of(Refusal::Timeout), 2);
}

#[tokio::test]
async fn an_older_life_is_refused_and_a_newer_one_takes_the_place_of_the_one_before() {
    let tcp = node(1, 1, &[(2, nowhere())], quick()).await;
    let life = |life| Hello { incarnation: Incarnation(life), ..hello() };
    let mut fifth = Client::welcomed(&tcp, life(5)).await;
    fifth.write(&framed(&letter(2, 5, "of the fifth life"))).await;
    assert_eq!(numbers(&receive(&tcp).await), [5]);

    let mut fourth = Client::connect(&tcp).await;
    fourth.write(&Greeting::Hello(life(4)).to_bytes()).await;
    assert_eq!(fourth.greeting().await, Some(Greeting::Refused(Some(Refusal::Incarnation))));

    let mut sixth = Client::welcomed(&tcp, life(6)).await;
    fifth.closed().await;
    // What is still under way from the life before arrives no more.
    fifth.write(&framed(&letter(2, 55, "in flight"))).await;
    sixth.write(&framed(&letter(2, 6, "of the sixth life"))).await;
    assert_eq!(numbers(&receive(&tcp).await), [6]);
    let mut again = Client::connect(&tcp).await;
    again.write(&Greeting::Hello(life(5)).to_bytes()).await;
    assert_eq!(again.greeting().await, Some(Greeting::Refused(Some(Refusal::Incarnation))));
    assert_eq!(tcp.monitor().metrics().refused.of(Refusal::Incarnation), 2);
}

#[tokio::test]
async fn a_second_connection_of_one_life_takes_the_place_of_the_first() {
    let tcp = node(1, 1, &[(2, nowhere())], quick()).await;
    let mut first = Client::welcomed(&tcp, hello()).await;
    let mut second = Client::welcomed(&tcp, hello()).await;
    first.closed().await;
    second.write(&framed(&letter(2, 2, ""))).await;
    assert_eq!(numbers(&receive(&tcp).await), [2]);
}

/// Two nodes that know each other, one with something that does not fit.
async fn refused_on_both_sides(one: (Identity, TcpOptions), other: (Identity, TcpOptions), reason: Refusal) {
    let ports = [reserve(), reserve()];
    let addresses = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let mut ends: Vec<Tcp<synod_core::conformance::transport::Letter>> = Vec::new();
    for (at, (identity, options)) in [one, other].into_iter().enumerate() {
        let tcp = Tcp::bind_plaintext_with(addresses[at], [], options).await.expect("the port is free");
        tcp.open(&identity, Incarnation(1));
        let peer = 1 - at;
        tcp.set_peers(&[synod_core::Peer {
            id: NodeId(peer as u64 + 1),
            address: addresses[peer].to_string(),
        }]);
        ends.push(tcp);
    }
    let monitors = [ends[0].monitor(), ends[1].monitor()];
    until("one refuses and the other hears why", || {
        let [one, other] = monitors.each_ref().map(|monitor| monitor.metrics());
        let heard = one.refused_by_peers.of(reason) + other.refused_by_peers.of(reason);
        one.refused.of(reason) + other.refused.of(reason) > 0 && heard > 0
    })
    .await;
}

#[tokio::test]
async fn two_nodes_that_do_not_belong_together_hear_why_from_each_other() {
    let identity = |node, cluster, group| Identity {
        cluster: ClusterId(cluster),
        node: NodeId(node),
        group: GroupId(group),
    };
    let fits = (identity(1, 7, 0), quick());
    refused_on_both_sides(fits.clone(), (identity(2, 8, 0), quick()), Refusal::Cluster).await;
    refused_on_both_sides(fits.clone(), (identity(2, 7, 1), quick()), Refusal::Group).await;
    // Somebody else is found at the address of node 2.
    refused_on_both_sides(fits.clone(), (identity(3, 7, 0), quick()), Refusal::Node).await;
    let longer = TcpOptions { frame_bytes_max: 65 << 10, ..quick() };
    refused_on_both_sides(fits, (identity(2, 7, 0), longer), Refusal::FrameLimit).await;
}

#[tokio::test]
async fn a_welcome_from_whom_it_does_not_fit_is_refused() {
    let identity = hello().identity;
    let good = Hello { to: NodeId(1), ..hello() };
    let cases = [
        (Hello { identity: Identity { node: NodeId(3), ..identity }, ..good }, Refusal::Stranger),
        (Hello { identity: Identity { cluster: ClusterId(1), ..identity }, ..good }, Refusal::Cluster),
        (Hello { versions: Versions { min: 2, max: 2 }, ..good }, Refusal::Version),
        (Hello { to: NodeId(7), ..good }, Refusal::Node),
        (Hello { frame_bytes_max: 1024, ..good }, Refusal::FrameLimit),
    ];
    for (welcome, reason) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let tcp = node(1, 1, &[(2, listener.local_addr().expect("it is bound"))], quick()).await;
        let mut called = Client(listener.accept().await.expect("node 1 calls").0);
        assert!(matches!(called.greeting().await, Some(Greeting::Hello(hello)) if hello.to == NodeId(2)));
        called.write(&Greeting::Welcome(welcome).to_bytes()).await;
        called.closed().await;
        let monitor = tcp.monitor();
        until("it is counted", || monitor.metrics().refused.of(reason) == 1).await;
        assert_eq!(monitor.metrics().dialed, 0);
    }
}

#[tokio::test]
async fn an_older_life_that_answers_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let tcp = node(1, 1, &[(2, listener.local_addr().expect("it is bound"))], quick()).await;
    let mut first = Client(listener.accept().await.expect("node 1 calls").0);
    assert!(matches!(first.greeting().await, Some(Greeting::Hello(_))));
    // Node 2 calls in its third life before its second one answers.
    let _third = Client::welcomed(&tcp, Hello { incarnation: Incarnation(3), ..hello() }).await;
    first.write(&Greeting::Welcome(Hello { incarnation: Incarnation(2), ..hello() }).to_bytes()).await;
    first.closed().await;
    let monitor = tcp.monitor();
    until("it is counted", || monitor.metrics().refused.of(Refusal::Incarnation) == 1).await;
}

#[tokio::test]
async fn nobody_is_answered_before_the_node_is_started_and_everybody_after() {
    let port = reserve();
    let address = port.local_addr().expect("it is bound");
    let waiting: Tcp<synod_core::conformance::transport::Letter> =
        Tcp::bind_plaintext_with(address, [], quick()).await.expect("the port is free");
    let mut client = Client::connect(&waiting).await;
    client.write(&Greeting::Hello(hello()).to_bytes()).await;
    let early = tokio::time::timeout(Duration::from_millis(20), client.greeting()).await;
    assert!(early.is_err(), "answered before anything is known: {early:?}");
    waiting.open(&Identity { node: NodeId(1), ..hello().identity }, Incarnation(1));
    waiting.set_peers(&[synod_core::Peer { id: NodeId(2), address: nowhere().to_string() }]);
    assert!(matches!(client.greeting().await, Some(Greeting::Welcome(_))));
    drop(waiting);
    client.closed().await;
    // The port is free at once.
    drop(node_at(address, 1, 2, &[], quick()).await);
}
