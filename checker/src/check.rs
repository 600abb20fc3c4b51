//! Is a history linearizable?

use std::fmt;

use crate::History;
use crate::history::{Action, KeyId, Nanos, Operation, Outcome, ValueId};
use crate::model::Register;
use crate::names::Names;
use crate::search::{Budget, Exhausted, Found, Interval, search};
use crate::zones::{Zoned, Zones};

/// Checks every key of a history as a register that is absent at first.
///
/// A history of registers is linearizable exactly if each key's part is, so keys are checked one by one, and the
/// first that is not linearizable (in order of its number) decides. Takes `n log n` time in the operations of a key
/// where values are unique; a key on which two puts write one value falls to the search, within the budget. Memory
/// beside the history: 4 bytes an operation, and some 60 bytes for each value of the largest key.
pub fn check(history: &History, options: &CheckOptions) -> Report {
    let keys = history.by_key();
    let mut checker = Checker {
        operations: history.operations(),
        options,
        zones: Zones::default(),
        steps_left: options.budget.steps,
    };
    let mut report = Report { verdict: Verdict::Linearizable, operations: history.len(), keys: 0, steps: 0 };
    for positions in keys.groups() {
        report.keys += 1;
        let verdict = checker.key(positions);
        match verdict {
            Verdict::Linearizable => {}
            // A later key may still be wrong for sure, and that outweighs a doubt.
            Verdict::Unknown { .. } => {
                if report.verdict == Verdict::Linearizable {
                    report.verdict = verdict;
                }
            }
            Verdict::NotLinearizable(_) => {
                report.verdict = verdict;
                break;
            }
        }
    }
    report.steps = options.budget.steps - checker.steps_left;
    report
}

/// How a history is checked.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CheckOptions {
    /// What the check may use.
    pub budget: Budget,
    /// How each key is decided.
    pub algorithm: Algorithm,
}

/// How a key is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// By zones where every written value is unique, otherwise by the search.
    #[default]
    Zones,
    /// By the search alone: the reference, slower where many operations are concurrent.
    Search,
}

/// What came out of a [`check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The answer.
    pub verdict: Verdict,
    /// Operations in the history.
    pub operations: usize,
    /// Keys looked at.
    pub keys: usize,
    /// Steps spent of the budget.
    pub steps: u64,
}

/// Whether a history is linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is.
    Linearizable,
    /// It is not, and here is why.
    NotLinearizable(Box<Violation>),
    /// The budget ran out; never to be taken for [`Verdict::Linearizable`].
    Unknown {
        /// What ran out.
        why: Exhausted,
        /// The key that was being checked.
        key: KeyId,
    },
}

/// A key without a linearization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: KeyId,
    /// What cannot be.
    pub reason: Reason,
    /// The operations that contradict each other, in order of their calls. Found by zones they are few, and by
    /// themselves not linearizable; found by the search they are the last that fitted and the one that did not.
    pub operations: Vec<Operation>,
}

/// What cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// A get returned a value that no put of the key writes.
    NeverWritten {
        /// The get.
        get: Operation,
    },
    /// A get returned the value of a put that surely had no effect.
    FailedPut {
        /// The get.
        get: Operation,
        /// The put.
        put: Operation,
    },
    /// A get had returned a value before its put was called.
    BeforePut {
        /// The get.
        get: Operation,
        /// The put.
        put: Operation,
    },
    /// A get found the key absent although a value had been there for sure.
    AbsentAfterPut {
        /// The get.
        get: Operation,
        /// The put of that value.
        put: Operation,
        /// The first operation, that put or a get, that showed it.
        seen: Operation,
    },
    /// Two values that would each have to be written before the other.
    Contradiction {
        /// Their puts.
        puts: [Operation; 2],
        /// One of the first value that returned before one of the second was called.
        first_then_second: [Operation; 2],
        /// One of the second value that returned before one of the first was called.
        second_then_first: [Operation; 2],
    },
    /// The search found no operation that could come next.
    Stuck {
        /// The operation that had to come next.
        blocked: Operation,
        /// How many operations could be ordered.
        linearized: usize,
    },
}

impl Violation {
    /// The violation as text of several lines: what, on which key, by which operations.
    pub fn explain<'a>(&'a self, names: &'a impl Names) -> impl fmt::Display + 'a {
        Explanation { violation: self, names }
    }

    fn new(reason: Reason, mut operations: Vec<Operation>) -> Violation {
        operations.sort_by_key(|operation| (operation.call(), operation.client(), operation.seq()));
        operations.dedup();
        Violation { key: operations[0].key(), reason, operations }
    }
}

struct Checker<'a> {
    operations: &'a [Operation],
    options: &'a CheckOptions,
    zones: Zones,
    steps_left: u64,
}

