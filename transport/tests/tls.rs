//! Who is believed to be whom, and that both ends know why not.
#![cfg(feature = "tls")]

mod support;

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use synod_core::conformance::transport::Letter;
use synod_core::{ClusterId, Identity, Incarnation, NodeId, Peer, Transport};
use synod_transport::handshake::{Greeting, Refusal};
use synod_transport::{Loss, Tcp, TcpOptions, Tls, TlsPem, certificate_name};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::authority::{Authority, Claim};
use crate::support::{
    CLUSTER, Client, PATIENCE, connect, hello, node, nowhere, numbers, quick, receive, reserve, until,
};

/// A transport that is open, with peers at these addresses.
async fn tls_at(address: SocketAddr, id: u64, peers: &[(u64, SocketAddr)], tls: Tls) -> Tcp<Letter> {
    tls_with(address, id, peers, tls, quick()).await
}

async fn tls_with(
    address: SocketAddr,
    id: u64,
    peers: &[(u64, SocketAddr)],
    tls: Tls,
    options: TcpOptions,
) -> Tcp<Letter> {
    let tcp = Tcp::bind_with(address, [], tls, options).await.expect("the port is free");
    tcp.open(&Identity { cluster: CLUSTER, node: NodeId(id), ..Identity::default() }, Incarnation(1));
    tcp.set_peers(&members(peers));
    tcp
}

fn members(peers: &[(u64, SocketAddr)]) -> Vec<Peer> {
    let peer = |(id, address): &(u64, SocketAddr)| Peer { id: NodeId(*id), address: address.to_string() };
    peers.iter().map(peer).collect()
}

