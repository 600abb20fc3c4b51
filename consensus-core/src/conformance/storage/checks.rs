//! The checks of a storage that neither crashes nor fails.

use bytes::Bytes;
use futures::executor::block_on;

use super::StorageHarness;
use super::subject::{IDENTITY, Subject, alone, entry, put, recover, run, unit};
use crate::conformance::ConformanceFailure;
use crate::{
    ClientId, ClusterId, Entry, GroupId, Identity, Incarnation, IndexRange, Kind, LogIndex, NodeId,
    ReadError, Reign, RequestId, Sequence, Stamp, StorageError, Write,
};

/// The largest payload and hard state of the suite, in bytes.
const HUGE: usize = 4 << 20;

/// A log that was just made holds nothing, and its first life has a number above 0.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_new_log_is_empty(harness: &mut dyn StorageHarness) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("a_new_log_is_empty", harness)?;
    log.reads_agree(usize::MAX)?;
    log.write_batch(Vec::new())?;
    log.reopen()
}

/// Entries may stand at any position, with holes between them.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn puts_are_sparse(harness: &mut dyn StorageHarness) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("puts_are_sparse", harness)?;
    log.write(put([run(5, 2, 1)]))?;
    log.write(put([run(1, 1, 1), run(9, 3, 2)]))?;
    log.write(put([run(1 << 40, 2, 3)]))?;
    log.write(put([run(3, 1, 3)]))?;
    log.reopen()?;
    log.write(put([run(2, 1, 4)]))?;
    log.reopen()
}

/// A put over an entry replaces it; its neighbours, the tail above it included, stay.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_put_replaces_its_index_and_nothing_else(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("a_put_replaces_its_index_and_nothing_else", harness)?;
    log.write(put([run(1, 10, 1)]))?;
    log.write(put([run(4, 1, 2)]))?;
    log.write(put([run(1, 1, 3)]))?;
    log.write(put([run(10, 1, 4)]))?;
    log.write(put([run(7, 6, 5)]))?;
    log.write(put([run(8, 1, 6), run(8, 1, 7)]))?;
    log.reopen()?;
    log.write(put([run(2, 2, 8)]))?;
    log.reopen()
}

/// A truncation removes every entry at or above its position, and no other.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_truncation_removes_the_tail_and_nothing_else(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("a_truncation_removes_the_tail_and_nothing_else", harness)?;
    log.write(put([run(1, 6, 1), run(9, 3, 1), run(20, 1, 1)]))?;
    for from in [21, 20, 10, 8, 4] {
        log.write(truncate(from))?;
    }
    log.reopen()?;
    log.write(put([run(6, 2, 2)]))?;
    log.reopen()?;
    log.write(truncate(1))?;
    log.reopen()
}

/// A truncation and a put of one unit apply in this order: the new entries stay.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_truncation_and_a_put_fit_into_one_unit(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("a_truncation_and_a_put_fit_into_one_unit", harness)?;
    log.write(put([run(1, 10, 1)]))?;
    log.write(Write { truncate_from: Some(LogIndex(6)), ..put([run(6, 2, 2)]) })?;
    log.write(Write { truncate_from: Some(LogIndex(5)), ..put([run(7, 1, 3)]) })?;
    log.write(Write { truncate_from: Some(LogIndex(6)), ..put([run(2, 1, 4)]) })?;
    log.reopen()
}

/// A unit truncates, then puts, then compacts, then replaces the hard state.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_unit_applies_its_fields_in_order(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("a_unit_applies_its_fields_in_order", harness)?;
    log.write(put([run(1, 8, 1)]))?;
    // The stamp at the bound is the one that this unit itself puts there.
    log.write(Write {
        truncate_from: Some(LogIndex(4)),
        compact_to: Some(LogIndex(5)),
        hard_state: Some(Bytes::from_static(b"one unit")),
        ..put([run(3, 3, 2), run(5, 3, 3)])
    })?;
    log.reopen()?;
    // The bound lies where the truncation left a hole.
    log.write(Write {
        truncate_from: Some(LogIndex(6)),
        compact_to: Some(LogIndex(7)),
        ..put([run(9, 1, 4)])
    })?;
    log.reopen()
}