impl Checker<'_> {
    fn key(&mut self, positions: &[u32]) -> Verdict {
        let key = self.operations[positions[0] as usize].key();
        if self.options.algorithm == Algorithm::Zones {
            let Some(steps_left) = self.steps_left.checked_sub(positions.len() as u64) else {
                self.steps_left = 0;
                return Verdict::Unknown { why: Exhausted::Steps, key };
            };
            self.steps_left = steps_left;
            match self.zones.test(self.operations, positions) {
                Zoned::Linearizable => return Verdict::Linearizable,
                Zoned::NotLinearizable(reason) => {
                    let operations = reason.operations();
                    return Verdict::NotLinearizable(Box::new(Violation::new(*reason, operations)));
                }
                Zoned::NotUnique => {}
            }
        }
        self.search(key, positions)
    }

    fn search(&mut self, key: KeyId, positions: &[u32]) -> Verdict {
        let operations: Vec<Operation> =
            positions.iter().map(|&p| self.operations[p as usize]).filter(is_relevant).collect();
        let intervals: Vec<Interval<Action>> = operations.iter().map(register_interval).collect();
        match search(&Register, &intervals, &mut self.steps_left, self.options.budget.memory_bytes) {
            Found::Linearization(_) => Verdict::Linearizable,
            Found::Unknown(why) => Verdict::Unknown { why, key },
            Found::Nothing(dead_end) => {
                let blocked = operations[dead_end.blocked];
                let around =
                    dead_end.last.iter().map(|&position| operations[position]).chain([blocked]).collect();
                let reason = Reason::Stuck { blocked, linearized: dead_end.linearized };
                Verdict::NotLinearizable(Box::new(Violation::new(reason, around)))
            }
        }
    }
}

/// True for what a linearization can hold: no failed operation, and no get without an answer.
fn is_relevant(operation: &Operation) -> bool {
    match operation.action() {
        Action::Put(_) => operation.outcome() != Outcome::Failed,
        Action::Get(_) => operation.outcome() == Outcome::Ok,
    }
}

fn register_interval(operation: &Operation) -> Interval<Action> {
    Interval { step: operation.action(), call: operation.call(), end: operation.effect_end() }
}

impl Reason {
    fn operations(&self) -> Vec<Operation> {
        match *self {
            Reason::NeverWritten { get } => vec![get],
            Reason::FailedPut { get, put } | Reason::BeforePut { get, put } => vec![get, put],
            Reason::AbsentAfterPut { get, put, seen } => vec![get, put, seen],
            Reason::Contradiction { puts, first_then_second, second_then_first } => {
                [puts, first_then_second, second_then_first].concat()
            }
            Reason::Stuck { blocked, .. } => vec![blocked],
        }
    }
}

struct Explanation<'a, N> {
    violation: &'a Violation,
    names: &'a N,
}

impl<N: Names> fmt::Display for Explanation<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = quoted(&self.names.key(self.violation.key));
        write!(f, "key {key}: ")?;
        self.headline(f)?;
        for (position, operation) in self.violation.operations.iter().enumerate() {
            write!(f, "\n  ({}) {}", position + 1, self.line(operation))?;
        }
        if let Reason::Contradiction { first_then_second, second_then_first, .. } = self.violation.reason {
            for [earlier, later] in [first_then_second, second_then_first] {
                let (a, b) = (self.value(&earlier), self.value(&later));
                let (ended, called) = (earlier.effect_end().unwrap_or_default().0, later.call().0);
                let (x, y) = (self.number(&earlier), self.number(&later));
                write!(
                    f,
                    "\n  ({x}) returned at {ended} and ({y}) was called at {called}: {a} precedes {b}"
                )?;
            }
        }
        Ok(())
    }
}

impl<N: Names> Explanation<'_, N> {
    fn headline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.violation.reason {
            Reason::NeverWritten { get } => {
                write!(f, "a get returned {}, which nobody wrote to this key", self.value(&get))
            }
            Reason::FailedPut { get, .. } => {
                write!(f, "a get returned {}, whose put surely had no effect", self.value(&get))
            }
            Reason::BeforePut { get, .. } => {
                write!(f, "a get had returned {} before its put was called", self.value(&get))
            }
            Reason::AbsentAfterPut { seen, .. } => {
                write!(f, "a get found nothing although {} had been there", self.value(&seen))
            }
            Reason::Contradiction { puts: [first, second], .. } => {
                let (first, second) = (self.value(&first), self.value(&second));
                write!(f, "{first} would have to be written before {second}, and {second} before {first}")
            }
            Reason::Stuck { blocked, linearized } => {
                write!(f, "no order exists; after {linearized} operations none allows {}", self.act(&blocked))
            }
        }
    }

    /// The number of an operation in the list above, from 1.
    fn number(&self, operation: &Operation) -> usize {
        self.violation
            .operations
            .iter()
            .position(|listed| listed == operation)
            .map_or(0, |position| position + 1)
    }

    fn line(&self, operation: &Operation) -> String {
        let end = operation.returned().map_or_else(|| "open".to_owned(), |Nanos(end)| end.to_string());
        format!(
            "[{}, {end}] client {} seq {}: {} {}",
            operation.call().0,
            operation.client().0,
            operation.seq().0,
            self.act(operation),
            operation.outcome()
        )
    }

    fn act(&self, operation: &Operation) -> String {
        match operation.action() {
            Action::Put(value) => format!("put {}", self.name(value)),
            Action::Get(Some(value)) => format!("get -> {}", self.name(value)),
            Action::Get(None) => "get -> nothing".to_owned(),
        }
    }

    fn value(&self, operation: &Operation) -> String {
        match operation.action() {
            Action::Put(value) | Action::Get(Some(value)) => self.name(value),
            Action::Get(None) => "nothing".to_owned(),
        }
    }

    fn name(&self, value: ValueId) -> String {
        quoted(&self.names.value(value))
    }
}

/// Long names are cut in the middle: the beginning and the end tell them apart.
fn quoted(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= NAME_CHARS_MAX {
        return format!("{name:?}");
    }
    let side = |part: &[char]| part.iter().collect::<String>();
    let (start, end) = (side(&chars[..NAME_CHARS_MAX / 2]), side(&chars[chars.len() - NAME_CHARS_MAX / 2..]));
    format!("{:?}", format!("{start}...{end}"))
}

const NAME_CHARS_MAX: usize = 40;
