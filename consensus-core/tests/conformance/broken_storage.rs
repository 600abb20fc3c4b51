//! Storages in memory that break one rule each.

use std::sync::Arc;

use async_trait::async_trait;
use synod_core::conformance::storage::{StorageHarness, run_all};
use synod_core::memory::MemoryStorage;
use synod_core::{
    Identity, Incarnation, IndexRange, Loaded, LogReader, ReadError, Recovered, Stamp, Storage, StorageError,
    Write,
};

use super::assert_rejected_by;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    PutTruncates,
    TruncationIgnored,
    TruncationAfterPuts,
    HardStateLost,
    IncarnationNotRaised,
    ReadsUnbounded,
    ReadsEmptyWhenTheBoundIsSmall,
    InstallIsACompaction,
    CompactionForgetsTheStamp,
    CompactedReadsAreEmpty,
    MarkedForgotten,
    StrangersWelcome,
    WritesBeforeRecovery,
    OldLivesWrite,
    EveryOperationFails,
}

struct Broken {
    fault: Fault,
    inner: MemoryStorage,
    owner: Identity,
}

struct Harness {
    fault: Fault,
    inner: MemoryStorage,
    owner: Identity,
}

impl StorageHarness for Harness {
    fn create(&mut self, identity: &Identity) -> Box<dyn Storage> {
        self.inner = MemoryStorage::new();
        self.owner = *identity;
        self.reopen()
    }

    fn reopen(&mut self) -> Box<dyn Storage> {
        Box::new(Broken { fault: self.fault, inner: self.inner.clone(), owner: self.owner })
    }

    fn takeover(&self) -> bool {
        true
    }

    // Nothing is ever lost or fails here; a harness that offers what it cannot do is found out.
    fn crashes(&self) -> bool {
        true
    }

    fn faults(&self) -> bool {
        true
    }
}

#[async_trait]
impl Storage for Broken {
    async fn recover(&mut self, identity: &Identity) -> Result<Recovered, StorageError> {
        if self.fault == Fault::EveryOperationFails {
            return Err(StorageError::Poisoned);
        }
        let identity = if self.fault == Fault::StrangersWelcome { &self.owner } else { identity };
        let mut recovered = self.inner.recover(identity).await?;
        match self.fault {
            Fault::IncarnationNotRaised => recovered.incarnation = Incarnation(1),
            Fault::MarkedForgotten => recovered.marked.clear(),
            Fault::CompactionForgetsTheStamp => {
                recovered.compacted = recovered.compacted.map(|(bound, _)| (bound, Stamp::ZERO));
            }
            _ => {}
        }
        Ok(recovered)
    }

    async fn write(&mut self, batch: &[Write]) -> Result<(), StorageError> {
        for unit in batch {
            let mut unit = unit.clone();
            match self.fault {
                Fault::PutTruncates => {
                    let lowest = unit.puts.iter().map(|put| put.first_index()).min();
                    unit.truncate_from = [unit.truncate_from, lowest].into_iter().flatten().min();
                }
                Fault::TruncationIgnored => unit.truncate_from = None,
                Fault::TruncationAfterPuts => {
                    let puts = Write { puts: std::mem::take(&mut unit.puts), ..Write::default() };
                    self.inner.write(&[puts]).await?;
                }
                Fault::HardStateLost => unit.hard_state = None,
                Fault::InstallIsACompaction => {
                    if let Some((index, _)) = unit.install.take() {
                        let compaction = Write { compact_to: Some(index), ..Write::default() };
                        self.inner.write(&[compaction]).await?;
                    }
                }
                _ => {}
            }
            match (self.inner.write(std::slice::from_ref(&unit)).await, self.fault) {
                (Err(StorageError::NotRecovered), Fault::WritesBeforeRecovery)
                | (Err(StorageError::Superseded), Fault::OldLivesWrite) => {
                    self.inner.recover(&self.owner).await?;
                    self.inner.write(&[unit]).await?;
                }
                (outcome, _) => outcome?,
            }
        }
        Ok(())
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(Reader { fault: self.fault, inner: self.inner.reader() })
    }

    fn blocking(&self) -> bool {
        false
    }
}

struct Reader {
    fault: Fault,
    inner: Arc<dyn LogReader>,
}

impl LogReader for Reader {
    fn read(&self, range: IndexRange, bytes_max: usize) -> Result<Loaded, ReadError> {
        match self.fault {
            Fault::ReadsUnbounded => self.inner.read(range, usize::MAX),
            Fault::ReadsEmptyWhenTheBoundIsSmall if bytes_max < 50 => {
                Ok(Loaded { segments: Vec::new(), to: range.from })
            }
            Fault::CompactedReadsAreEmpty => match self.inner.read(range, bytes_max) {
                Err(ReadError::Compacted(_)) => Ok(Loaded { segments: Vec::new(), to: range.to }),
                other => other,
            },
            _ => self.inner.read(range, bytes_max),
        }
    }
}

#[test]
fn each_broken_storage_is_rejected_by_the_check_that_names_its_rule() {
    let cases = [
        (Fault::PutTruncates, "a_put_replaces_its_index_and_nothing_else"),
        (Fault::PutTruncates, "a_random_history_agrees_with_a_map"),
        (Fault::TruncationIgnored, "a_truncation_removes_the_tail_and_nothing_else"),
        (Fault::TruncationAfterPuts, "a_truncation_and_a_put_fit_into_one_unit"),
        (Fault::TruncationAfterPuts, "a_unit_applies_its_fields_in_order"),
        (Fault::HardStateLost, "the_last_hard_state_survives"),
        (Fault::IncarnationNotRaised, "every_life_is_one_higher"),
        (Fault::ReadsUnbounded, "reads_are_bounded_prefixes"),
        (Fault::ReadsEmptyWhenTheBoundIsSmall, "reads_are_bounded_prefixes"),
        (Fault::CompactionForgetsTheStamp, "compaction_keeps_the_stamp_at_its_bound"),
        (Fault::InstallIsACompaction, "a_snapshot_stands_for_what_is_at_or_below_it"),
        (Fault::CompactedReadsAreEmpty, "reads_at_or_below_the_compaction_bound_say_so"),
        (Fault::MarkedForgotten, "every_field_of_an_entry_survives"),
        (Fault::StrangersWelcome, "a_foreign_identity_is_refused"),
        (Fault::WritesBeforeRecovery, "a_write_before_recovery_is_refused"),
        (Fault::OldLivesWrite, "a_superseded_life_is_refused"),
    ];
    for (fault, check) in cases {
        let mut harness = Harness { fault, inner: MemoryStorage::new(), owner: Identity::default() };
        assert_rejected_by(&run_all(&mut harness), check, &format!("{fault:?}"));
    }
}

#[test]
fn every_failure_carries_the_name_of_the_check_that_found_it() {
    let fault = Fault::EveryOperationFails;
    let mut harness = Harness { fault, inner: MemoryStorage::new(), owner: Identity::default() };
    let report = run_all(&mut harness);
    let failed: Vec<&str> = report.failed.iter().map(|failure| failure.check).collect();
    assert_eq!(failed.len(), 25, "{report}");
    let distinct: std::collections::BTreeSet<&str> = failed.iter().copied().collect();
    assert_eq!(distinct.len(), failed.len(), "a name is used twice\n{report}");
}
