//! The history format: JSON lines, one object per operation.

use std::borrow::Cow;
use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::history::{Action, ClientId, End, Nanos, Operation, Outcome, Overlap, Sequence};
use crate::names::{Interner, Names};
use crate::{History, HistoryError};

/// A history read from a file, with the strings of its keys and values.
#[derive(Clone, Debug, Default)]
pub struct NamedHistory {
    /// Operation `i` stood on line `i + 1`.
    pub history: History,
    /// The strings, each stored once.
    pub names: Interner,
}

/// How a file is read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The longest line accepted, in bytes without its end: 16 MiB unless told.
    pub line_bytes_max: usize,
    /// Whether the operations of one client may overlap: no, unless told.
    pub overlap: Overlap,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions { line_bytes_max: 16 << 20, overlap: Overlap::Refuse }
    }
}

/// Reads a whole history.
///
/// Memory: 48 bytes an operation, and every different key and value once (its bytes and about 32 more).
///
/// # Errors
///
/// The first line that breaks the format, by number, or an error of the input.
///
/// # Examples
///
/// ```
/// use synod_checker::{read_history, ReadOptions};
///
/// let file = r#"{"client":1,"seq":0,"op":"put","key":"x","value":"a","call_ns":10,"return_ns":20,"outcome":"ok"}"#;
/// let named = read_history(file.as_bytes(), &ReadOptions::default())?;
/// assert_eq!(named.history.len(), 1);
///
/// let error = read_history(file.replace("put", "cas").as_bytes(), &ReadOptions::default()).unwrap_err();
/// assert_eq!(error.to_string(), r#"line 1: unknown op "cas", expected put or get"#);
/// # Ok::<(), synod_checker::ReadError>(())
/// ```
pub fn read_history(mut input: impl BufRead, options: &ReadOptions) -> Result<NamedHistory, ReadError> {
    let mut names = Interner::default();
    let mut operations = Vec::new();
    let mut written: Vec<u32> = Vec::new(); // by value, the line that writes it; 0 is none
    let mut buffer = Vec::new();
    loop {
        let line = operations.len() as u64 + 1;
        let at = |error| ReadError::Line { line, error };
        if operations.len() == History::OPERATIONS_MAX {
            return Err(ReadError::TooManyOperations);
        }
        if !next_line(&mut input, &mut buffer, options.line_bytes_max, line)? {
            break;
        }
        let text = std::str::from_utf8(&buffer).map_err(|_| at(LineError::NotUtf8))?;
        let raw: Raw<'_> = serde_json::from_str(text).map_err(|error| at(LineError::json(&error)))?;
        let operation = raw.operation(&mut names).map_err(at)?;
        if let Action::Put(value) = operation.action() {
            let value = value.0 as usize;
            if written.len() <= value {
                written.resize(value + 1, 0);
            }
            if written[value] != 0 {
                return Err(at(LineError::ValueWrittenTwice { earlier_line: u64::from(written[value]) }));
            }
            written[value] = line as u32;
        }
        operations.push(operation);
    }
    let history = History::new(operations, options.overlap).map_err(ReadError::of_history)?;
    Ok(NamedHistory { history, names })
}

/// Writes a history line by line, as it happens or afterwards.
///
/// Wrap a file in a [`BufWriter`](io::BufWriter): every operation is one small write.
///
/// # Examples
///
/// ```
/// use synod_checker::{
///     Action, ClientId, End, HistoryWriter, KeyId, Nanos, Numbered, Operation, Sequence, ValueId,
/// };
///
/// let put = Action::Put(ValueId(7));
/// let operation = Operation::new(ClientId(1), Sequence(0), KeyId(3), put, Nanos(10), End::Unknown(None));
/// let mut writer = HistoryWriter::new(Vec::new());
/// writer.write(&operation, &Numbered)?;
/// assert_eq!(
///     String::from_utf8(writer.finish()?).unwrap(),
///     r#"{"client":1,"seq":0,"op":"put","key":"k3","value":"v7","call_ns":10,"return_ns":null,"outcome":"unknown"}"#
///         .to_owned()
///         + "\n"
/// );
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct HistoryWriter<W: Write> {
    output: W,
    line: Vec<u8>,
}

impl<W: Write> HistoryWriter<W> {
    /// A writer onto `output`, which should be buffered.
    pub fn new(output: W) -> HistoryWriter<W> {
        HistoryWriter { output, line: Vec::new() }
    }