/// The units of one call apply one after the other.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_batch_applies_its_units_in_order(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("a_batch_applies_its_units_in_order", harness)?;
    log.write_batch(vec![
        put([run(1, 5, 1)]),
        truncate(3),
        put([run(3, 3, 2)]),
        put([run(4, 1, 3)]),
        hard_state(b"first"),
        Write { forced: false, ..hard_state(b"last") },
    ])?;
    log.write_batch(vec![compact(2), put([run(6, 1, 4)]), truncate(5)])?;
    log.reopen()
}

/// Compaction removes every entry at or below its bound; the stamp of the entry at the bound survives,
/// however often the log is opened.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn compaction_keeps_the_stamp_at_its_bound(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("compaction_keeps_the_stamp_at_its_bound", harness)?;
    let voted = Stamp { high: 7, low: 9 };
    log.write(put([run(1, 5, 1), alone(Entry { stamp: voted, ..entry(6, 1) }), run(7, 3, 3)]))?;
    log.write(compact(6))?;
    log.reopen()?;
    log.reopen()?;
    log.write(put([run(10, 2, 4)]))?;
    log.write(compact(9))?;
    log.reopen()
}

/// The bound may lie at a position that holds no entry: the stamp there is zero.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn compaction_may_end_in_a_hole(harness: &mut dyn StorageHarness) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("compaction_may_end_in_a_hole", harness)?;
    log.write(put([run(1, 3, 1), run(6, 3, 2)]))?;
    log.write(compact(4))?;
    log.reopen()?;
    log.write(compact(5))?;
    log.reopen()
}

/// The bound may lie above every entry: the log is empty then, and goes on above the bound.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn compaction_may_pass_the_last_index(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("compaction_may_pass_the_last_index", harness)?;
    log.write(put([run(1, 3, 1)]))?;
    log.write(compact(10))?;
    log.reopen()?;
    log.write(put([run(11, 2, 2), run(14, 1, 2)]))?;
    log.reopen()?;
    log.write(compact(14))?;
    log.reopen()
}

/// Compaction to the bound that stands, or below it, changes nothing.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn the_compaction_bound_never_goes_back(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("the_compaction_bound_never_goes_back", harness)?;
    log.write(put([run(1, 8, 3)]))?;
    for through in [5, 5, 2] {
        log.write(compact(through))?;
    }
    log.reopen()?;
    log.write(compact(4))?;
    log.reopen()
}

/// A read gives every entry of a prefix of its range, within its bound in bytes; at least one entry, if
/// the range holds one.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn reads_are_bounded_prefixes(harness: &mut dyn StorageHarness) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("reads_are_bounded_prefixes", harness)?;
    let fat = Entry { payload: Bytes::from(vec![7; 3000]), ..entry(12, 1) };
    log.write(put([run(2, 6, 1), run(10, 2, 1), alone(fat), run(13, 3, 1)]))?;
    for _ in 0..2 {
        let entry_weight = entry(2, 1).weight();
        for bytes_max in [0, 1, entry_weight, 2 * entry_weight + 1, 3000, usize::MAX] {
            log.reads_agree(bytes_max)?;
            for (from, to) in
                [(1, 20), (2, 8), (3, 5), (8, 10), (8, 11), (10, 13), (11, 14), (16, 40), (5, 5)]
            {
                log.read(IndexRange::new(LogIndex(from), LogIndex(to)), bytes_max)?;
            }
        }
        let everything = IndexRange::new(LogIndex(1), LogIndex(100));
        if log.read(everything, 0)? > LogIndex(3) {
            return log.fail(format!("reading {everything} within 0 bytes passed more than one entry"));
        }
        log.reopen()?;
    }
    Ok(())
}

