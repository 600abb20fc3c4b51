//! The store of snapshots, on a thread of its own.
//!
//! What is to be done with the store may take as long as the state is large: none of it happens in the driver. One job
//! after the other, in the order in which the replica asked for them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use synod_replica::{SnapshotDone, SnapshotJob, SnapshotKeeper};

use crate::calls::lock;

/// The thread that keeps a node's snapshots.
pub(crate) struct Archive {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

/// The store or the state machine panicked: a job is lost.
#[derive(Debug)]
pub(crate) struct KeeperPanicked;

/// Where driver and thread leave things for each other.
#[derive(Default)]
struct Desk {
    papers: Mutex<Papers>,
    jobs: Condvar,
}

#[derive(Default)]
struct Papers {
    // For the thread.
    jobs: VecDeque<SnapshotJob>,
    closing: bool,
    // For the driver.
    done: Vec<SnapshotDone>,
    ended: bool,
    driver: Option<Waker>,
}

impl Archive {
    pub(crate) fn start(keeper: SnapshotKeeper) -> std::io::Result<Archive> {
        let desk = Arc::new(Desk::default());
        let on_duty = OnDuty(Arc::clone(&desk));
        let thread = std::thread::Builder::new().name("synod-archive".to_owned()).spawn(move || {
            let on_duty = on_duty;
            keep(&on_duty.0, keeper);
        })?;
        Ok(Archive { desk, thread: Some(thread) })
    }

    /// Hands jobs over.
    pub(crate) fn begin(&self, jobs: &mut Vec<SnapshotJob>) {
        lock(&self.desk.papers).jobs.extend(jobs.drain(..));
        self.desk.jobs.notify_one();
    }

    /// Ready if there is something for [`Archive::take_done`].
    pub(crate) fn poll_done(&self, context: &mut Context<'_>) -> Poll<()> {
        self.poll(context, |papers| papers.ended || !papers.done.is_empty())
    }

    /// What was done since the last time.
    pub(crate) fn take_done(&self, into: &mut Vec<SnapshotDone>) -> Result<(), KeeperPanicked> {
        let mut papers = lock(&self.desk.papers);
        into.append(&mut papers.done);
        if papers.ended { Err(KeeperPanicked) } else { Ok(()) }
    }

    /// Ends the thread and joins it. A job in progress is finished, the others are dropped.
    pub(crate) async fn close(mut self) {
        self.desk.close();
        std::future::poll_fn(|context| self.poll(context, |papers| papers.ended)).await;
        if let Some(thread) = self.thread.take() {
            // Its last act was to say that it ends; a panic was told to the driver.
            let _ = thread.join();
        }
    }

    fn poll(&self, context: &mut Context<'_>, ready: impl FnOnce(&Papers) -> bool) -> Poll<()> {
        let mut papers = lock(&self.desk.papers);
        if ready(&papers) {
            return Poll::Ready(());
        }
        if !papers.driver.as_ref().is_some_and(|driver| driver.will_wake(context.waker())) {
            papers.driver = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

/// A driver that is dropped without notice still ends its thread; nobody is there to join it.
impl Drop for Archive {
    fn drop(&mut self) {
        self.desk.close();
    }
}

impl Desk {
    fn close(&self) {
        let mut papers = lock(&self.papers);
        papers.closing = true;
        papers.jobs.clear();
        drop(papers);
        self.jobs.notify_one();
    }

    fn report(&self, change: impl FnOnce(&mut Papers)) {
        let mut papers = lock(&self.papers);
        change(&mut papers);
        let driver = papers.driver.take();
        drop(papers);
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// The thread.
fn keep(desk: &Desk, mut keeper: SnapshotKeeper) {
    loop {
        let mut papers = lock(&desk.papers);
        let job = loop {
            if papers.closing {
                return;
            }
            match papers.jobs.pop_front() {
                Some(job) => break job,
                None => papers = desk.jobs.wait(papers).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(papers);
        let done = keeper.run(job);
        desk.report(|papers| papers.done.push(done));
    }
}

/// Says that the thread ends, whatever ends it.
struct OnDuty(Arc<Desk>);

impl Drop for OnDuty {
    fn drop(&mut self) {
        self.0.report(|papers| papers.ended = true);
    }
}