    /// Writes one line.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn write(&mut self, operation: &Operation, names: &impl Names) -> io::Result<()> {
        let (op, value) = match operation.action() {
            Action::Put(value) => ("put", Some(value)),
            Action::Get(value) => ("get", value),
        };
        let record = Written {
            client: operation.client().0,
            seq: operation.seq().0,
            op,
            key: names.key(operation.key()),
            value: value.map(|value| names.value(value)),
            call_ns: operation.call().0,
            return_ns: operation.returned().map(|at| at.0),
            outcome: match operation.outcome() {
                Outcome::Ok => "ok",
                Outcome::Failed => "failed",
                Outcome::Unknown => "unknown",
            },
        };
        self.line.clear();
        serde_json::to_writer(&mut self.line, &record)?;
        self.line.push(b'\n');
        self.output.write_all(&self.line)
    }

    /// Writes every operation of a history, in its order.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn write_all(&mut self, history: &History, names: &impl Names) -> io::Result<()> {
        history.operations().iter().try_for_each(|operation| self.write(operation, names))
    }

    /// Flushes, and gives the output back.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }
}

/// Why a file is not a history.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The input failed.
    #[error("line {line}: reading failed")]
    Io {
        /// The line that was being read, counted from 1.
        line: u64,
        /// What happened.
        source: io::Error,
    },
    /// A line breaks the format.
    #[error("line {line}: {error}")]
    Line {
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        error: LineError,
    },
    /// More than [`History::OPERATIONS_MAX`] lines.
    #[error("more than {} operations", History::OPERATIONS_MAX)]
    TooManyOperations,
}

impl ReadError {
    fn of_history(error: HistoryError) -> ReadError {
        let line = |position: usize| position as u64 + 1;
        let (position, error) = match error {
            HistoryError::ReturnBeforeCall { position } => (position, LineError::ReturnBeforeCall),
            HistoryError::DuplicateSequence { position, earlier } => {
                (position, LineError::DuplicateSequence { earlier_line: line(earlier) })
            }
            HistoryError::ClientOverlap { position, earlier } => {
                (position, LineError::ClientOverlap { earlier_line: line(earlier) })
            }
            HistoryError::TooManyOperations => return ReadError::TooManyOperations,
        };
        ReadError::Line { line: line(position), error }
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LineError {
    /// Longer than [`ReadOptions::line_bytes_max`].
    #[error("longer than {bytes_max} bytes")]
    TooLong {
        /// The bound.
        bytes_max: usize,
    },
    /// Bytes that are not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// Nothing on the line.
    #[error("empty line")]
    Empty,
    /// No JSON object, or a field of the wrong type.
    #[error("{message}, at column {column}")]
    Json {
        /// What the JSON reader says.
        message: String,
        /// Where on the line, counted from 1.
        column: usize,
    },
    /// A field is not there; one without a value is written as `null`.
    #[error("missing field `{field}`")]
    MissingField {
        /// Its name.
        field: &'static str,
    },
    /// A field is `null` that must not be.
    #[error("field `{field}` is null")]
    NullField {
        /// Its name.
        field: &'static str,
    },
    /// Neither `put` nor `get`.
    #[error("unknown op {op:?}, expected put or get")]
    UnknownOp {
        /// What stood there.
        op: String,
    },
    /// Neither `ok`, `failed` nor `unknown`.
    #[error("unknown outcome {outcome:?}, expected ok, failed or unknown")]
    UnknownOutcome {
        /// What stood there.
        outcome: String,
    },
    /// A get that did not end well with a value: nothing was returned.
    #[error("a get with outcome {outcome} has no value")]
    UnexpectedValue {
        /// Its outcome.
        outcome: Outcome,
    },
    /// `return_ns` before `call_ns`.
    #[error("returns before its call")]
    ReturnBeforeCall,
    /// The client numbered two operations alike.
    #[error("same client and seq as line {earlier_line}")]
    DuplicateSequence {
        /// The line that has the number.
        earlier_line: u64,
    },
    /// The client called again before an operation known to have ended did so.
    #[error("called before line {earlier_line} of the same client returned")]
    ClientOverlap {
        /// The operation that had not ended.
        earlier_line: u64,
    },
    /// Two puts of one value.
    #[error("writes the value that line {earlier_line} writes: every written value is unique")]
    ValueWrittenTwice {
        /// The first put.
        earlier_line: u64,
    },
}

impl LineError {
    fn json(error: &serde_json::Error) -> LineError {
        let message = error.to_string();
        // The position is that within one line: keep the column, drop the line, which is always 1.
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(text, _)| text).to_owned();
        LineError::Json { message, column: error.column() }
    }
}

/// Reads a line without its end into `buffer`; false at the end of the input.
fn next_line(
    input: &mut impl BufRead,
    buffer: &mut Vec<u8>,
    bytes_max: usize,
    line: u64,
) -> Result<bool, ReadError> {
    buffer.clear();
    let bound = bytes_max as u64 + 2; // room for "\r\n"
    let read =
        input.take(bound).read_until(b'\n', buffer).map_err(|source| ReadError::Io { line, source })?;
    if read == 0 {
        return Ok(false);
    }
    if buffer.last() == Some(&b'\n') {
        buffer.pop();
        if buffer.last() == Some(&b'\r') {
            buffer.pop();
        }
    }
    let refused = |error| Err(ReadError::Line { line, error });
    if buffer.len() > bytes_max {
        return refused(LineError::TooLong { bytes_max });
    }
    if buffer.iter().all(u8::is_ascii_whitespace) {
        return refused(LineError::Empty);
    }
    Ok(true)
}

/// A line as it stands; the outer option is whether the field is there, the inner one whether it is null.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(default, deserialize_with = "present")]
    client: Option<Option<u32>>,
    #[serde(default, deserialize_with = "present")]
    seq: Option<Option<u64>>,
    #[serde(borrow, default, deserialize_with = "present")]
    op: Option<Option<Text<'a>>>,
    #[serde(borrow, default, deserialize_with = "present")]
    key: Option<Option<Text<'a>>>,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<Option<Text<'a>>>,
    #[serde(default, deserialize_with = "present")]
    call_ns: Option<Option<u64>>,
    #[serde(default, deserialize_with = "present")]
    return_ns: Option<Option<u64>>,
    #[serde(borrow, default, deserialize_with = "present")]
    outcome: Option<Option<Text<'a>>>,
}