/// An installed snapshot replaces everything at or below its index and nothing above, and its stamp stands at the bound,
/// whatever stood there before; one at or below the bound changes nothing.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_snapshot_stands_for_what_is_at_or_below_it(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("a_snapshot_stands_for_what_is_at_or_below_it", harness)?;
    log.write(put([run(1, 9, 1)]))?;
    log.write(install(4, 7))?;
    log.reopen()?;
    // Beyond the end of the log, with entries after it and a hard state in the same unit.
    log.write(Write {
        truncate_from: Some(LogIndex(21)),
        hard_state: Some(Bytes::from_static(b"term 9")),
        puts: vec![run(21, 2, 9)],
        ..install(20, 8)
    })?;
    log.reopen()?;
    // The bound of one unit holds for the next ones of its batch.
    log.write_batch(vec![install(19, 3), compact(21), install(21, 3), install(23, 9), compact(23)])?;
    log.write(put([run(24, 2, 9)]))?;
    log.reopen()
}

/// A read that starts at or below the compaction bound is refused with the bound; one above it is not.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn reads_at_or_below_the_compaction_bound_say_so(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("reads_at_or_below_the_compaction_bound_say_so", harness)?;
    log.write(put([run(1, 9, 1)]))?;
    log.write(compact(5))?;
    for _ in 0..2 {
        for from in [1, 4, 5] {
            let range = IndexRange::new(LogIndex(from), LogIndex(8));
            match log.reader().read(range, usize::MAX) {
                Err(ReadError::Compacted(compacted)) if compacted.through == LogIndex(5) => {}
                other => {
                    return log.fail(format!("reading {range} of a log compacted through 5 gave {other:?}"));
                }
            }
        }
        log.read(IndexRange::new(LogIndex(6), LogIndex(8)), usize::MAX)?;
        log.reopen()?;
    }
    Ok(())
}

/// The hard state written last is the one recovered; an empty one is not none.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn the_last_hard_state_survives(harness: &mut dyn StorageHarness) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("the_last_hard_state_survives", harness)?;
    log.write(hard_state(b"term 1"))?;
    log.reopen()?;
    log.write(put([run(1, 3, 1)]))?;
    log.write(truncate(2))?;
    log.reopen()?;
    log.write(hard_state(b"term 2"))?;
    log.write(compact(1))?;
    log.reopen()?;
    log.write(hard_state(b""))?;
    log.reopen()
}

/// Every field of an entry comes back as it was written, at its extremes too.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn every_field_of_an_entry_survives(harness: &mut dyn StorageHarness) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("every_field_of_an_entry_survives", harness)?;
    let kinds =
        [Kind::Command, Kind::Noop, Kind::Membership, Kind::Session, Kind::Private(0), Kind::Private(63)];
    let stamps = [
        Stamp::ZERO,
        Stamp { high: 0, low: 1 },
        Stamp { high: 1, low: 0 },
        Stamp { high: 3, low: u64::MAX },
        Stamp::CHOSEN,
        Stamp { high: 3, low: 5 },
        Stamp { high: 3, low: 6 },
        Stamp { high: 3, low: 7 },
        Stamp { high: 4, low: 8 },
    ];
    let mut entries = Vec::new();
    for (offset, stamp) in (0_u64..).zip(stamps.iter().cycle().take(2 * stamps.len())) {
        let number = if offset % 2 == 0 { offset } else { u64::MAX - offset };
        let kind = kinds[usize::try_from(offset).expect("a few") % kinds.len()];
        entries.push(Entry {
            index: LogIndex(1 + offset),
            stamp: *stamp,
            reign: Reign { number, leader: NodeId(number / 2) },
            kind,
            request: RequestId {
                client: ClientId(number),
                sequence: Sequence(number / 3),
                first_incomplete: Sequence(number / 5),
            },
            payload: Bytes::from((0..=255_u8).cycle().take(300).collect::<Vec<u8>>()),
        });
    }
    log.write(put(entries.into_iter().map(alone)))?;
    log.reopen()?;
    log.write(put([alone(Entry { kind: Kind::Noop, ..entry(u64::MAX - 2, u64::MAX - 1) })]))?;
    log.reopen()
}

