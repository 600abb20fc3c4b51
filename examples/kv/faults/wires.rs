//! What connects the nodes, and how it is cut.
//!
//! With network namespaces every node has a network of its own with two cables: one to its peers, one to
//! the clients. A cut takes packets away, as a switch does that fails. Where namespaces cannot be made, a
//! proxy stands on every way from one node to another and stops passing bytes on: connections stay open
//! and say nothing, which is what a cut looks like to the ends of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;

/// Nodes are numbered from 0.
pub(crate) type NodeNumber = usize;

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A node hears none of its peers, and none hears it.
    Alone(NodeNumber),
    /// Two nodes do not hear each other; both hear the third.
    Pair(NodeNumber, NodeNumber),
}

/// The network of one cluster. Clients reach every node, whatever is cut.
pub(crate) enum Wires {
    /// Namespaces made by [`Namespaces::make`]; this process is in the one of the clients.
    Namespaces(Inside),
    /// A proxy on every way.
    Proxies(Proxies),
}

impl Wires {
    /// The value of `--peers` for one node.
    pub(crate) fn peers_of(&self, node: NodeNumber) -> String {
        let addresses = (0..self.len()).map(|peer| match self {
            Wires::Namespaces(_) => Inside::peer_address(peer),
            Wires::Proxies(proxies) => proxies.address(node, peer),
        });
        let peers: Vec<String> =
            addresses.enumerate().map(|(peer, address)| format!("{}={address}", peer + 1)).collect();
        peers.join(",")
    }

    /// Where the clients of a node are answered.
    pub(crate) fn client_address(&self, node: NodeNumber) -> SocketAddr {
        match self {
            Wires::Namespaces(_) => Inside::client_address(node),
            Wires::Proxies(proxies) => proxies.clients[node],
        }
    }

    /// A command that runs `program` where the node lives.
    pub(crate) fn command(&self, node: NodeNumber, program: &Path) -> Command {
        match self {
            Wires::Namespaces(inside) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &inside.name_of(node)]).arg(program);
                command
            }
            Wires::Proxies(_) => Command::new(program),
        }
    }

    /// Cuts, or mends the same cut.
    pub(crate) async fn set(&self, cut: Cut, whole: bool) -> io::Result<()> {
        match self {
            Wires::Namespaces(_) => Inside::set(cut, whole).await,
            Wires::Proxies(proxies) => {
                proxies.set(cut, whole);
                Ok(())
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Wires::Namespaces(inside) => inside.nodes,
            Wires::Proxies(proxies) => proxies.own.len(),
        }
    }
}

/// Network namespaces of one run; they go with the value.
pub(crate) struct Namespaces {
    prefix: String,
    nodes: usize,
}

impl Namespaces {
    /// Makes the namespaces: one for each node and one for the clients, with their bridges and cables.
    ///
    /// # Errors
    /// What `ip` says, if it is missing or this process may not.
    pub(crate) async fn make(prefix: &str, nodes: usize) -> io::Result<Namespaces> {
        let made = Namespaces { prefix: prefix.to_owned(), nodes };
        let hub = made.hub();
        ip(&["netns", "add", &hub]).await?;
        for (bridge, address) in [("peers", None), ("clients", Some("10.78.0.254/24"))] {
            ip(&["-n", &hub, "link", "add", bridge, "type", "bridge"]).await?;
            if let Some(address) = address {
                ip(&["-n", &hub, "addr", "add", address, "dev", bridge]).await?;
            }
            ip(&["-n", &hub, "link", "set", bridge, "up"]).await?;
        }
        ip(&["-n", &hub, "link", "set", "lo", "up"]).await?;
        for node in 0..nodes {
            let name = format!("{prefix}-{}", node + 1);
            ip(&["netns", "add", &name]).await?;
            ip(&["-n", &name, "link", "set", "lo", "up"]).await?;
            for (bridge, net) in [("peers", 77), ("clients", 78)] {
                let (outer, inner) = (cable(bridge, node), format!("{bridge}0"));
                ip(&[
                    "link", "add", &outer, "netns", &hub, "type", "veth", "peer", "name", &inner, "netns",
                    &name,
                ])
                .await?;
                ip(&["-n", &hub, "link", "set", &outer, "master", bridge, "up"]).await?;
                let address = format!("10.{net}.0.{}/24", node + 1);
                ip(&["-n", &name, "addr", "add", &address, "dev", &inner]).await?;
                ip(&["-n", &name, "link", "set", &inner, "up"]).await?;
            }
        }
        Ok(made)
    }

    /// The command that runs `program` where the clients live.
    pub(crate) fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.hub()]).arg(program);
        command
    }

    /// What the names of the namespaces begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let nodes = (1..=self.nodes).map(|node| format!("{}-{node}", self.prefix));
        for name in nodes.chain([self.hub()]) {
            // One that was not made cannot be removed; nothing else can be done here.
            let _ = std::process::Command::new("ip")
                .args(["netns", "del", &name])
                .stderr(std::process::Stdio::null())
                .status();
        }
    }
}