/// A certificate whose owner believes in another authority than the one that made it.
fn believing(pem: TlsPem, authority: &Authority) -> Tls {
    let mut pem = pem;
    pem.authority = authority.pem().into();
    Tls::new(&pem).expect("certificates of tests are good")
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

#[tokio::test]
async fn nodes_with_certificates_of_one_authority_and_their_own_names_talk() {
    let authority = Authority::new("ours");
    let ports = [reserve(), reserve()];
    let [one, two] = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let one_end = tls_at(one, 1, &[(2, two)], authority.tls(1)).await;
    let two_end = tls_at(two, 2, &[(1, one)], authority.tls(2)).await;
    connect((1, &one_end), (2, &two_end)).await;
    connect((2, &two_end), (1, &one_end)).await;
    for end in [&one_end, &two_end] {
        let metrics = end.monitor().metrics();
        assert_eq!(
            (metrics.refused.total(), metrics.refused_by_peers.total(), metrics.lost.total()),
            (0, 0, 0)
        );
    }
}

/// Node 2 shows a certificate that is not accepted: as the one that calls, then as the one that is called.
async fn refused_both_ways(name: &str, (good, bad): (Tls, Tls), reason: Refusal, heard: Refusal) {
    for called in [1, 2] {
        let ports = [reserve(), reserve()];
        let mut addresses = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
        let [one, two] = addresses;
        addresses[2 - called] = nowhere();
        let judge = tls_at(one, 1, &[(2, addresses[1])], good.clone()).await;
        let judged = tls_at(two, 2, &[(1, addresses[0])], bad.clone()).await;
        let monitors = (judge.monitor(), judged.monitor());
        until(name, || {
            let (judge, judged) = (monitors.0.metrics(), monitors.1.metrics());
            judge.refused.of(reason) > 0 && judged.refused_by_peers.of(heard) > 0
        })
        .await;
        for metrics in [monitors.0.metrics(), monitors.1.metrics()] {
            assert_eq!((metrics.dialed, metrics.accepted, metrics.frames_received), (0, 0, 0), "{name}");
        }
        let metrics = (monitors.0.metrics(), monitors.1.metrics());
        assert_eq!(metrics.0.refused.total(), metrics.0.refused.of(reason), "{name}: {metrics:?}");
        assert_eq!(
            metrics.1.refused_by_peers.total(),
            metrics.1.refused_by_peers.of(heard),
            "{name}: {metrics:?}"
        );
    }
}

#[tokio::test]
async fn each_certificate_that_is_not_good_is_refused_with_its_reason_at_both_ends() {
    let ours = Authority::new("ours");
    let theirs = Authority::new("theirs");
    let namesake = Authority::new("ours");
    let mut listed = ours.certify(&Claim::of(1));
    listed.revoked = ours.revoke(2).into();
    let lists = Tls::new(&listed).expect("certificates of tests are good");
    let good = ours.tls(1);
    let ours_says = |claim| Tls::new(&ours.certify(&claim)).expect("certificates of tests are good");
    let two = Claim::of(2);
    let cases = [
        (
            "another authority",
            &good,
            believing(theirs.certify(&two), &ours),
            Refusal::Authority,
            Refusal::Authority,
        ),
        (
            "another authority of the same name",
            &good,
            believing(namesake.certify(&two), &ours),
            Refusal::Certificate,
            Refusal::Certificate,
        ),
        (
            "expired",
            &good,
            ours_says(Claim { years: (2020, 2021), ..two.clone() }),
            Refusal::Expired,
            Refusal::Expired,
        ),
        // TLS has one word for both.
        (
            "not yet valid",
            &good,
            ours_says(Claim { years: (3000, 4000), ..two.clone() }),
            Refusal::NotYetValid,
            Refusal::Expired,
        ),
        ("another node", &good, ours_says(Claim::of(3)), Refusal::Name, Refusal::Name),
        (
            "another cluster",
            &good,
            ours_says(Claim { cluster: ClusterId(7), ..two.clone() }),
            Refusal::Name,
            Refusal::Name,
        ),
        ("revoked", &lists, ours_says(two.clone()), Refusal::Revoked, Refusal::Revoked),
    ];
    for (name, good, bad, reason, heard) in cases {
        refused_both_ways(name, (good.clone(), bad), reason, heard).await;
    }
}

#[tokio::test]
async fn a_certified_node_that_is_no_peer_is_a_stranger_and_one_that_is_removed_loses_its_connection() {
    let authority = Authority::new("ours");
    let ports = [reserve(), reserve()];
    let [one, two] = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let one_end = tls_at(one, 1, &[(2, two)], authority.tls(1)).await;
    let two_end = tls_at(two, 2, &[(1, one)], authority.tls(2)).await;
    connect((2, &two_end), (1, &one_end)).await;
    one_end.set_peers(&[]);
    let monitors = (one_end.monitor(), two_end.monitor());
    until("the removed one is refused", || {
        monitors.0.metrics().refused.of(Refusal::Stranger) > 0
            && monitors.1.metrics().refused_by_peers.of(Refusal::Stranger) > 0
    })
    .await;
    assert!(monitors.1.metrics().lost.total() > 0);
}

#[tokio::test]
async fn plaintext_and_tls_refuse_each_other_and_both_hear_it() {
    let authority = Authority::new("ours");
    // Plaintext calls TLS.
    let one_end = tls_at(any_port(), 1, &[(2, nowhere())], authority.tls(1)).await;
    let two_end = node(2, 1, &[(1, one_end.local_addr())], quick()).await;
    let monitors = (one_end.monitor(), two_end.monitor());
    until("plaintext is refused", || {
        monitors.0.metrics().refused.of(Refusal::TlsWanted) > 0
            && monitors.1.metrics().refused_by_peers.of(Refusal::TlsWanted) > 0
    })
    .await;
    // TLS calls plaintext.
    let three_end = node(3, 1, &[(4, nowhere())], quick()).await;
    let four_end = tls_at(any_port(), 4, &[(3, three_end.local_addr())], authority.tls(4)).await;
    let monitors = (three_end.monitor(), four_end.monitor());
    until("TLS is refused", || {
        monitors.0.metrics().refused.of(Refusal::PlaintextWanted) > 0
            && monitors.1.metrics().refused_by_peers.of(Refusal::PlaintextWanted) > 0
    })
    .await;
    for end in [one_end, two_end, three_end, four_end] {
        assert_eq!((end.monitor().metrics().dialed, end.monitor().metrics().accepted), (0, 0));
    }
}

#[tokio::test]
async fn new_certificates_count_from_the_next_handshake_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let tls = [old.tls(1), old.tls(2)];
    let ports = [reserve(), reserve()];
    let [one, two] = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let one_end = tls_at(one, 1, &[(2, two)], tls[0].clone()).await;
    let two_end = tls_at(two, 2, &[(1, one)], tls[1].clone()).await;
    connect((2, &two_end), (1, &one_end)).await;
    // What cannot be used changes nothing.
    assert!(tls[0].replace(&TlsPem::new("", "", "")).is_err());
    tls[0].replace(&new.certify(&Claim::of(1))).expect("certificates of tests are good");
    // The connection that stands is not touched.
    connect((2, &two_end), (1, &one_end)).await;
    drop(two_end);
    let two_end = tls_at(two, 2, &[(1, one)], tls[1].clone()).await;
    let monitor = two_end.monitor();
    until("the old authority is not believed any more", || {
        monitor.metrics().refused_by_peers.of(Refusal::Authority) > 0 && monitor.metrics().dialed == 0
    })
    .await;
    tls[1].replace(&new.certify(&Claim::of(2))).expect("certificates of tests are good");
    connect((2, &two_end), (1, &one_end)).await;
}

