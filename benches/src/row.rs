//! One line of a comparison, as JSON and as a table.

use serde::Serialize;

/// What is told about one protocol. The order of the fields is the order in JSON; a figure that does not
/// exist (the latency of reads where there were none) is `null` there and `-` in the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name, or `unreplicated`.
    pub protocol: String,
    /// How many replicas ran.
    pub replicas: u64,
    /// How many clients.
    pub clients: u32,
    /// Bytes of a value.
    pub payload: usize,
    /// How many keys.
    pub keys: u32,
    /// What carried messages.
    pub transport: &'static str,
    /// What held the log.
    pub storage: &'static str,
    /// The tokio runtime.
    pub flavour: &'static str,
    /// Puts completed a second.
    pub writes_per_s: f64,
    /// Gets completed a second.
    pub reads_per_s: f64,
    /// Half of the puts took at most this long.
    pub write_p50_us: Option<f64>,
    /// 99 of 100 puts took at most this long.
    pub write_p99_us: Option<f64>,
    /// 999 of 1,000 puts took at most this long.
    pub write_p999_us: Option<f64>,
    /// Half of the gets took at most this long.
    pub read_p50_us: Option<f64>,
    /// 99 of 100 gets took at most this long.
    pub read_p99_us: Option<f64>,
    /// 999 of 1,000 gets took at most this long. In the table only.
    #[serde(skip)]
    pub read_p999_us: Option<f64>,
    /// Envelopes sent by all replicas in the measured time, whatever for, by puts completed in it.
    pub messages_per_write: Option<f64>,
    /// Bytes of those envelopes by puts.
    pub bytes_per_write: Option<f64>,
    /// Storage syncs of all replicas by puts.
    pub fsyncs_per_write: Option<f64>,
    /// Processor seconds of the whole process, clients included, by million puts and gets.
    pub cpu_s_per_million: Option<f64>,
    /// The longest interval that overlaps the crash and in which no put completed.
    pub unavailable_ms: Option<f64>,
    /// Whether the history is linearizable; none if the checker ran out of its budget.
    pub linearizable: Option<bool>,
    /// Whether all replicas reached one applied index in time and had equal states there.
    pub replicas_equal: bool,
    /// Operations whose outcome was still unknown at their deadline.
    pub unknown: u64,
    /// Operations that failed, were lost, or returned what nobody wrote.
    pub errors: u64,
}

impl Row {
    /// One JSON object, without a line feed.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings")
    }

    /// True if nothing speaks against the run.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.linearizable == Some(true) && self.replicas_equal && self.errors == 0
    }

    /// Which share of the puts and gets a second of `other` is missing here; below zero if there are more.
    #[must_use]
    pub fn loss_against(&self, other: &Row) -> f64 {
        1.0 - (self.writes_per_s + self.reads_per_s) / (other.writes_per_s + other.reads_per_s)
    }

    fn cells(&self) -> Vec<String> {
        let fixed = |value: Option<f64>, digits: usize| match value {
            Some(value) => grouped(value, digits),
            None => "-".to_owned(),
        };
        vec![
            self.protocol.clone(),
            self.replicas.to_string(),
            grouped(self.writes_per_s, 0),
            grouped(self.reads_per_s, 0),
            fixed(self.write_p50_us, 1),
            fixed(self.write_p99_us, 1),
            fixed(self.write_p999_us, 1),
            fixed(self.read_p50_us, 1),
            fixed(self.read_p99_us, 1),
            fixed(self.read_p999_us, 1),
            fixed(self.messages_per_write, 3),
            fixed(self.bytes_per_write, 0),
            fixed(self.fsyncs_per_write, 3),
            fixed(self.cpu_s_per_million, 2),
            fixed(self.unavailable_ms, 1),
            match self.linearizable {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "unknown",
            }
            .to_owned(),
            if self.replicas_equal { "yes" } else { "NO" }.to_owned(),
        ]
    }
}

