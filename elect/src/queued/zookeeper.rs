//! A queue of ephemeral nodes in ZooKeeper.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use synod_core::{ClockBound, Instant};
use synod_lease::FencingToken;
use zookeeper_client::{Acls, AddWatchMode, Client, CreateMode, Error, PersistentWatcher};

use super::{Driver, Place, Queue, QueueError, QueuedCandidate};
use crate::clock::now;
use crate::seat::{Seat, seat};
use crate::{Election, ElectionError, Leader, Leadership};

/// A candidate for a name by ZooKeeper: the oldest ephemeral node under `/elect/NAME` leads, each lives as long as its
/// session, and the token is the zxid that created it.
///
/// # How long the session is believed in
///
/// The leader of the servers ends a session when it has heard nothing of it for its timeout. A client talks to any server;
/// what the leader hears of a session comes with that server's answers to pings, twice a tick. So a request that was
/// answered says nothing yet: were its server gone in the next moment, the leader would count from earlier. What was sent
/// half of the timeout (one tick at least, unless the servers were told to take shorter sessions) before a `sync` that the
/// leader has answered is known there; this candidate counts from that.
#[derive(Debug)]
pub struct ZooKeeperElection {
    seat: Seat,
}

impl ZooKeeperElection {
    /// Starts a candidate on the current tokio runtime. `servers` are those of one cluster, as in `127.0.0.1:2181`; all
    /// that is kept lies under `/elect`.
    ///
    /// # Errors
    /// [`ElectionError::Config`]. That nobody answers is no error.
    ///
    /// # Panics
    /// Outside a tokio runtime with a timer.
    pub fn start(
        servers: &[String],
        candidate: &QueuedCandidate,
    ) -> Result<ZooKeeperElection, ElectionError> {
        candidate.validate()?;
        let (seat, chair) = seat();
        let queue = Nodes {
            servers: servers.join(","),
            path: format!("/elect/{}", candidate.escaped_name()),
            owner: candidate.owner.clone(),
            length: candidate.length,
            bound: candidate.bound,
            session: None,
        };
        tokio::spawn(Driver::new(queue, chair, candidate.length).run());
        Ok(ZooKeeperElection { seat })
    }
}

#[async_trait]
impl Election for ZooKeeperElection {
    async fn campaign(&self) -> Result<Leadership, ElectionError> {
        self.seat.campaign().await
    }

    async fn resign(&self) -> Result<(), ElectionError> {
        self.seat.resign().await
    }

    fn observe(&self) -> BoxStream<'static, Option<Leader>> {
        self.seat.observe()
    }
}

/// The nodes under a path.
struct Nodes {
    servers: String,
    path: String,
    owner: String,
    length: Duration,
    bound: ClockBound,
    session: Option<Session>,
}

struct Session {
    client: Client,
    watcher: Option<PersistentWatcher>,
    /// The own node was asked for: the session must not be used for another one.
    used: bool,
}

#[async_trait]
impl Queue for Nodes {
    async fn enter(&mut self) -> Result<Place, QueueError> {
        // A node that may have been made goes with its session.
        self.session.take_if(|session| session.used || session.client.state().is_terminated());
        let asked = now();
        let path = self.path.clone();
        let owner = self.owner.clone();
        let session = self.session().await?;
        session.used = true;
        let client = session.client.clone();
        client.mkdir(&path, &CreateMode::Persistent.with_acls(Acls::anyone_all())).await?;
        let mode = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
        let (stat, _) = client.create(&format!("{path}/candidate-"), owner.as_bytes(), &mode).await?;
        Ok(Place { token: token(stat.czxid), until: self.held(asked, client.session_timeout()) })
    }

    async fn renew(&mut self) -> Result<Option<Instant>, QueueError> {
        let Some(session) = self.session.as_ref().filter(|session| session.used) else { return Ok(None) };
        let client = session.client.clone();
        if client.state().is_terminated() {
            return Ok(None);
        }
        let asked = now();
        match client.sync(&self.path).await {
            Ok(()) => Ok(Some(self.held(asked, client.session_timeout()))),
            Err(Error::SessionExpired | Error::ClientClosed) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn first(&mut self) -> Result<Option<Leader>, QueueError> {
        let path = self.path.clone();
        let session = self.session().await?;
        if session.watcher.is_none() {
            // Before the look: what changes after it is seen.
            session.watcher = Some(session.client.watch(&path, AddWatchMode::PersistentRecursive).await?);
        }
        let client = session.client.clone();
        let children = match client.list_children(&path).await {
            Err(Error::NoNode) => return Ok(None),
            children => children?,
        };
        // Sequence numbers wrap in the end; the order of creation does not.
        let mut oldest: Option<(i64, Vec<u8>)> = None;
        for child in children {
            match client.get_data(&format!("{path}/{child}")).await {
                Ok((owner, stat)) if oldest.as_ref().is_none_or(|(czxid, _)| stat.czxid < *czxid) => {
                    oldest = Some((stat.czxid, owner));
                }
                Ok(_) | Err(Error::NoNode) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(oldest.map(|(czxid, owner)| Leader {
            name: String::from_utf8_lossy(&owner).into_owned(),
            token: Some(token(czxid)),
        }))
    }

    async fn changed(&mut self) {
        let Some(Session { watcher: Some(watcher), client, .. }) = &mut self.session else {
            return std::future::pending().await;
        };
        if client.state().is_terminated() {
            return std::future::pending().await;
        }
        let event = watcher.changed().await;
        if event.session_state.is_terminated() {
            // It must not be asked again.
            if let Some(session) = &mut self.session {
                session.watcher = None;
            }
        }
    }

    async fn leave(&mut self) -> Result<(), QueueError> {
        // Dropping the last handle closes the session, and its nodes go with it.
        self.session = None;
        Ok(())
    }

    fn renew_every(&self) -> Duration {
        self.length / 8
    }
}

impl Nodes {
    async fn session(&mut self) -> Result<&mut Session, QueueError> {
        if self.session.as_ref().is_none_or(|session| session.client.state().is_terminated()) {
            let connector = Client::connector().with_session_timeout(self.length);
            let client = connector.connect(&self.servers).await?;
            self.session = Some(Session { client, watcher: None, used: false });
        }
        Ok(self.session.as_mut().expect("just made"))
    }

    /// Until when a session is held whose `sync` was asked for at `asked`.
    fn held(&self, asked: Instant, timeout: Duration) -> Instant {
        asked + self.bound.held(timeout / 2)
    }
}

fn token(zxid: i64) -> FencingToken {
    FencingToken(zxid.unsigned_abs())
}