/// A client by hand that shows no certificate, and speaks one version.
fn stranger(
    authority: &Authority,
    to: SocketAddr,
    version: &'static rustls::SupportedProtocolVersion,
) -> Result<usize, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("a certificate"))
        .expect("it is good");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version that is there")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(certificate_name(CLUSTER, NodeId(1))).expect("a name");
    let mut tls = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut tcp = std::net::TcpStream::connect(to).expect("somebody listens");
    tcp.set_read_timeout(Some(PATIENCE)).expect("an option of every socket");
    rustls::Stream::new(&mut tls, &mut tcp).read(&mut [0; 64])
}

#[tokio::test]
async fn a_caller_without_a_certificate_or_with_an_older_tls_is_refused() {
    let authority = Arc::new(Authority::new("ours"));
    let one = tls_at(any_port(), 1, &[(2, nowhere())], authority.tls(1)).await;
    let (monitor, address) = (one.monitor(), one.local_addr());
    let cases: [(&'static rustls::SupportedProtocolVersion, Refusal, &str); 2] = [
        (&rustls::version::TLS13, Refusal::NoCertificate, "CertificateRequired"),
        (&rustls::version::TLS12, Refusal::Tls, "ProtocolVersion"),
    ];
    for (version, reason, alert) in cases {
        let authority = Arc::clone(&authority);
        let read = tokio::task::spawn_blocking(move || stranger(&authority, address, version)).await;
        let error = read.expect("no panic").expect_err("it is refused");
        assert!(error.to_string().contains(alert), "{error}");
        until("it is counted", || monitor.metrics().refused.of(reason) == 1).await;
    }
    assert_eq!(monitor.metrics().refused.total(), 2);
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_within_its_bounds() {
    let authority = Authority::new("ours");
    let options = TcpOptions { handshake_bytes_max: 2048, ..quick() };
    let one = tls_with(any_port(), 1, &[(2, nowhere())], authority.tls(1), options).await;
    let monitor = one.monitor();
    // A first message of 60 kB that is sent piece by piece.
    let mut endless = b"\x01\x00\xea\x60".to_vec();
    endless.resize(60_000, 0x55);
    let endless: Vec<u8> =
        endless.chunks(1000).flat_map(|piece| [b"\x16\x03\x01\x03\xe8", piece].concat()).collect();
    let cases: [(&str, &[u8], Refusal); 4] = [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n", Refusal::Malformed),
        ("a greeting", &Greeting::Hello(hello()).to_bytes(), Refusal::TlsWanted),
        ("a record of nothing known", b"\x16\x03\x01\x00\x04\xff\xff\xff\xff", Refusal::Tls),
        ("a message without end", &endless, Refusal::Tls),
    ];
    for (what, bytes, reason) in cases {
        let before = monitor.metrics().refused.of(reason);
        let mut client = Client::connect(&one).await;
        client.write(bytes).await;
        client.closed().await;
        until(what, || monitor.metrics().refused.of(reason) == before + 1).await;
    }
    // Half a message, and nothing more.
    let mut slow = Client::connect(&one).await;
    slow.write(&endless[..500]).await;
    assert_eq!(slow.greeting().await, Some(Greeting::Refused(Some(Refusal::Timeout))));
}

#[tokio::test]
async fn connections_that_stay_half_open_keep_nobody_out() {
    let authority = Authority::new("ours");
    let ports = [reserve(), reserve()];
    let [one, two] = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let options = TcpOptions { handshake_timeout: PATIENCE, ..quick() };
    let one_end = tls_with(one, 1, &[(2, two)], authority.tls(1), options.clone()).await;
    let monitor = one_end.monitor();
    let mut clients = Vec::new();
    for _ in 0..1000 {
        let mut client = Client::connect(&one_end).await;
        client.write(b"\x16\x03\x01\x02\x00\x01\x00\x01").await;
        clients.push(client);
    }
    let stay = options.handshakes_per_address_max as u64;
    until("all but the last ones are refused", || monitor.metrics().refused.of(Refusal::Busy) == 1000 - stay)
        .await;
    let two_end = tls_at(two, 2, &[(1, one)], authority.tls(2)).await;
    connect((2, &two_end), (1, &one_end)).await;
    drop(clients);
}

/// Passes on what the first connection says until `changes` bytes came from its maker, and then one byte changed.
async fn tamper(listener: TcpListener, to: SocketAddr, changes: usize) {
    let (mut caller, _) = listener.accept().await.expect("node 2 calls");
    let mut called = TcpStream::connect(to).await.expect("node 1 listens");
    let (mut passed, mut changed) = (0, false);
    let (mut there, mut back) = (vec![0; 4096], vec![0; 4096]);
    loop {
        tokio::select! {
            read = caller.read(&mut there) => {
                let Ok(len @ 1..) = read else { return };
                passed += len;
                if passed > changes && !changed {
                    there[len - 1] ^= 1;
                    changed = true;
                }
                if called.write_all(&there[..len]).await.is_err() {
                    return;
                }
            }
            read = called.read(&mut back) => {
                let Ok(len @ 1..) = read else { return };
                if caller.write_all(&back[..len]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_byte_that_is_changed_on_the_way_ends_the_connection_and_nothing_of_it_arrives() {
    let authority = Authority::new("ours");
    let one_end = tls_at(any_port(), 1, &[(2, nowhere())], authority.tls(1)).await;
    let listener = TcpListener::bind(any_port()).await.expect("a port");
    let between = listener.local_addr().expect("it is bound");
    // Behind the handshake and its greeting.
    let tampering = tokio::spawn(tamper(listener, one_end.local_addr(), 20_000));
    let two_end = tls_at(any_port(), 2, &[(1, between)], authority.tls(2)).await;
    let (monitor, mut arrived, mut number) = (one_end.monitor(), Vec::new(), 0);
    until("the change is found", || {
        number += 1;
        two_end.send(NodeId(1), support::letter(2, number, vec![0; 500]));
        one_end.try_receive(&mut arrived).expect("it is open");
        monitor.metrics().lost.of(Loss::Corrupt) == 1
    })
    .await;
    let numbers = numbers(&arrived);
    assert!(numbers.is_sorted() && !numbers.is_empty(), "{numbers:?}");
    tampering.abort();
}

#[tokio::test]
async fn a_letter_longer_than_all_buffers_of_tls_arrives_whole() {
    let authority = Authority::new("ours");
    let ports = [reserve(), reserve()];
    let [one, two] = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let options = TcpOptions { frame_bytes_max: 8 << 20, queue_bytes_max: 32 << 20, ..quick() };
    let one_end = tls_with(one, 1, &[(2, two)], authority.tls(1), options.clone()).await;
    let two_end = tls_with(two, 2, &[(1, one)], authority.tls(2), options).await;
    connect((1, &one_end), (2, &two_end)).await;
    let body: Vec<u8> = (0u32..1_500_000).flat_map(u32::to_le_bytes).collect();
    one_end.send(NodeId(2), support::letter(1, 77, body.clone()));
    let mut inbound = receive(&two_end).await;
    // Greetings of `connect` that came late.
    inbound.retain(|inbound| numbers(std::slice::from_ref(inbound)) == [77]);
    while inbound.is_empty() {
        inbound = receive(&two_end).await;
        inbound.retain(|inbound| numbers(std::slice::from_ref(inbound)) == [77]);
    }
    match &inbound[0].envelope.packets[0] {
        synod_core::Packet::Protocol(letter) => assert!(letter.body == body),
        other => panic!("{other:?}"),
    }
}
