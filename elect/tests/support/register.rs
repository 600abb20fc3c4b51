//! A resource behind a socket that refuses stale tokens, and remembers what it was asked.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use synod_lease::{FencedResource, FencingToken};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How often a command changes the resource.
pub(crate) const PACE: Duration = Duration::from_millis(10);

/// One thing that happened at the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) token: FencingToken,
    /// Who came.
    pub(crate) id: u64,
    pub(crate) what: What,
    pub(crate) at: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Accepted,
    Refused,
    /// Said something besides.
    Said(String),
    /// Will never come again.
    Left,
}

/// The resource.
pub(crate) struct Register {
    port: u16,
    visits: watch::Receiver<Vec<Visit>>,
}

type Shared = (Mutex<FencedResource<u64>>, watch::Sender<Vec<Visit>>);

impl Register {
    pub(crate) async fn open() -> Register {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, visits) = watch::channel(Vec::new());
        let shared = Arc::new((Mutex::new(FencedResource::new(0)), sender));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut visitor = None;
                    let _ = serve(stream, &shared, &mut visitor).await;
                    if let Some((token, id)) = visitor {
                        note(&shared, token, id, What::Left);
                    }
                });
            }
        });
        Register { port, visits }
    }

    /// A command that changes the resource again and again, and says so if it is told to end, but does not.
    pub(crate) fn command(&self) -> Vec<String> {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{}\n\
             trap 'echo \"$ELECT_TOKEN $ELECT_ID told\" >&3' TERM\n\
             while echo \"$ELECT_TOKEN $ELECT_ID\" >&3; do read -r _ <&3; done",
            self.port
        );
        vec!["bash".into(), "-c".into(), script]
    }

    /// How many visits there were; what a test that visits for an hour asks again and again.
    pub(crate) fn seen(&self) -> usize {
        self.visits.borrow().len()
    }

    pub(crate) fn visits(&self) -> Vec<Visit> {
        self.visits.borrow().clone()
    }

    /// Waits for the first visit after `seen` of them that is as wanted; gives it.
    pub(crate) async fn wait_for(&self, seen: usize, why: &str, wanted: impl Fn(&Visit) -> bool) -> Visit {
        let mut visits = self.visits.clone();
        let mut from = seen;
        let search = visits.wait_for(|visits| {
            while from < visits.len() && !wanted(&visits[from]) {
                from += 1;
            }
            from < visits.len()
        });
        let found = tokio::time::timeout(WAIT_MAX, search).await;
        let found = found.unwrap_or_else(|_| panic!("{why}: waited {WAIT_MAX:?} in vain")).unwrap();
        found.iter().skip(seen).find(|visit| wanted(visit)).expect("just found").clone()
    }
}

const WAIT_MAX: Duration = Duration::from_secs(60);

async fn serve(
    stream: TcpStream,
    shared: &Shared,
    visitor: &mut Option<(FencingToken, u64)>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut pace = tokio::time::interval(PACE);
    while let Some(line) = lines.next_line().await? {
        let mut words = line.splitn(3, ' ');
        let mut number = || words.next().and_then(|word| word.parse().ok());
        let (Some(token), Some(id)) = (number(), number()) else {
            return Err(io::Error::other(format!("`{line}` names no token")));
        };
        let token = FencingToken(token);
        *visitor = Some((token, id));
        if let Some(said) = words.next() {
            note(shared, token, id, What::Said(said.to_owned()));
            continue;
        }
        let admitted =
            shared.0.lock().unwrap_or_else(PoisonError::into_inner).admit(token).map(|count| *count += 1);
        note(shared, token, id, if admitted.is_ok() { What::Accepted } else { What::Refused });
        pace.tick().await;
        write.write_all(b"seen\n").await?;
    }
    Ok(())
}

fn note(shared: &Shared, token: FencingToken, id: u64, what: What) {
    shared.1.send_modify(|visits| visits.push(Visit { token, id, what, at: Instant::now() }));
}
