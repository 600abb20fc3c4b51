//! Half-open connections and garbage against one node, and what they cost it: its memory, and its service to a peer.
//!
//! ```sh
//! ulimit -n 20000; cargo run --release -p synod-transport --example siege
//! cargo run --release -p synod-transport --example siege -- tls
//! ```
//!
//! The node that is besieged is a process of its own, so its resident memory is its own; it sends letters of its one
//! peer back. The peer counts round trips of letters of 1 KiB, 16 in flight, while nothing happens, while 10,000
//! connections stay half open (first under the default bounds, then under bounds that let all of them stay), and
//! while 10,000 connections bring 100 frames of garbage each.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use synod_core::conformance::transport::Letter;
use synod_core::{
    ClusterId, Envelope, GroupId, Identity, Inbound, Incarnation, NodeId, Packet, Peer, Transport,
};
use synod_transport::handshake::{Greeting, Hello, Versions};
use synod_transport::{Tcp, TcpOptions, Tls, TlsPem, certificate_name};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

const CONNECTIONS: u64 = 10_000;
const FRAMES_PER_CONNECTION: u64 = 100;
const ATTACKERS: u64 = 32;
const BESIEGED: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
/// A peer whose name the attackers use where nobody proves anything.
const IMPOSTOR: NodeId = NodeId(3);

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", peer, bounds, mode] => serve(peer, bounds == "wide", mode == "tls").await,
        [] => siege(false).await,
        ["tls"] => siege(true).await,
        _ => Err("siege [tls]".into()),
    }
}

/// The node that is besieged. Certificates come by standard input, and the port goes to standard output.
async fn serve(peer: &str, wide: bool, encrypted: bool) -> Result<(), Failure> {
    let mut options = TcpOptions::default();
    if wide {
        options.handshakes_max = CONNECTIONS as usize + 100;
        options.handshakes_per_address_max = options.handshakes_max;
        options.handshake_timeout = Duration::from_secs(60);
    }
    let tcp: Tcp<Letter> = if encrypted {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        let parts: Vec<&str> = text.split('\0').collect();
        let [certificate, key, authority] = parts[..] else { return Err("three parts of PEM".into()) };
        Tcp::bind_with("127.0.0.1:0", [], Tls::new(&TlsPem::new(certificate, key, authority))?, options)
            .await?
    } else {
        Tcp::bind_plaintext_with("127.0.0.1:0", [], options).await?
    };
    tcp.open(&identity(BESIEGED), Incarnation(1));
    tcp.set_peers(&[
        Peer { id: PEER, address: peer.to_owned() },
        Peer { id: IMPOSTOR, address: "127.0.0.1:1".to_owned() },
    ]);
    println!("{}", tcp.local_addr());
    let mut inbound = Vec::new();
    while tcp.receive(&mut inbound).await.is_ok() {
        for Inbound { from, envelope } in inbound.drain(..) {
            tcp.send(from, Envelope { from: BESIEGED, ..envelope });
        }
    }
    Ok(())
}

async fn siege(encrypted: bool) -> Result<(), Failure> {
    println!("{}", if encrypted { "TLS" } else { "plaintext" });
    let authority = Authority::new()?;
    for bounds in ["default", "wide"] {
        let peer: Tcp<Letter> = if encrypted {
            Tcp::bind("127.0.0.1:0", [], Tls::new(&authority.certify(PEER)?)?).await?
        } else {
            Tcp::bind_plaintext("127.0.0.1:0", []).await?
        };
        let besieged = Besieged::start(peer.local_addr(), bounds, encrypted, &authority)?;
        peer.open(&identity(PEER), Incarnation(1));
        peer.set_peers(&[Peer { id: BESIEGED, address: besieged.address.to_string() }]);
        measure("warm-up", &peer, &besieged, Duration::from_secs(1)).await?;
        println!("bounds: {bounds}");
        measure("quiet", &peer, &besieged, Duration::from_secs(3)).await?;

        let mut half_open = Vec::new();
        let begun = Instant::now();
        for number in 0..CONNECTIONS {
            half_open.push(half_opened(number, besieged.address, encrypted).await?);
        }
        println!(
            "  {} connections opened by half in {:.1} s",
            half_open.len(),
            begun.elapsed().as_secs_f64()
        );
        measure("half-open", &peer, &besieged, Duration::from_secs(3)).await?;
        drop(half_open);

        if bounds == "default" {
            garbage(&peer, &besieged, encrypted).await?;
        }
        sleep(Duration::from_secs(2)).await;
        measure("after", &peer, &besieged, Duration::from_secs(3)).await?;
        let metrics = peer.monitor().metrics();
        println!("  connections that the peer lost: {}", metrics.lost.total());
    }
    Ok(())
}

/// The process of the besieged node; it ends with this value.
struct Besieged {
    process: Child,
    address: SocketAddr,
}

impl Besieged {
    fn start(
        peer: SocketAddr,
        bounds: &str,
        encrypted: bool,
        authority: &Authority,
    ) -> Result<Besieged, Failure> {
        let mode = if encrypted { "tls" } else { "plaintext" };
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", &peer.to_string(), bounds, mode])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut input = process.stdin.take().ok_or("a pipe")?;
        let TlsPem { certificate, key, authority, .. } = authority.certify(BESIEGED)?;
        input.write_all(&[&certificate[..], &key, &authority].join(&0))?;
        drop(input);
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("a pipe")?).read_line(&mut line)?;
        Ok(Besieged { process, address: line.trim().parse()? })
    }

    /// Resident memory now, and the most there ever was, in MiB.
    fn memory(&self) -> Result<(f64, f64), Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
        };
        Ok((of("VmRSS:").ok_or("VmRSS")?, of("VmHWM:").ok_or("VmHWM")?))
    }
}

