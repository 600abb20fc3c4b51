//! A run as a space-time diagram: one page that needs nothing from anywhere else.
//!
//! Replicas are lines, time runs to the right, messages are arrows. The page draws the part of the run that is in
//! view, so long runs stay usable: scroll to zoom, drag to move, hover for what a thing is and its vector clock. A click
//! on an event leaves bright what happened before it.

use std::collections::BTreeMap;

use serde::Serialize;
use synod_clocks::{ActorId, VectorTime};

use crate::run::Run;
use crate::trace::{Trace, What};

/// What the page's script draws.
#[derive(Debug, Default, Serialize)]
struct Picture {
    seed: u64,
    replicas: usize,
    protocol: &'static str,
    level: &'static str,
    events: u64,
    end_ns: u64,
    verdict: Option<String>,
    options: Vec<(&'static str, String)>,
    /// Sent at, from, to, what, why it was lost, arrivals.
    messages: Vec<Message>,
    marks: Vec<Mark>,
    cuts: Vec<Cut>,
    /// At, what.
    notes: Vec<(u64, String)>,
}

/// At, step, node, kind, what, vector time.
type Mark = (u64, u64, usize, &'static str, String, Vector);

/// From, until, kind, links.
type Cut = (u64, u64, &'static str, Vec<(usize, usize)>);

#[derive(Debug, Serialize)]
struct Message {
    at: u64,
    step: u64,
    from: usize,
    to: usize,
    text: String,
    vector: Vector,
    lost: Option<&'static str>,
    /// When, whether somebody was there to take it, and the vector time if so.
    arrivals: Vec<(u64, bool, Vector)>,
}

/// How many events of each replica are in the past of an event, itself included.
type Vector = Vec<u64>;

/// The page.
#[must_use]
pub fn page(run: &Run, trace: &Trace) -> String {
    let picture = picture(run, trace);
    let data = serde_json::to_string(&picture).expect("a picture is JSON").replace("</", "<\\/");
    include_str!("diagram.html").replace("/*PICTURE*/null", &data)
}

fn picture(run: &Run, trace: &Trace) -> Picture {
    let options = &run.options;
    let faults: Vec<&str> = options.faults.iter().map(|fault| fault.name()).collect();
    let ms = |time: u64| format!("{:.3} ms", time as f64 / 1e6);
    let mut picture = Picture {
        seed: run.outcome.seed,
        replicas: options.replicas,
        protocol: run.protocol,
        level: run.level.name(),
        events: run.outcome.events,
        end_ns: run.outcome.simulated,
        verdict: run.outcome.violation.as_ref().map(ToString::to_string),
        options: vec![
            ("faults", if faults.is_empty() { "none".to_owned() } else { faults.join(", ") }),
            ("adversary", options.adversary.to_string()),
            ("patience", ms(options.patience)),
            (
                "network",
                format!("{} + {} on average", ms(options.weather.delay_min), ms(options.weather.delay_mean)),
            ),
            ("disk", format!("{} + {} on average", ms(options.disk.sync_min), ms(options.disk.sync_mean))),
            ("clients", options.clients.clients.to_string()),
        ],
        ..Picture::default()
    };
    let mut by_id: BTreeMap<u64, usize> = BTreeMap::new();
    let counts = |time: Option<VectorTime>| -> Vector {
        time.map_or_else(Vec::new, |time| {
            (0..options.replicas).map(|node| time.get(ActorId::new(node as u32))).collect()
        })
    };
    for (item, time) in trace.items.iter().zip(trace.vector_times(options.replicas)) {
        let vector = counts(time);
        match &item.what {
            What::Message { from, to, id, text, lost } => {
                by_id.insert(*id, picture.messages.len());
                picture.messages.push(Message {
                    at: item.at,
                    step: item.step,
                    from: *from,
                    to: *to,
                    text: text.clone(),
                    vector,
                    lost: *lost,
                    arrivals: Vec::new(),
                });
            }
            What::Delivered { id, taken, .. } => {
                if let Some(message) = by_id.get(id) {
                    picture.messages[*message].arrivals.push((item.at, *taken, vector));
                }
            }
            What::Node { node, kind, text } => {
                picture.marks.push((item.at, item.step, *node, kind.name(), text.clone(), vector));
            }
            What::Cut { kind, links, until } => {
                picture.cuts.push((item.at, (*until).min(run.outcome.simulated), kind, links.clone()));
            }
            What::World { text } => picture.notes.push((item.at, text.clone())),
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Level, Simulated};

    #[test]
    fn every_event_is_labelled_with_its_vector_clock() {
        let run = Simulated::named("raft").unwrap().run(Level::Replica, 3, 3, true);
        let picture = picture(&run, run.trace.as_ref().unwrap());
        let mut arrivals = 0;
        for message in &picture.messages {
            for (_, _, received) in message.arrivals.iter().filter(|(_, taken, _)| *taken) {
                // What happened before: no counter is greater, and the receiver's own one is.
                assert!(message.vector.iter().zip(received).all(|(sent, received)| sent <= received));
                assert!(message.vector[message.to] < received[message.to]);
                arrivals += 1;
            }
        }
        assert!(arrivals > 1_000, "{arrivals}");
        assert!(picture.marks.iter().all(|mark| mark.5.len() == 3 && mark.5[mark.2] > 0));
    }

    #[test]
    fn the_page_holds_every_message_and_nothing_from_elsewhere() {
        let run = Simulated::named("raft").unwrap().run(Level::Replica, 3, 3, true);
        let trace = run.trace.as_ref().unwrap();
        let page = page(&run, trace);
        let sent = trace.items.iter().filter(|item| matches!(item.what, What::Message { .. })).count();
        assert_eq!(page.matches("\"arrivals\"").count(), sent);
        for outside in ["http://", "https://", "src=", "@import"] {
            let namespace =
                page.matches("http://www.w3.org/2000/svg").count() * usize::from(outside == "http://");
            assert_eq!(page.matches(outside).count(), namespace, "{outside}");
        }
    }
}
