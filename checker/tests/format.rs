//! Every way in which a file can be no history, with the line and the reason.

use synod_checker::{
    Action, End, LineError, Nanos, Outcome, Overlap, ReadError, ReadOptions, Tally, read_history,
};

const LINE: &str =
    r#"{"client":1,"seq":0,"op":"put","key":"x","value":"a","call_ns":10,"return_ns":20,"outcome":"ok"}"#;

fn error(text: &str) -> (u64, LineError) {
    match read_history(text.as_bytes(), &ReadOptions::default()) {
        Err(ReadError::Line { line, error }) => (line, error),
        other => panic!("{other:?}"),
    }
}

/// The error of a second line made from the first: another seq, value and time, and then this replacement.
fn second(from: &str, to: &str) -> LineError {
    let next = LINE.replace(r#""seq":0"#, r#""seq":1"#).replace(r#""a""#, r#""b""#);
    let next = next.replace("10", "30").replace("20", "40");
    assert!(next.contains(from), "{next} has no {from}");
    let (line, error) = error(&format!("{LINE}\n{}\n", next.replacen(from, to, 1)));
    assert_eq!(line, 2);
    error
}

#[test]
fn a_missing_field_is_named_and_differs_from_null() {
    assert_eq!(second(r#""client":1,"#, ""), LineError::MissingField { field: "client" });
    assert_eq!(second(r#""seq":1,"#, ""), LineError::MissingField { field: "seq" });
    assert_eq!(second(r#""op":"put","#, ""), LineError::MissingField { field: "op" });
    assert_eq!(second(r#""key":"x","#, ""), LineError::MissingField { field: "key" });
    assert_eq!(second(r#""value":"b","#, ""), LineError::MissingField { field: "value" });
    assert_eq!(second(r#""call_ns":30,"#, ""), LineError::MissingField { field: "call_ns" });
    assert_eq!(second(r#""return_ns":40,"#, ""), LineError::MissingField { field: "return_ns" });
    assert_eq!(second(r#","outcome":"ok""#, ""), LineError::MissingField { field: "outcome" });
    assert_eq!(second(r#""b""#, "null"), LineError::NullField { field: "value" });
    assert_eq!(second("40", "null"), LineError::NullField { field: "return_ns" });
    assert_eq!(second("30", "null"), LineError::NullField { field: "call_ns" });
}

#[test]
fn unknown_words_are_quoted() {
    assert_eq!(second("put", "cas"), LineError::UnknownOp { op: "cas".to_owned() });
    assert_eq!(second(r#""ok""#, r#""fine""#), LineError::UnknownOutcome { outcome: "fine".to_owned() });
}

#[test]
fn what_is_no_json_of_the_right_types_is_refused_with_its_column() {
    for (from, to) in
        [("{", "["), ("30", "-30"), ("30", "3.5"), (r#""b""#, "7"), ("}", ""), ("}", "}}"), ("30", "1e99")]
    {
        let LineError::Json { message, column } = second(from, to) else { panic!("{from} {to}") };
        assert!(!message.contains("line"), "{message}");
        assert!(column > 0 || from == "{");
    }
    let twice = second(r#""seq":1"#, r#""seq":1,"seq":1"#);
    assert!(
        matches!(&twice, LineError::Json { message, .. } if message.contains("duplicate field")),
        "{twice}"
    );
    assert_eq!(error("\n"), (1, LineError::Empty));
    let bytes = [LINE.as_bytes(), b"\n\xff\n"].concat();
    let refused = read_history(&bytes[..], &ReadOptions::default()).unwrap_err();
    assert_eq!(refused.to_string(), "line 2: not UTF-8");
}

#[test]
fn impossible_times_are_refused() {
    assert_eq!(second("40", "29"), LineError::ReturnBeforeCall);
    assert_eq!(second("30", "19"), LineError::ClientOverlap { earlier_line: 1 });
    let text = format!(
        "{LINE}\n{}\n",
        LINE.replace(r#":0,"#, ":1,").replace(r#""a""#, r#""b""#).replace("10", "15")
    );
    let mut options = ReadOptions::default();
    options.overlap = Overlap::Allow;
    assert_eq!(read_history(text.as_bytes(), &options).unwrap().history.len(), 2);
}

#[test]
fn numbers_and_values_are_used_once() {
    assert_eq!(second(r#""seq":1"#, r#""seq":0"#), LineError::DuplicateSequence { earlier_line: 1 });
    assert_eq!(second(r#""b""#, r#""a""#), LineError::ValueWrittenTwice { earlier_line: 1 });
    let elsewhere = LINE.replace(r#""x""#, r#""y""#).replace(r#""client":1"#, r#""client":2"#);
    assert_eq!(error(&format!("{LINE}\n{elsewhere}")), (2, LineError::ValueWrittenTwice { earlier_line: 1 }));
}

#[test]
fn only_a_successful_get_has_a_value() {
    let get = LINE.replace("put", "get");
    assert!(read_history(get.as_bytes(), &ReadOptions::default()).is_ok());
    for (word, outcome) in [("failed", Outcome::Failed), ("unknown", Outcome::Unknown)] {
        let refused = error(&get.replace(r#""ok""#, &format!("{word:?}")));
        assert_eq!(refused, (1, LineError::UnexpectedValue { outcome }));
    }
}

#[test]
fn a_long_line_is_refused_before_it_is_held_in_memory() {
    let mut options = ReadOptions::default();
    options.line_bytes_max = LINE.len();
    for end in ["", "\n", "\r\n"] {
        assert!(read_history(format!("{LINE}{end}").as_bytes(), &options).is_ok());
    }
    options.line_bytes_max -= 1;
    let refused = read_history(format!("{LINE}\n").as_bytes(), &options).unwrap_err();
    assert_eq!(refused.to_string(), format!("line 1: longer than {} bytes", LINE.len() - 1));
    // An endless line: the reader stops.
    let endless = std::io::BufReader::new(std::io::repeat(b'x'));
    assert!(read_history(endless, &options).is_err());
}

#[test]
fn fields_stand_in_any_order_beside_others_and_an_unknown_operation_needs_no_return() {
    let line = r#"{"outcome":"unknown","note":[1],"return_ns":null,"call_ns":5,"value":"a","key":"x","op":"put","seq":9,"client":2}"#;
    let read = read_history(line.as_bytes(), &ReadOptions::default()).unwrap();
    assert_eq!(read.history.tally(), Tally { ok: 0, failed: 0, unknown: 1 });
    let operation = read.history.operations()[0];
    assert!(matches!(operation.action(), Action::Put(_)));
    assert_eq!((operation.call(), operation.returned()), (Nanos(5), None));
    assert_ne!(End::Unknown(None), End::Unknown(Some(Nanos(5))));
}

#[test]
fn a_failing_input_is_an_error_and_not_the_end() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("gone"))
        }
    }
    let error = read_history(std::io::BufReader::new(Broken), &ReadOptions::default()).unwrap_err();
    assert!(matches!(error, ReadError::Io { line: 1, .. }));
}