/// A string, borrowed from the line unless it holds escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(field: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(field).map(Some)
}

impl Raw<'_> {
    fn operation(self, names: &mut Interner) -> Result<Operation, LineError> {
        let client = ClientId(value_of("client", self.client)?);
        let seq = Sequence(value_of("seq", self.seq)?);
        let op = value_of("op", self.op)?;
        let key = value_of("key", self.key)?;
        let value = there("value", self.value)?;
        let call = Nanos(value_of("call_ns", self.call_ns)?);
        let returned = there("return_ns", self.return_ns)?.map(Nanos);
        let outcome = match &*value_of("outcome", self.outcome)?.0 {
            "ok" => Outcome::Ok,
            "failed" => Outcome::Failed,
            "unknown" => Outcome::Unknown,
            other => return Err(LineError::UnknownOutcome { outcome: other.to_owned() }),
        };
        let key = names.key_id(&key.0);
        let action = match (&*op.0, value) {
            ("put", None) => return Err(LineError::NullField { field: "value" }),
            ("put", Some(value)) => Action::Put(names.value_id(&value.0)),
            ("get", Some(_)) if outcome != Outcome::Ok => return Err(LineError::UnexpectedValue { outcome }),
            ("get", value) => Action::Get(value.map(|value| names.value_id(&value.0))),
            (other, _) => return Err(LineError::UnknownOp { op: other.to_owned() }),
        };
        let end = match (outcome, returned) {
            (Outcome::Unknown, at) => End::Unknown(at),
            (_, None) => return Err(LineError::NullField { field: "return_ns" }),
            (Outcome::Ok, Some(at)) => End::Ok(at),
            (Outcome::Failed, Some(at)) => End::Failed(at),
        };
        if returned.is_some_and(|returned| returned < call) {
            return Err(LineError::ReturnBeforeCall);
        }
        Ok(Operation::new(client, seq, key, action, call, end))
    }
}

fn there<T>(field: &'static str, found: Option<Option<T>>) -> Result<Option<T>, LineError> {
    found.ok_or(LineError::MissingField { field })
}

fn value_of<T>(field: &'static str, found: Option<Option<T>>) -> Result<T, LineError> {
    there(field, found)?.ok_or(LineError::NullField { field })
}

/// A line as it is written: the fields in the order of the format.
#[derive(Serialize)]
struct Written<'a> {
    client: u32,
    seq: u64,
    op: &'static str,
    key: Cow<'a, str>,
    value: Option<Cow<'a, str>>,
    call_ns: u64,
    return_ns: Option<u64>,
    outcome: &'static str,
}
