//! Ports, patience, and what several test binaries share.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

#[cfg(feature = "tls")]
pub mod authority;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use synod_core::conformance::transport::Letter;
use synod_core::{
    ClusterId, Envelope, GroupId, Identity, Inbound, Incarnation, NodeId, Packet, Peer, Transport, Wire,
};
use synod_transport::handshake::{Greeting, Hello, PREFIX_LEN, Versions};
use synod_transport::{Tcp, TcpOptions, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, interval, timeout};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A port of the loopback interface that nobody else gets as long as this is held: bound, and not listening.
pub fn reserve() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option of every socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    socket
}

/// Waits until something holds that nobody tells of.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut looks = interval(Duration::from_millis(2));
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        looks.tick().await;
    }
}

/// The cluster of all tests.
pub const CLUSTER: ClusterId = ClusterId(0x5e1f);

/// Patience that is over soon.
pub fn quick() -> TcpOptions {
    TcpOptions {
        frame_bytes_max: 64 << 10,
        queue_bytes_max: 256 << 10,
        handshake_timeout: Duration::from_millis(300),
        heartbeat: Duration::from_millis(20),
        silence_max: Duration::from_millis(200),
        backoff_max: Duration::from_millis(50),
        ..TcpOptions::default()
    }
}

/// A transport that is open, with peers at these addresses.
pub async fn node(id: u64, life: u64, peers: &[(u64, SocketAddr)], options: TcpOptions) -> Tcp<Letter> {
    node_at("127.0.0.1:0".parse().expect("an address"), id, life, peers, options).await
}

/// [`node`] at an address of the caller's choice.
pub async fn node_at(
    address: SocketAddr,
    id: u64,
    life: u64,
    peers: &[(u64, SocketAddr)],
    options: TcpOptions,
) -> Tcp<Letter> {
    let tcp = Tcp::bind_plaintext_with(address, [], options).await.expect("the port is free");
    let identity = Identity { cluster: CLUSTER, node: NodeId(id), group: GroupId(0) };
    tcp.open(&identity, Incarnation(life));
    let peer = |(id, address): &(u64, SocketAddr)| Peer { id: NodeId(*id), address: address.to_string() };
    tcp.set_peers(&peers.iter().map(peer).collect::<Vec<_>>());
    tcp
}

/// An address at which nobody answers.
pub fn nowhere() -> SocketAddr {
    "127.0.0.1:1".parse().expect("an address")
}

/// An envelope with a letter.
pub fn letter(from: u64, number: u64, body: impl Into<Bytes>) -> Envelope<Letter> {
    Envelope {
        from: NodeId(from),
        from_incarnation: Incarnation(1),
        to_incarnation: Incarnation(0),
        group: GroupId(0),
        packets: vec![Packet::Protocol(Letter { number, body: body.into() })],
    }
}

/// The frame of an envelope.
pub fn framed(envelope: &Envelope<Letter>) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put(&mut out, |out| envelope.encode(out));
    out
}

/// The numbers of the letters that arrived.
pub fn numbers(inbound: &[Inbound<Letter>]) -> Vec<u64> {
    let numbers = inbound.iter().flat_map(|inbound| &inbound.envelope.packets).map(|packet| match packet {
        Packet::Protocol(letter) => letter.number,
        other => panic!("only letters are sent, and {other:?} arrived"),
    });
    numbers.collect()
}

/// Waits for the next envelopes.
pub async fn receive(tcp: &Tcp<Letter>) -> Vec<Inbound<Letter>> {
    let mut into = Vec::new();
    let received = timeout(PATIENCE, tcp.receive(&mut into)).await;
    received.expect("something arrives in time").expect("the transport is open");
    into
}

/// Sends one letter after the other until one arrives; nothing else may.
pub async fn connect(from: (u64, &Tcp<Letter>), to: (u64, &Tcp<Letter>)) {
    let mut arrived = Vec::new();
    until("a letter arrives", || {
        from.1.send(NodeId(to.0), letter(from.0, 0, "hello"));
        to.1.try_receive(&mut arrived).expect("the transport is open");
        !arrived.is_empty()
    })
    .await;
    assert!(arrived.iter().all(|inbound| inbound.from == NodeId(from.0)), "{arrived:?}");
}

/// Node 2 as it is expected by node 1, speaking by hand.
pub fn hello() -> Hello {
    Hello {
        versions: Versions::SPOKEN,
        identity: Identity { cluster: CLUSTER, node: NodeId(2), group: GroupId(0) },
        to: NodeId(1),
        incarnation: Incarnation(1),
        frame_bytes_max: 64 << 10,
    }
}

/// A client that speaks by hand.
pub struct Client(pub TcpStream);

impl Client {
    pub async fn connect(tcp: &Tcp<Letter>) -> Client {
        Client(TcpStream::connect(tcp.local_addr()).await.expect("somebody listens"))
    }

    /// A client that was welcomed.
    pub async fn welcomed(tcp: &Tcp<Letter>, hello: Hello) -> Client {
        let mut client = Client::connect(tcp).await;
        client.write(&Greeting::Hello(hello).to_bytes()).await;
        match client.greeting().await {
            Some(Greeting::Welcome(_)) => client,
            other => panic!("expected to be welcome, got {other:?}"),
        }
    }

    /// Writes; the other end may be gone.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// The next greeting; none if the connection ends.
    pub async fn greeting(&mut self) -> Option<Greeting> {
        let read = async {
            let mut bytes = vec![0; PREFIX_LEN];
            self.0.read_exact(&mut bytes).await.ok()?;
            let prefix = bytes.first_chunk().expect("just read");
            let len = Greeting::body_len(prefix).expect("a greeting");
            bytes.resize(PREFIX_LEN + len, 0);
            self.0.read_exact(&mut bytes[PREFIX_LEN..]).await.ok()?;
            Some(Greeting::from_bytes(&bytes).expect("a greeting"))
        };
        timeout(PATIENCE, read).await.expect("an answer in time")
    }

    /// Waits until the other end closes the connection; whatever comes before is skipped.
    pub async fn closed(&mut self) {
        let closed = async {
            let mut bytes = [0; 4096];
            while self.0.read(&mut bytes).await.is_ok_and(|len| len > 0) {}
        };
        timeout(PATIENCE, closed).await.expect("the connection is closed in time");
    }
}
