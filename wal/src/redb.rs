//! A second durable storage, on [redb](https://docs.rs/redb) (feature `redb`): how to write one.
//!
//! Two tables, and one transaction for each batch: units are applied to the tables as [`Storage`] describes them, and
//! the commit makes all of them durable or none. So the storage is short, and everything hard is redb's. It pays for
//! that with several pages written per entry and with recovery that reads the whole log; [`crate::Wal`] exists because
//! of that. What redb finds damaged it says or panics over, and a changed byte may go unnoticed until it is read.

use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use ::redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError as RedbStorageError, Table,
    TableDefinition, WriteTransaction,
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use synod_core::{
    ClusterId, Compacted, DecodeError, Entries, Entry, GroupId, Identity, Incarnation, IndexRange, Loaded,
    LogIndex, LogReader, NodeId, ReadError, Recovered, Run, Stamp, Storage, StorageError, Wire, WireReader,
    Write,
};

use crate::WalError;

/// Entries by their index, each in its form of the wire.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Everything else, by name.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

const IDENTITY: &str = "identity";
const LIFE: &str = "incarnation";
const HARD_STATE: &str = "hard state";
const COMPACTED: &str = "compacted";

/// A log in one file of redb.
#[derive(Debug)]
pub struct RedbStorage {
    database: Arc<Database>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Recovered,
    Poisoned,
}

impl RedbStorage {
    /// Makes a new, empty log in a file that is not there.
    ///
    /// # Errors
    /// [`WalError::NotEmpty`] if it is, [`WalError::Io`].
    pub fn create(path: impl AsRef<Path>, identity: Identity) -> Result<RedbStorage, WalError> {
        let path = path.as_ref();
        let place = path.display().to_string();
        if path.exists() {
            return Err(WalError::NotEmpty { place: place.clone(), found: "a file".to_owned() });
        }
        let database = Database::create(path).map_err(|error| opening(&place, error))?;
        let made = || -> Result<(), ::redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(LOG)?;
            transaction.open_table(META)?.insert(IDENTITY, &encode_identity(&identity)[..])?;
            transaction.commit()?;
            Ok(())
        };
        made().map_err(|error| WalError::io("make", &place)(into_io(error)))?;
        Ok(RedbStorage { database: Arc::new(database), state: State::New })
    }

    /// Opens a log.
    ///
    /// # Errors
    /// [`WalError::NoLog`] if the file is missing, [`WalError::Locked`] if a process has it open,
    /// [`WalError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<RedbStorage, WalError> {
        let place = path.as_ref().display().to_string();
        let database = Database::open(path).map_err(|error| opening(&place, error))?;
        Ok(RedbStorage { database: Arc::new(database), state: State::New })
    }

    fn begin_life(&self, identity: &Identity) -> Result<Recovered, StorageError> {
        let transaction = self.database.begin_write().map_err(failed("begin"))?;
        let mut recovered = Recovered::default();
        {
            let mut meta = transaction.open_table(META).map_err(failed("open a table"))?;
            let found = get(&meta, IDENTITY)?.ok_or_else(|| corrupt(IDENTITY, "there is none"))?;
            let found = decode_identity(found).map_err(|error| corrupt(IDENTITY, &error.to_string()))?;
            if found != *identity {
                return Err(StorageError::Foreign { expected: *identity, found });
            }
            recovered.incarnation = Incarnation(match get(&meta, LIFE)? {
                Some(life) => 1 + number(life).map_err(|error| corrupt(LIFE, &error.to_string()))?,
                None => 1,
            });
            recovered.hard_state = get(&meta, HARD_STATE)?;
            recovered.compacted = compacted(&meta)?;
            let life = recovered.incarnation.0.to_le_bytes();
            meta.insert(LIFE, &life[..]).map_err(failed("write"))?;
            let log = transaction.open_table(LOG).map_err(failed("open a table"))?;
            for item in log.iter().map_err(failed("read"))? {
                let (index, value) = item.map_err(failed("read"))?;
                let entry = decode_entry(index.value(), value.value())?;
                Run::extend(&mut recovered.runs, entry.index, entry.stamp);
                if entry.kind.is_marked() {
                    recovered.marked.push(entry);
                }
            }
        }
        transaction.commit().map_err(failed("commit"))?;
        Ok(recovered)
    }

    fn write_batch(&self, batch: &[Write]) -> Result<(), StorageError> {
        let transaction = self.database.begin_write().map_err(failed("begin"))?;
        for unit in batch {
            apply(&transaction, unit)?;
        }
        transaction.commit().map_err(failed("commit"))
    }
}