/// Rounds a measured figure for people and JSON: three digits after the point are more than it is worth.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// The rows under their headings, every column as wide as its widest cell.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let headings = HEADINGS.map(|(upper, _)| upper.to_owned()).to_vec();
    let units = HEADINGS.map(|(_, lower)| lower.to_owned()).to_vec();
    let lines: Vec<Vec<String>> = [headings, units].into_iter().chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate();
        let cells: Vec<String> = cells
            .map(
                |(column, (cell, &width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

const HEADINGS: [(&str, &str); 17] = [
    ("protocol", ""),
    ("n", ""),
    ("writes", "/s"),
    ("reads", "/s"),
    ("write p50", "us"),
    ("p99", "us"),
    ("p99.9", "us"),
    ("read p50", "us"),
    ("p99", "us"),
    ("p99.9", "us"),
    ("messages", "/write"),
    ("bytes", "/write"),
    ("fsyncs", "/write"),
    ("cpu s", "/million"),
    ("no service", "ms"),
    ("linear-", "izable"),
    ("replicas", "equal"),
];

/// A number with this many digits after the point and commas between thousands.
fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            protocol: "raft".to_owned(),
            replicas: 3,
            clients: 64,
            payload: 128,
            keys: 10_000,
            transport: "memory",
            storage: "memory",
            flavour: "current-thread",
            writes_per_s: 1_234_567.8,
            reads_per_s: 999.0,
            write_p50_us: Some(12.5),
            write_p99_us: Some(100.0),
            write_p999_us: Some(1_000.0),
            read_p50_us: None,
            read_p99_us: None,
            read_p999_us: None,
            messages_per_write: Some(0.125),
            bytes_per_write: Some(300.0),
            fsyncs_per_write: Some(0.0),
            cpu_s_per_million: Some(1.5),
            unavailable_ms: Some(210.0),
            linearizable: Some(true),
            replicas_equal: true,
            unknown: 0,
            errors: 0,
        }
    }

    #[test]
    fn the_json_object_has_the_documented_fields_in_the_documented_order() {
        let json = row().json();
        let names = "protocol, replicas, clients, payload, keys, transport, storage, flavour, writes_per_s, \
                     reads_per_s, write_p50_us, write_p99_us, write_p999_us, read_p50_us, read_p99_us, \
                     messages_per_write, bytes_per_write, fsyncs_per_write, cpu_s_per_million, unavailable_ms, \
                     linearizable, replicas_equal, unknown, errors";
        let found: Vec<&str> = json
            .trim_matches(['{', '}'])
            .split(',')
            .map(|field| field.split(':').next().unwrap().trim_matches('"'))
            .collect();
        assert_eq!(found, names.split(", ").collect::<Vec<_>>());
        assert!(json.contains(r#""read_p50_us":null"#) && json.contains(r#""linearizable":true"#), "{json}");
        assert!(!json.contains('\n'));
        let unknown = Row { linearizable: None, ..row() }.json();
        assert!(unknown.contains(r#""linearizable":null"#), "{unknown}");
    }

    #[test]
    fn a_row_is_good_only_if_every_verdict_is() {
        assert!(row().is_good());
        assert!(Row { unknown: 3, ..row() }.is_good());
        for bad in [
            Row { linearizable: None, ..row() },
            Row { linearizable: Some(false), ..row() },
            Row { replicas_equal: false, ..row() },
            Row { errors: 1, ..row() },
        ] {
            assert!(!bad.is_good());
        }
    }

    #[test]
    fn the_table_lines_its_columns_up_and_marks_what_is_missing() {
        let text =
            table(&[row(), Row { protocol: "unreplicated".to_owned(), replicas_equal: false, ..row() }]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        let at = lines[0].find("writes").unwrap() + "writes".len();
        for line in &lines[2..] {
            assert_eq!(&line[at - 9..at], "1,234,568");
            assert!(line.contains("  -  "), "{line}");
        }
        assert!(lines[2].ends_with("yes") && lines[3].ends_with("NO"));
    }

    #[test]
    fn a_loss_is_over_reads_and_writes() {
        let plain = Row { writes_per_s: 300.0, reads_per_s: 100.0, ..row() };
        let slower = Row { writes_per_s: 200.0, reads_per_s: 100.0, ..row() };
        assert_eq!(slower.loss_against(&plain), 0.25);
        assert!(plain.loss_against(&slower) < 0.0);
    }

    #[test]
    fn thousands_are_grouped() {
        for (value, digits, text) in
            [(0.0, 0, "0"), (999.4, 0, "999"), (1_000.0, 0, "1,000"), (1_234_567.89, 1, "1,234,567.9")]
        {
            assert_eq!(grouped(value, digits), text);
        }
    }
}