/// A payload and a hard state may be empty or megabytes long.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn empty_and_huge_payloads_survive(harness: &mut dyn StorageHarness) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("empty_and_huge_payloads_survive", harness)?;
    let huge = Bytes::from((0..=250_u8).cycle().take(HUGE).collect::<Vec<u8>>());
    let sizes = [0, 1, HUGE, 0, 4095, 4096, 4097];
    let entries =
        (1_u64..).zip(sizes).map(|(index, size)| Entry { payload: huge.slice(..size), ..entry(index, 1) });
    log.write(put(entries.map(alone)))?;
    log.write(Write { hard_state: Some(huge.slice(1..)), ..unit() })?;
    log.reopen()?;
    log.write(put([alone(Entry { payload: Bytes::new(), ..entry(3, 2) })]))?;
    log.reopen()
}

/// Every recovery starts a life that is one higher than the last, whether or not that one wrote.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn every_life_is_one_higher(harness: &mut dyn StorageHarness) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("every_life_is_one_higher", harness)?;
    if log.incarnation != Incarnation(1) {
        return log.fail(format!("the first life is {}", log.incarnation));
    }
    log.reopen()?;
    log.reopen()?;
    log.write(hard_state(b"written"))?;
    log.reopen()?;
    log.reopen()
}

/// A log opens for the identity it was made for, and refuses every other without harm to it.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_foreign_identity_is_refused(harness: &mut dyn StorageHarness) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("a_foreign_identity_is_refused", harness)?;
    log.write(Write { hard_state: Some(Bytes::from_static(b"mine")), ..put([run(1, 2, 1)]) })?;
    log.refuses(&Identity { cluster: ClusterId(IDENTITY.cluster.0 ^ 1 << 127), ..IDENTITY })?;
    log.refuses(&Identity { node: NodeId(2), ..IDENTITY })?;
    log.refuses(&Identity { group: GroupId(1), ..IDENTITY })?;
    log.reopen()
}

/// Nothing can be written before the log was recovered: the writer would not know what is there.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_write_before_recovery_is_refused(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    const CHECK: &str = "a_write_before_recovery_is_refused";
    let mut storage = harness.create(&IDENTITY);
    match block_on(storage.write(&[hard_state(b"too early")])) {
        Err(StorageError::NotRecovered) => {}
        other => return Err(ConformanceFailure::new(CHECK, format!("the write was answered {other:?}"))),
    }
    let recovered = recover(CHECK, &mut *storage, &IDENTITY)?;
    if let Some(state) = recovered.hard_state {
        return Err(ConformanceFailure::new(CHECK, format!("the refused write left {state:?}")));
    }
    Ok(())
}

/// A log that a newer life has opened refuses the writes of the older one.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_superseded_life_is_refused(harness: &mut dyn StorageHarness) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("a_superseded_life_is_refused", harness)?;
    log.write(Write { hard_state: Some(Bytes::from_static(b"old life")), ..put([run(1, 2, 1)]) })?;
    log.is_superseded()
}

fn truncate(from: u64) -> Write {
    Write { truncate_from: Some(LogIndex(from)), ..unit() }
}

fn install(through: u64, stamp: u64) -> Write {
    Write { install: Some((LogIndex(through), Stamp { high: stamp, low: 0 })), ..unit() }
}

fn compact(through: u64) -> Write {
    Write { compact_to: Some(LogIndex(through)), ..unit() }
}

fn hard_state(state: &'static [u8]) -> Write {
    Write { hard_state: Some(Bytes::from_static(state)), ..unit() }
}
