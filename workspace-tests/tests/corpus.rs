//! Every input of the fuzz corpus, without a fuzzer.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "it is a crate of its own for the fuzzer")]
mod targets;

/// Runs a target over its corpus, each input also cut short and with a bit changed.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        let input = fs::read(&path).expect("a readable file");
        run(&input);
        for at in (0..input.len()).step_by(1 + input.len() / 16) {
            run(&input[..at]);
            let mut changed = input.clone();
            changed[at] ^= 1 << (at % 8);
            run(&changed);
        }
        inputs += 1;
    }
    assert!(inputs >= 10, "{} holds {inputs} inputs", folder.display());
}

#[test]
fn frames_of_the_corpus_keep_their_rules() {
    replay("frame", targets::frame);
}

#[test]
fn greetings_of_the_corpus_keep_their_rules() {
    replay("handshake", targets::handshake);
}

#[test]
fn envelopes_of_the_corpus_keep_their_rules() {
    replay("message", targets::message);
}

#[test]
fn logs_of_the_corpus_open_with_what_was_there_or_are_refused() {
    replay("wal", targets::wal);
}