/// The view of a process inside the namespace of the clients.
pub(crate) struct Inside {
    /// What the names of the namespaces begin with.
    pub(crate) prefix: String,
    /// How many nodes there are.
    pub(crate) nodes: usize,
}

impl Inside {
    fn name_of(&self, node: NodeNumber) -> String {
        format!("{}-{}", self.prefix, node + 1)
    }

    fn peer_address(node: NodeNumber) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, node as u8 + 1)), 7100)
    }

    fn client_address(node: NodeNumber) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 78, 0, node as u8 + 1)), 8100)
    }

    async fn set(cut: Cut, whole: bool) -> io::Result<()> {
        match cut {
            Cut::Alone(node) => {
                ip(&["link", "set", &cable("peers", node), if whole { "up" } else { "down" }]).await
            }
            // Isolated ports of a bridge hear every port but each other.
            Cut::Pair(one, other) => {
                for node in [one, other] {
                    let isolated = if whole { "off" } else { "on" };
                    ip(&["link", "set", &cable("peers", node), "type", "bridge_slave", "isolated", isolated])
                        .await?;
                }
                Ok(())
            }
        }
    }
}

fn cable(bridge: &str, node: NodeNumber) -> String {
    format!("{bridge}{}", node + 1)
}

async fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output().await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("ip {}: {said}", arguments.join(" "))))
}

/// A proxy on every way from one node to another, on loopback.
pub(crate) struct Proxies {
    own: Vec<SocketAddr>,
    clients: Vec<SocketAddr>,
    /// By the node that connects, then by the one it means.
    ways: Vec<Vec<SocketAddr>>,
    /// True while the two hear each other; by the lower number, then by the higher.
    whole: Vec<Vec<watch::Sender<bool>>>,
}

impl Proxies {
    /// Starts the proxies on ports that the system chooses, and picks ports for the nodes.
    ///
    /// # Errors
    /// Whatever the system says.
    pub(crate) async fn start(nodes: usize) -> io::Result<Proxies> {
        let mut taken = Vec::new();
        let own = free_addresses(nodes, &mut taken)?;
        let clients = free_addresses(nodes, &mut taken)?;
        drop(taken);
        let whole: Vec<Vec<watch::Sender<bool>>> =
            (0..nodes).map(|_| (0..nodes).map(|_| watch::Sender::new(true)).collect()).collect();
        let mut ways = vec![Vec::new(); nodes];
        for (from, ways) in ways.iter_mut().enumerate() {
            for (to, target) in own.iter().enumerate() {
                if from == to {
                    ways.push(*target);
                    continue;
                }
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                ways.push(listener.local_addr()?);
                let open = whole[from.min(to)][from.max(to)].subscribe();
                tokio::spawn(accept(listener, *target, open));
            }
        }
        Ok(Proxies { own, clients, ways, whole })
    }

    fn address(&self, from: NodeNumber, to: NodeNumber) -> SocketAddr {
        self.ways[from][to]
    }

    fn set(&self, cut: Cut, whole: bool) {
        let pairs: Vec<(NodeNumber, NodeNumber)> = match cut {
            Cut::Alone(node) => {
                (0..self.own.len()).filter(|peer| *peer != node).map(|peer| (node, peer)).collect()
            }
            Cut::Pair(one, other) => vec![(one, other)],
        };
        for (one, other) in pairs {
            self.whole[one.min(other)][one.max(other)].send_replace(whole);
        }
    }
}

/// Addresses on loopback with ports that were free just now. Their sockets are kept in `taken`, so that no
/// port is given twice.
fn free_addresses(count: usize, taken: &mut Vec<std::net::TcpListener>) -> io::Result<Vec<SocketAddr>> {
    (0..count)
        .map(|_| {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = listener.local_addr()?;
            taken.push(listener);
            Ok(address)
        })
        .collect()
}

async fn accept(listener: TcpListener, target: SocketAddr, open: watch::Receiver<bool>) {
    while let Ok((near, _)) = listener.accept().await {
        let mut open = open.clone();
        tokio::spawn(async move {
            if open.wait_for(|open| *open).await.is_err() {
                return;
            }
            // A target that is down refuses: the near end is told by the close.
            let Ok(far) = TcpStream::connect(target).await else { return };
            // Without delay, as the nodes themselves; a failure to set it changes the speed alone.
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            // When one direction ends, so does the other.
            tokio::select! {
                () = pass(near_read, far_write, open.clone()) => {}
                () = pass(far_read, near_write, open) => {}
            }
        });
    }
}

/// Passes bytes on while the way is open, holds them while it is not.
async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut open: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
