//! How fast a history of the size of a `compare` run is written, read and checked.
//!
//! `cargo run --release -p synod-checker --example check_speed -- [OPERATIONS] [KEYS] [CLIENTS] [FILE]`
//!
//! Carries out half puts, half gets of 64 closed-loop clients over 10,000 keys, one operation in a thousand of unknown
//! outcome, with values of 128 bytes in the file. With FILE the history is left there.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::time::Instant;

use synod_checker::{
    Action, Algorithm, CheckOptions, ClientId, End, History, HistoryWriter, KeyId, Names, Nanos, Operation,
    Overlap, ReadOptions, Sequence, ValueId, Verdict, check, read_history,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (operations, keys, clients) = (number(5_000_000)?, number(10_000)?, number(64)?);

    let executed = execute(operations as usize, keys, clients as usize);
    let history = timed("History::new", executed.len(), || History::new(executed, Overlap::Refuse))?;
    for (name, algorithm) in [("check, zones", Algorithm::Zones), ("check, search", Algorithm::Search)] {
        let mut options = CheckOptions::default();
        options.algorithm = algorithm;
        let report = timed(name, history.len(), || check(&history, &options));
        match report.verdict {
            Verdict::Linearizable => {}
            // The search has a hard time where many operations on one key are concurrent.
            Verdict::Unknown { why, .. } => println!("    unknown: out of {why:?}"),
            Verdict::NotLinearizable(violation) => panic!("{}", violation.explain(&Long)),
        }
    }

    let written = |output: &mut dyn io::Write| -> io::Result<()> {
        let mut writer = HistoryWriter::new(output);
        writer.write_all(&history, &Long)?;
        writer.finish().map(|_| ())
    };
    if let Some(path) = arguments.next() {
        timed("write", history.len(), || written(&mut BufWriter::new(File::create(&path)?)))?;
        let file = BufReader::new(File::open(&path)?);
        timed("read", history.len(), || read_history(file, &ReadOptions::default()))?;
    } else {
        let mut file = Vec::new();
        timed("write", history.len(), || written(&mut file))?;
        timed("read", history.len(), || read_history(&file[..], &ReadOptions::default()))?;
    }
    Ok(())
}

/// Values as long as those of a `compare` run.
struct Long;

impl Names for Long {
    fn key(&self, key: KeyId) -> Cow<'_, str> {
        format!("key-{:08}", key.0).into()
    }

    fn value(&self, value: ValueId) -> Cow<'_, str> {
        format!("{:0128}", value.0).into()
    }
}

/// A linearizable history: every operation takes effect at one moment of its interval.
fn execute(count: usize, keys: u64, clients: usize) -> Vec<Operation> {
    let mut random = 1u64;
    let mut below = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let mut clocks = vec![0u64; clients];
    let mut planned = Vec::with_capacity(count);
    for i in 0..count {
        let clock = &mut clocks[i % clients];
        let call = *clock + below(1_000);
        let effect = call + 20_000 + below(100_000);
        let end = effect + 20_000 + below(100_000);
        *clock = end;
        planned.push((effect, i, call, end, below(keys) as u32, below(2) == 0, below(1_000)));
    }
    planned.sort_unstable();
    let mut registers = vec![None; keys as usize];
    let mut operations = Vec::with_capacity(count);
    for (_, i, call, end, key, put, luck) in planned {
        let value = ValueId(i as u64);
        let register = &mut registers[key as usize];
        if put && luck != 1 {
            *register = Some(value);
        }
        let action = if put { Action::Put(value) } else { Action::Get(*register) };
        let end = if luck < 2 { End::Unknown(None) } else { End::Ok(Nanos(end)) };
        let (client, seq) = (ClientId((i % clients) as u32), Sequence(i as u64));
        operations.push(Operation::new(client, seq, KeyId(key), action, Nanos(call), end));
    }
    operations
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn timed<T>(what: &str, operations: usize, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    let seconds = started.elapsed().as_secs_f64();
    println!("{what:14} {seconds:7.3} s {:8.2} million operations/s", operations as f64 / seconds / 1e6);
    result
}