impl Drop for Besieged {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Round trips for a while, and what the node holds at their end.
async fn measure(what: &str, peer: &Tcp<Letter>, besieged: &Besieged, time: Duration) -> Result<(), Failure> {
    let (count, slowest) = round_trips(peer, time).await;
    let (now, most) = besieged.memory()?;
    if what != "warm-up" {
        println!(
            "  {what:<10} {:>7.0} round trips/s, the slowest {:>6.1} ms; resident {now:.1} MiB, at most {most:.1} MiB",
            count as f64 / time.as_secs_f64(),
            slowest.as_secs_f64() * 1e3,
        );
    }
    Ok(())
}

async fn round_trips(peer: &Tcp<Letter>, time: Duration) -> (u64, Duration) {
    let begun = Instant::now();
    let (mut count, mut slowest, mut in_flight, mut last) = (0, Duration::ZERO, 0u64, begun);
    let mut inbound = Vec::new();
    while begun.elapsed() < time {
        while in_flight < 16 {
            peer.send(BESIEGED, letter());
            in_flight += 1;
        }
        match timeout(Duration::from_millis(100), peer.receive(&mut inbound)).await {
            Ok(_) => {
                let back = inbound.drain(..).count() as u64;
                count += back;
                in_flight = in_flight.saturating_sub(back);
                slowest = slowest.max(last.elapsed());
                last = Instant::now();
            }
            // Dropped on the way: there was no connection yet.
            Err(_) => in_flight = 0,
        }
    }
    (count, slowest.max(last.elapsed()))
}

async fn half_opened(number: u64, to: SocketAddr, encrypted: bool) -> Result<TcpStream, Failure> {
    let mut stream = connect(number, to).await?;
    // The first half of what would be said.
    let begun: &[u8] = if encrypted {
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"
    } else {
        &Greeting::Hello(hello()).to_bytes()[..30]
    };
    let _ = stream.write_all(begun).await;
    Ok(stream)
}

/// Many connections, many frames of noise on each; where nobody proves anything, half of them behind the greeting of a
/// peer.
async fn garbage(peer: &Tcp<Letter>, besieged: &Besieged, encrypted: bool) -> Result<(), Failure> {
    let (next, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    let address = besieged.address;
    let attackers: Vec<_> = (0..ATTACKERS)
        .map(|_| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= CONNECTIONS {
                        return;
                    }
                    attack(number, address, encrypted).await;
                }
            })
        })
        .collect();
    let watching = {
        let done = Arc::clone(&done);
        async move {
            for attacker in attackers {
                let _ = attacker.await;
            }
            done.store(true, Ordering::Relaxed);
        }
    };
    let serving = async {
        let (mut count, mut slowest) = (0, Duration::ZERO);
        while !done.load(Ordering::Relaxed) {
            let (more, slow) = round_trips(peer, Duration::from_millis(200)).await;
            count += more;
            slowest = slowest.max(slow);
        }
        (count, slowest)
    };
    let ((), (count, slowest)) = tokio::join!(watching, serving);
    let (seconds, (now, most)) = (begun.elapsed().as_secs_f64(), besieged.memory()?);
    println!(
        "  garbage    {:>7.0} round trips/s, the slowest {:>6.1} ms; resident {now:.1} MiB, at most {most:.1} MiB; {} frames in \
         {seconds:.1} s",
        count as f64 / seconds,
        slowest.as_secs_f64() * 1e3,
        CONNECTIONS * FRAMES_PER_CONNECTION,
    );
    Ok(())
}

async fn attack(number: u64, to: SocketAddr, encrypted: bool) {
    let Ok(mut stream) = connect(number, to).await else { return };
    let mut state = number;
    let mut noise = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as u8
    };
    let mut bytes = Vec::new();
    if !number.is_multiple_of(2) {
        bytes.extend(if encrypted {
            // A whole record: it is judged, not waited for.
            b"\x16\x03\x01\x02\x00".to_vec()
        } else {
            Greeting::Hello(hello()).to_bytes().to_vec()
        });
    }
    for _ in 0..FRAMES_PER_CONNECTION {
        bytes.extend(120u32.to_le_bytes());
        bytes.extend(std::iter::repeat_with(&mut noise).take(124));
    }
    let _ = timeout(Duration::from_secs(5), async {
        if stream.write_all(&bytes).await.is_ok() {
            let mut answer = [0; 1024];
            while stream.read(&mut answer).await.is_ok_and(|len| len > 0) {}
        }
    })
    .await;
}

/// From one of many addresses of the loopback interface: one alone would run out of ports.
async fn connect(number: u64, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 2, 0, (number % 8) as u8 + 1), 0)))?;
    socket.connect(to).await
}

fn identity(node: NodeId) -> Identity {
    Identity { cluster: ClusterId(1), node, group: GroupId(0) }
}

fn hello() -> Hello {
    Hello {
        versions: Versions::SPOKEN,
        identity: identity(IMPOSTOR),
        to: BESIEGED,
        incarnation: Incarnation(1),
        frame_bytes_max: TcpOptions::default().frame_bytes_max as u32,
    }
}

fn letter() -> Envelope<Letter> {
    Envelope {
        from: PEER,
        from_incarnation: Incarnation(1),
        to_incarnation: Incarnation(0),
        group: GroupId(0),
        packets: vec![Packet::Protocol(Letter { number: 1, body: vec![7; 1024].into() })],
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Result<Authority, Failure> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    fn certify(&self, node: NodeId) -> Result<TlsPem, Failure> {
        let params = CertificateParams::new(vec![certificate_name(ClusterId(1), node)])?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(TlsPem::new(certificate.pem(), key.serialize_pem(), self.0.as_ref().pem()))
    }
}
