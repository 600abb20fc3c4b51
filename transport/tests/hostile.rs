//! Bytes of every kind from a client that means harm: its connection is closed, and nobody else notices.

mod support;

use synod_core::{NodeId, Transport};
use synod_transport::frame::{self, HEADER_LEN, HEARTBEAT};
use synod_transport::handshake::{Greeting, Hello, Refusal};
use synod_transport::{Loss, Tcp};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::support::{
    Client, PATIENCE, connect, framed, hello, letter, node, node_at, nowhere, numbers, quick, receive,
    reserve, until,
};

/// The frame of a body that is no envelope.
fn frame_of(body: &[u8]) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    frame::put(&mut out, |out| out.extend_from_slice(body));
    out.to_vec()
}

/// Numbers that look random and are always the same.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[tokio::test]
async fn a_bad_frame_closes_its_connection_and_is_counted() {
    let tcp = node(1, 1, &[(2, nowhere())], quick()).await;
    let monitor = tcp.monitor();
    let good = framed(&letter(2, 1, "good"));
    let mut corrupt = good.to_vec();
    *corrupt.last_mut().expect("a body") ^= 1;
    let mut corrupt_sum = good.to_vec();
    corrupt_sum[4] ^= 0x80;
    let mut shorter = good.to_vec();
    shorter[0] -= 1;
    let mut trailing = good[HEADER_LEN..].to_vec();
    trailing.push(0);
    let mut count = good[HEADER_LEN..].to_vec();
    count[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
    let cases: [(&str, Vec<u8>, Loss); 10] = [
        ("a changed bit of the body", corrupt, Loss::Corrupt),
        ("a changed bit of the checksum", corrupt_sum, Loss::Corrupt),
        ("a changed length", shorter, Loss::Corrupt),
        ("the longest length there is", vec![0xff; 64], Loss::TooLong),
        (
            "one byte above the limit",
            frame_of(&vec![0; (64 << 10) + 1])[..HEADER_LEN].to_vec(),
            Loss::TooLong,
        ),
        ("a greeting", Greeting::Hello(hello()).to_bytes().to_vec(), Loss::TooLong),
        ("a body that is no envelope", frame_of(b"no envelope"), Loss::Undecodable),
        ("zeros", frame_of(&[0; 1000]), Loss::Undecodable),
        ("an envelope and a byte", frame_of(&trailing), Loss::Undecodable),
        ("more packets than there are bytes", frame_of(&count), Loss::Undecodable),
    ];
    for (what, bytes, loss) in cases {
        let before = monitor.metrics();
        let mut client = Client::welcomed(&tcp, hello()).await;
        client.write(&bytes).await;
        client.closed().await;
        until(what, || monitor.metrics().lost.of(loss) == before.lost.of(loss) + 1).await;
        assert_eq!(monitor.metrics().lost.total(), before.lost.total() + 1, "{what}");
    }
    assert_eq!(monitor.metrics().frames_received, 0);
    // What was good before a bad one has arrived.
    let mut client = Client::welcomed(&tcp, hello()).await;
    client.write(&[&good[..], &frame_of(b"bad")].concat()).await;
    client.closed().await;
    until("it is counted", || monitor.metrics().lost.of(Loss::Undecodable) == 5).await;
}

#[tokio::test]
async fn a_frame_that_is_cut_off_ends_with_its_connection() {
    let tcp = node(1, 1, &[(2, nowhere())], quick()).await;
    let monitor = tcp.monitor();
    let good = framed(&letter(2, 1, "cut off somewhere"));
    for (cut, ended) in (0..good.len()).zip(1..) {
        let mut client = Client::welcomed(&tcp, hello()).await;
        client.write(&good[..cut]).await;
        drop(client);
        until("the end is noticed", || monitor.metrics().lost.total() == ended).await;
    }
    assert_eq!(monitor.metrics().frames_received, 0);
    assert_eq!(
        monitor.metrics().lost.of(Loss::Closed) + monitor.metrics().lost.of(Loss::Broken),
        good.len() as u64
    );
}

#[tokio::test]
async fn a_frame_that_comes_byte_by_byte_is_taken() {
    let tcp = node(1, 1, &[(2, nowhere())], quick()).await;
    let mut client = Client::welcomed(&tcp, hello()).await;
    client.0.set_nodelay(true).expect("an option of every socket");
    for byte in &framed(&letter(2, 7, "slowly"))[..] {
        client.write(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(numbers(&receive(&tcp).await), [7]);
}

#[tokio::test]
async fn a_frame_at_the_limit_is_taken_whole_and_shares_its_memory() {
    let tcp = node(1, 1, &[(2, nowhere())], quick()).await;
    let mut client = Client::welcomed(&tcp, hello()).await;
    let overhead = framed(&letter(2, 1, "")).len() - HEADER_LEN;
    let body: Vec<u8> = noise(1, (64 << 10) - overhead);
    let frame = framed(&letter(2, 1, body.clone()));
    assert_eq!(frame.len(), HEADER_LEN + (64 << 10));
    client.write(&frame).await;
    let inbound = receive(&tcp).await;
    match &inbound[0].envelope.packets[0] {
        synod_core::Packet::Protocol(letter) => {
            assert_eq!(letter.body, body);
            assert!(!letter.body.is_unique(), "the letter and its frame are one piece of memory");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn noise_at_every_stage_hurts_nobody_else() {
    let ports = [reserve(), reserve()];
    let addresses = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let one = node_at(addresses[0], 1, 1, &[(2, addresses[1]), (3, nowhere())], quick()).await;
    let two = node_at(addresses[1], 2, 1, &[(1, addresses[0])], quick()).await;
    connect((2, &two), (1, &one)).await;
    let three = Hello { identity: synod_core::Identity { node: NodeId(3), ..hello().identity }, ..hello() };
    let greeting = Greeting::Hello(three).to_bytes();
    let good = framed(&letter(3, 1, noise(3, 300)));
    for seed in 0..200 {
        let mut bytes = match seed % 4 {
            0 => noise(seed, 2000),
            1 => [&greeting[..], &noise(seed, 2000)].concat(),
            2 => [&greeting[..], &frame_of(&noise(seed, 500))].concat(),
            _ => [&greeting[..], &good, &good, &HEARTBEAT, &good].concat(),
        };
        if seed % 4 == 3 {
            let at = (noise(seed, 8).iter().fold(0, |sum, byte| sum * 31 + usize::from(*byte))) % bytes.len();
            bytes[at] ^= 1 << (seed % 8);
        }
        let mut client = Client::connect(&one).await;
        client.write(&bytes).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.0).await.ok();
        client.closed().await;
    }
    let mut before = Vec::new();
    one.try_receive(&mut before).expect("it is open");
    assert!(before.iter().all(|inbound| inbound.from == NodeId(3) || inbound.from == NodeId(2)));
    let lost = two.monitor().metrics().lost.total();
    connect((2, &two), (1, &one)).await;
    assert_eq!((two.monitor().metrics().lost.total(), lost), (0, 0));
}

#[tokio::test]
async fn a_thousand_half_open_connections_keep_nobody_out() {
    let ports = [reserve(), reserve()];
    let addresses = ports.each_ref().map(|port| port.local_addr().expect("it is bound"));
    let mut options = quick();
    options.handshakes_max = 16;
    options.handshake_timeout = PATIENCE;
    let one = node_at(addresses[0], 1, 1, &[(2, addresses[1])], options).await;
    let monitor = one.monitor();
    let mut clients = Vec::new();
    for _ in 0..1000 {
        clients.push(Client::connect(&one).await);
    }
    until("all but the last ones are refused", || monitor.metrics().refused.of(Refusal::Busy) == 1000 - 16)
        .await;
    for client in &mut clients[..1000 - 16] {
        assert_eq!(client.greeting().await, Some(Greeting::Refused(Some(Refusal::Busy))));
    }
    let two = node_at(addresses[1], 2, 1, &[(1, addresses[0])], quick()).await;
    connect((2, &two), (1, &one)).await;
    assert_eq!(monitor.metrics().accepted, 1);
    drop(clients);
}

#[tokio::test]
async fn whoever_answers_with_anything_but_signs_of_life_is_left() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let tcp = node(1, 1, &[(2, listener.local_addr().expect("it is bound"))], quick()).await;
    let mut called = Client(listener.accept().await.expect("node 1 calls").0);
    called.greeting().await;
    called.write(&Greeting::Welcome(hello()).to_bytes()).await;
    called.write(&HEARTBEAT[..3]).await;
    called.write(&HEARTBEAT[3..]).await;
    called.write(&framed(&letter(2, 1, "not this way"))).await;
    called.closed().await;
    let monitor = tcp.monitor();
    until("it is counted", || monitor.metrics().lost.of(Loss::Corrupt) == 1).await;
}

#[tokio::test]
async fn a_sign_of_life_is_given_for_each_batch_that_asks_for_one() {
    let tcp: Tcp<_> = node(1, 1, &[(2, nowhere())], quick()).await;
    let mut client = Client::welcomed(&tcp, hello()).await;
    for _ in 0..3 {
        client.write(&HEARTBEAT).await;
        let mut answer = [0; HEADER_LEN];
        let answered = timeout(PATIENCE, client.0.read_exact(&mut answer)).await;
        answered.expect("in time").expect("it is connected");
        assert_eq!(answer, HEARTBEAT);
    }
}
