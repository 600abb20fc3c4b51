//! Clients that put and get while things go wrong, and note what they saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use synod_checker::{ClientId, KeyId, Nanos, Recorder, ValueId};
use synod_kv::client::Connection;
use synod_kv::wire::{Request, Response};
use tokio::time::{sleep, timeout};

/// How long a client waits for one answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest pause between two operations of a client: the load is steady, not the most there can be.
const PAUSE_MAX_US: u64 = 4_000;
/// Keys in use at a time. The window moves with the rounds, so that operations of unknown outcome, which
/// stay open for ever, do not pile up on one key.
const KEYS_AT_A_TIME: u32 = 20;

/// What clients and conductor share.
pub(crate) struct Shared {
    /// Client addresses of the nodes.
    pub(crate) servers: Vec<SocketAddr>,
    /// The run began here.
    pub(crate) started: Instant,
    /// The first key in use.
    pub(crate) keys_from: AtomicU32,
    /// Puts acknowledged so far.
    pub(crate) acknowledged: AtomicU64,
    /// Set when the clients shall end.
    pub(crate) ended: AtomicBool,
}

impl Shared {
    /// Nothing done yet.
    pub(crate) fn new(servers: Vec<SocketAddr>) -> Arc<Shared> {
        Arc::new(Shared {
            servers,
            started: Instant::now(),
            keys_from: AtomicU32::new(0),
            acknowledged: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        })
    }

    /// Takes the next keys into use.
    pub(crate) fn move_keys(&self) {
        self.keys_from.fetch_add(KEYS_AT_A_TIME, Ordering::Relaxed);
    }

    /// Every key ever used.
    pub(crate) fn keys(&self) -> std::ops::Range<u32> {
        0..self.keys_from.load(Ordering::Relaxed) + KEYS_AT_A_TIME
    }

    /// Now, for the history.
    pub(crate) fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The name of a key on the wire.
pub(crate) fn key_name(key: KeyId) -> String {
    format!("k{}", key.0)
}

/// The name of a value on the wire.
pub(crate) fn value_name(value: ValueId) -> String {
    format!("v{}", value.0)
}

/// The value behind a name that [`value_name`] made; one that nobody wrote stands for a value that was
/// never written, which the checker refuses.
pub(crate) fn value_of(name: &str) -> ValueId {
    name.strip_prefix('v').and_then(|number| number.parse().ok()).map_or(ValueId(u64::MAX), ValueId)
}

/// One client, until the run ends: half reads, half writes, at a node of its choice for as long as that
/// one answers.
pub(crate) async fn run(client: u32, seed: u64, shared: Arc<Shared>) -> Recorder {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ (u64::from(client) << 32));
    let mut recorder = Recorder::new(ClientId(client));
    let mut connection: Option<Connection> = None;
    let mut puts = 0;
    while !shared.ended.load(Ordering::Relaxed) {
        sleep(Duration::from_micros(random.next_u64() % PAUSE_MAX_US)).await;
        let Some(mut open) = (match connection.take() {
            Some(open) => Some(open),
            None => connect(&shared, &mut random).await,
        }) else {
            continue;
        };
        let from = shared.keys_from.load(Ordering::Relaxed);
        let key = KeyId(from + random.next_u32() % KEYS_AT_A_TIME);
        let healthy = if random.next_u64().is_multiple_of(2) {
            puts += 1;
            let value = ValueId((u64::from(client) << 40) | puts);
            put(&mut recorder, &mut open, key, value, &shared).await
        } else {
            get(&mut recorder, &mut open, key, &shared).await
        };
        if healthy {
            connection = Some(open);
        }
    }
    recorder
}

async fn connect(shared: &Shared, random: &mut Xoshiro256PlusPlus) -> Option<Connection> {
    let server = shared.servers[(random.next_u64() % shared.servers.len() as u64) as usize];
    timeout(PATIENCE, Connection::open(server)).await.ok()?.ok()
}

/// True if the connection may be used again.
async fn put(
    recorder: &mut Recorder,
    connection: &mut Connection,
    key: KeyId,
    value: ValueId,
    shared: &Shared,
) -> bool {
    let request = Request::Put { key: key_name(key), value: value_name(value) };
    let ticket = recorder.put(key, value, shared.now());
    let answer = timeout(PATIENCE, connection.ask(&request)).await;
    let now = shared.now();
    match answer {
        Ok(Ok(Response::Ok)) => {
            recorder.put_ok(ticket, now);
            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            true
        }
        Ok(Ok(Response::Failed { .. })) => {
            recorder.failed(ticket, now);
            false
        }
        // No answer, or one that says so: it may be applied, now or later.
        _ => {
            recorder.unknown(ticket, now);
            false
        }
    }
}

/// True if the connection may be used again.
async fn get(recorder: &mut Recorder, connection: &mut Connection, key: KeyId, shared: &Shared) -> bool {
    let request = Request::Get { key: key_name(key), local: false };
    let ticket = recorder.get(key, shared.now());
    let answer = timeout(PATIENCE, connection.ask(&request)).await;
    let now = shared.now();
    match answer {
        Ok(Ok(Response::Value { value })) => {
            recorder.get_ok(ticket, value.as_deref().map(value_of), now);
            true
        }
        _ => {
            recorder.failed(ticket, now);
            false
        }
    }
}

/// Reads every key once, linearizably: what was acknowledged and lost shows here at the latest.
///
/// # Errors
/// What could not be read in time.
pub(crate) async fn read_all(client: u32, shared: &Shared) -> Result<Recorder, String> {
    let mut recorder = Recorder::new(ClientId(client));
    let mut random = Xoshiro256PlusPlus::seed_from_u64(u64::from(client));
    let mut connection: Option<Connection> = None;
    for key in shared.keys() {
        let mut tries = 0;
        loop {
            if connection.is_none() {
                connection = connect(shared, &mut random).await;
            }
            if let Some(mut open) = connection.take()
                && get(&mut recorder, &mut open, KeyId(key), shared).await
            {
                connection = Some(open);
                break;
            }
            tries += 1;
            if tries > 20 {
                return Err(format!("k{key} could not be read after the run"));
            }
        }
    }
    Ok(recorder)
}
