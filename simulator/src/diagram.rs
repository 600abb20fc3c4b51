//! A run as a space-time diagram.

use crate::run::Run;
use crate::trace::Trace;

/// The page.
#[must_use]
pub fn page(run: &Run, trace: &Trace) -> String {
    let _ = (run, trace);
    String::new()
}
