//! A queue of keys in etcd.

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, GetOptions, LeaseKeepAliveStream, LeaseKeeper, PutOptions,
    SortOrder, SortTarget, Txn, TxnOp, WatchOptions, WatchStream,
};
use futures::stream::BoxStream;
use synod_core::{ClockBound, Instant};
use synod_lease::FencingToken;

use super::{Driver, Place, Queue, QueueError, QueuedCandidate};
use crate::clock::now;
use crate::seat::{Seat, seat};
use crate::{Election, ElectionError, Leader, Leadership};

/// A candidate for a name by etcd: the oldest key under `elect/NAME/` leads, each key lives as long as its lease, and the
/// token is the revision that created it.
///
/// The lease is counted by this candidate, from before each request: the `Campaign` call of etcd is not used, because its
/// answer can come after the lease that it stands on has ended.
///
/// etcd grants leases of whole seconds, and none shorter than one and a half of its election timeouts. A leader of etcd
/// that was followed and does not know it can answer a keep-alive for as long as its own disk stands still (etcd-io/etcd
/// issue 15247): only the token protects then.
#[derive(Debug)]
pub struct EtcdElection {
    seat: Seat,
}

impl EtcdElection {
    /// Starts a candidate on the current tokio runtime. `endpoints` are those of one cluster, as in
    /// `http://127.0.0.1:2379`; with `options`, of users and of TLS, from a [`ConnectOptions`].
    ///
    /// # Errors
    /// [`ElectionError::Config`], and [`ElectionError::Servers`] for endpoints that are none. That nobody answers is no
    /// error.
    ///
    /// # Panics
    /// Outside a tokio runtime with a timer.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn start(
        endpoints: &[String],
        options: Option<ConnectOptions>,
        candidate: &QueuedCandidate,
    ) -> Result<EtcdElection, ElectionError> {
        candidate.validate()?;
        let client = Client::connect(endpoints, options)
            .await
            .map_err(|error| ElectionError::Servers(error.into()))?;
        let (seat, chair) = seat();
        let queue = Keys {
            client,
            prefix: format!("elect/{}/", candidate.escaped_name()),
            owner: candidate.owner.clone(),
            length: candidate.length,
            bound: candidate.bound,
            lease: None,
            keeper: None,
            watch: None,
        };
        tokio::spawn(Driver::new(queue, chair, candidate.length).run());
        Ok(EtcdElection { seat })
    }
}

#[async_trait]
impl Election for EtcdElection {
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

/// The keys under a prefix.
struct Keys {
    client: Client,
    prefix: String,
    owner: String,
    length: Duration,
    bound: ClockBound,
    /// The lease of the own key, or of one that may have been written.
    lease: Option<i64>,
    keeper: Option<(LeaseKeeper, LeaseKeepAliveStream)>,
    watch: Option<WatchStream>,
}

#[async_trait]
impl Queue for Keys {
    async fn enter(&mut self) -> Result<Place, QueueError> {
        self.leave().await?;
        let asked = now();
        let granted = self.client.lease_grant(whole_seconds(self.length), None).await?;
        self.lease = Some(granted.id());
        let until = self.held(asked, granted.ttl());
        let key = format!("{}{:016x}", self.prefix, granted.id());
        let put =
            TxnOp::put(key.clone(), self.owner.clone(), Some(PutOptions::new().with_lease(granted.id())));
        let absent = Compare::create_revision(key, CompareOp::Equal, 0);
        let answer = self.client.txn(Txn::new().when([absent]).and_then([put])).await?;
        let revision = answer.header().filter(|_| answer.succeeded()).map(|header| header.revision());
        let revision = revision.ok_or("the key of a new lease exists already")?;
        Ok(Place { token: FencingToken(revision.unsigned_abs()), until })
    }

    async fn renew(&mut self) -> Result<Option<Instant>, QueueError> {
        let Some(lease) = self.lease else { return Ok(None) };
        let asked = now();
        // Taken: an answer that comes after this call was given up would be taken for that to a later one.
        let (mut keeper, mut answers) = match self.keeper.take() {
            Some(keeper) => keeper,
            None => match self.client.lease_keep_alive(lease).await {
                Ok(keeper) => {
                    // The first request went out with the stream.
                    self.keeper = Some(keeper);
                    let granted = self.client.lease_time_to_live(lease, None).await?;
                    return Ok((granted.ttl() > 0).then(|| self.held(asked, granted.granted_ttl())));
                }
                Err(error) => {
                    let left = self.client.lease_time_to_live(lease, None).await?;
                    return if left.ttl() > 0 { Err(error.into()) } else { Ok(None) };
                }
            },
        };
        keeper.keep_alive().await?;
        let answer = answers.message().await?.ok_or("the stream of keep-alives has ended")?;
        if answer.ttl() <= 0 {
            return Ok(None);
        }
        self.keeper = Some((keeper, answers));
        Ok(Some(self.held(asked, answer.ttl())))
    }

    async fn first(&mut self) -> Result<Option<Leader>, QueueError> {
        if self.watch.is_none() {
            // Before the look: what changes after it is seen.
            let options = WatchOptions::new().with_prefix();
            self.watch = Some(self.client.watch(self.prefix.clone(), Some(options)).await?);
        }
        let oldest =
            GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend).with_limit(1);
        let answer = self.client.get(self.prefix.clone(), Some(oldest)).await?;
        Ok(answer.kvs().first().map(|key| Leader {
            name: String::from_utf8_lossy(key.value()).into_owned(),
            token: Some(FencingToken(key.create_revision().unsigned_abs())),
        }))
    }

    async fn changed(&mut self) {
        let Some(watch) = &mut self.watch else { return std::future::pending().await };
        if !matches!(watch.message().await, Ok(Some(_))) {
            // The next look begins a new one.
            self.watch = None;
        }
    }

    async fn leave(&mut self) -> Result<(), QueueError> {
        self.keeper = None;
        let Some(lease) = self.lease else { return Ok(()) };
        let revoked = self.client.lease_revoke(lease).await;
        if let Err(error) = revoked {
            // Somebody has revoked it, or it has ended.
            if self.client.lease_time_to_live(lease, None).await?.ttl() > 0 {
                return Err(error.into());
            }
        }
        self.lease = None;
        Ok(())
    }

    fn renew_every(&self) -> Duration {
        self.length / 6
    }
}

impl Keys {
    /// Until when a lease of `seconds`, asked for at `asked`, is held.
    fn held(&self, asked: Instant, seconds: i64) -> Instant {
        asked + self.bound.held(Duration::from_secs(seconds.unsigned_abs()))
    }
}

/// The length of a lease as etcd takes it: never longer than asked for, so that others wait no longer.
fn whole_seconds(length: Duration) -> i64 {
    i64::try_from(length.as_secs()).unwrap_or(i64::MAX)
}