/// Applies the fields of a unit in their order.
fn apply(transaction: &WriteTransaction, unit: &Write) -> Result<(), StorageError> {
    let mut log = transaction.open_table(LOG).map_err(failed("open a table"))?;
    let mut meta = transaction.open_table(META).map_err(failed("open a table"))?;
    if let Some((through, stamp)) = unit.install
        && compacted(&meta)?.is_none_or(|(bound, _)| bound < through)
    {
        compact(&mut log, &mut meta, through, stamp)?;
    }
    if let Some(from) = unit.truncate_from {
        log.retain_in(from.0.., |_, _| false).map_err(failed("write"))?;
    }
    for entry in unit.puts.iter().flat_map(|put| put.iter()) {
        let alone = Entries::numbered(entry.index, vec![entry.clone()], |_, entry| entry);
        log.insert(entry.index.0, &alone.to_bytes()[..]).map_err(failed("write"))?;
    }
    if let Some(through) = unit.compact_to
        && compacted(&meta)?.is_none_or(|(bound, _)| bound < through)
    {
        let stamp = stamp_at(&log, through)?;
        compact(&mut log, &mut meta, through, stamp)?;
    }
    if let Some(state) = &unit.hard_state {
        meta.insert(HARD_STATE, &state[..]).map_err(failed("write"))?;
    }
    Ok(())
}

/// Removes everything at or below `through`; `stamp` stood there.
fn compact(
    log: &mut Table<'_, u64, &[u8]>,
    meta: &mut Table<'_, &str, &[u8]>,
    through: LogIndex,
    stamp: Stamp,
) -> Result<(), StorageError> {
    log.retain_in(..=through.0, |_, _| false).map_err(failed("write"))?;
    let mut bound = Vec::with_capacity(24);
    for number in [through.0, stamp.high, stamp.low] {
        bound.extend_from_slice(&number.to_le_bytes());
    }
    meta.insert(COMPACTED, &bound[..]).map_err(failed("write"))?;
    Ok(())
}

fn stamp_at(log: &Table<'_, u64, &[u8]>, index: LogIndex) -> Result<Stamp, StorageError> {
    match log.get(index.0).map_err(failed("read"))? {
        Some(value) => Ok(decode_entry(index.0, value.value())?.stamp),
        None => Ok(Stamp::ZERO),
    }
}

#[async_trait]
impl Storage for RedbStorage {
    async fn recover(&mut self, identity: &Identity) -> Result<Recovered, StorageError> {
        let recovered = self.begin_life(identity)?;
        self.state = State::Recovered;
        Ok(recovered)
    }

    async fn write(&mut self, batch: &[Write]) -> Result<(), StorageError> {
        match self.state {
            State::New => return Err(StorageError::NotRecovered),
            State::Poisoned => return Err(StorageError::Poisoned),
            State::Recovered => {}
        }
        let outcome = self.write_batch(batch);
        if outcome.is_err() {
            self.state = State::Poisoned;
        }
        outcome
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(Reader { database: Arc::downgrade(&self.database) })
    }

    fn blocking(&self) -> bool {
        true
    }
}

struct Reader {
    /// A reader that is left behind does not keep the file locked.
    database: Weak<Database>,
}

impl LogReader for Reader {
    fn read(&self, range: IndexRange, bytes_max: usize) -> Result<Loaded, ReadError> {
        let database = self.database.upgrade().ok_or(StorageError::NotRecovered)?;
        let transaction = database.begin_read().map_err(failed("begin"))?;
        let meta = transaction.open_table(META).map_err(failed("open a table"))?;
        if let Some((through, _)) = compacted(&meta)?
            && range.from <= through
        {
            return Err(Compacted { through }.into());
        }
        let mut loaded = Loaded { segments: Vec::new(), to: range.to.max(range.from) };
        let mut run: Vec<Entry> = Vec::new();
        let mut left = bytes_max;
        let log = transaction.open_table(LOG).map_err(failed("open a table"))?;
        for item in log.range(range.from.0..loaded.to.0).map_err(failed("read"))? {
            let (index, value) = item.map_err(failed("read"))?;
            let entry = decode_entry(index.value(), value.value())?;
            if entry.weight() > left && !(run.is_empty() && loaded.segments.is_empty()) {
                loaded.to = entry.index;
                break;
            }
            left = left.saturating_sub(entry.weight());
            if run.last().is_some_and(|last| last.index.next() != entry.index) {
                loaded.segments.push(Entries::new(std::mem::take(&mut run)).expect("a run is consecutive"));
            }
            run.push(entry);
        }
        if !run.is_empty() {
            loaded.segments.push(Entries::new(run).expect("a run is consecutive"));
        }
        Ok(loaded)
    }
}

fn get(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<Option<Bytes>, StorageError> {
    let value = meta.get(name).map_err(failed("read"))?;
    Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
}

fn compacted(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<(LogIndex, Stamp)>, StorageError> {
    let Some(bound) = get(meta, COMPACTED)? else { return Ok(None) };
    let mut reader = WireReader::new(bound);
    let mut decode = || -> Result<_, DecodeError> {
        Ok((LogIndex(reader.u64()?), Stamp { high: reader.u64()?, low: reader.u64()? }))
    };
    decode().map(Some).map_err(|error| corrupt(COMPACTED, &error.to_string()))
}

fn decode_entry(index: u64, value: &[u8]) -> Result<Entry, StorageError> {
    let place = || format!("entry {index}");
    let entries = Entries::from_bytes(Bytes::copy_from_slice(value))
        .map_err(|error| corrupt(&place(), &error.to_string()))?;
    match &entries[..] {
        [entry] if entry.index.0 == index => Ok(entry.clone()),
        _ => Err(corrupt(&place(), "another one is stored")),
    }
}

fn number(value: Bytes) -> Result<u64, DecodeError> {
    WireReader::new(value).u64()
}

fn encode_identity(identity: &Identity) -> BytesMut {
    let mut out = BytesMut::new();
    out.extend_from_slice(&identity.cluster.0.to_le_bytes());
    out.extend_from_slice(&identity.node.0.to_le_bytes());
    out.extend_from_slice(&identity.group.0.to_le_bytes());
    out
}

fn decode_identity(value: Bytes) -> Result<Identity, DecodeError> {
    let mut reader = WireReader::new(value);
    let (low, high) = (reader.u64()?, reader.u64()?);
    Ok(Identity {
        cluster: ClusterId(u128::from(high) << 64 | u128::from(low)),
        node: NodeId(reader.u64()?),
        group: GroupId(reader.u32()?),
    })
}

fn opening(place: &str, error: DatabaseError) -> WalError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => WalError::Locked { lock: place.into(), holder: None },
        DatabaseError::Storage(RedbStorageError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            WalError::NoLog { place: place.to_owned(), found: None }
        }
        other => WalError::io("open", place)(into_io(other.into())),
    }
}

fn failed<E: Into<::redb::Error>>(operation: &'static str) -> impl Fn(E) -> StorageError {
    move |error| match error.into() {
        ::redb::Error::Corrupted(what) => StorageError::Corrupt { place: "the database".to_owned(), what },
        other => StorageError::Io { operation, source: Arc::new(into_io(other)) },
    }
}

fn into_io(error: ::redb::Error) -> io::Error {
    io::Error::other(error)
}

fn corrupt(place: &str, what: &str) -> StorageError {
    StorageError::Corrupt { place: place.to_owned(), what: what.to_owned() }
}
