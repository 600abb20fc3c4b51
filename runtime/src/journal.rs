//! The storage, inline or on threads of its own.
//!
//! A storage that does not block is polled by the driver itself. One that does gets a writer thread, which
//! makes everything queued durable in one call (group commit without added delay: the batch grows while the
//! disk is busy), and a reader thread, started with the first read.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use synod_core::{
    Compacted, Load, LoadId, Loaded, LogReader, ReadError, Storage, StorageError, Write, WriteId,
};
use tokio::runtime::Handle;

use crate::calls::lock;
use crate::metrics::Counters;

/// Answers to loads, by id.
pub(crate) type Answers = Vec<(LoadId, Result<Loaded, Compacted>)>;

pub(crate) struct Journal {
    counters: Arc<Counters>,
    reader: Arc<dyn LogReader>,
    place: Place,
}

enum Place {
    Inline(Box<dyn Storage>),
    Threads(Threads),
}

struct Threads {
    desk: Arc<Desk>,
    issued: WriteId,
    durable: WriteId,
    writer: Option<JoinHandle<()>>,
    reader: Option<JoinHandle<()>>,
}

/// Where driver, writer and reader thread leave things for each other.
#[derive(Default)]
struct Desk {
    papers: Mutex<Papers>,
    units: Condvar,
    loads: Condvar,
}

#[derive(Default)]
struct Papers {
    // For the threads.
    units: Vec<Write>,
    loads: Vec<Load>,
    closing: bool,
    // For the driver.
    news: bool,
    durable: WriteId,
    answers: Answers,
    error: Option<StorageError>,
    threads_running: usize,
    driver: Option<Waker>,
}

impl Journal {
    /// Takes a recovered storage over.
    pub(crate) fn new(storage: Box<dyn Storage>, counters: Arc<Counters>) -> std::io::Result<Journal> {
        let reader = storage.reader();
        let place = if storage.blocking() {
            Place::Threads(Threads::start(storage, Arc::clone(&counters))?)
        } else {
            Place::Inline(storage)
        };
        Ok(Journal { counters, reader, place })
    }

    /// Makes the units durable before it returns, if the storage can without waiting; `None` if it cannot.
    pub(crate) fn try_write(&mut self, units: &[Write]) -> Option<Result<WriteId, StorageError>> {
        let (Place::Inline(storage), Some(last)) = (&mut self.place, units.last()) else { return None };
        let outcome = storage.try_write(units)?;
        self.counters.storage_writes.add(1);
        Some(outcome.map(|()| last.id))
    }

    /// Hands units over. Those durable on return are told at once, the others later by
    /// [`Journal::take_completed`].
    pub(crate) async fn write(&mut self, units: &mut Vec<Write>) -> Result<Option<WriteId>, StorageError> {
        let Some(last) = units.last() else { return Ok(None) };
        let last = last.id;
        match &mut self.place {
            Place::Inline(storage) => {
                self.counters.storage_writes.add(1);
                storage.write(units).await?;
                units.clear();
                Ok(Some(last))
            }
            Place::Threads(threads) => {
                threads.issued = last;
                lock(&threads.desk.papers).units.append(units);
                threads.desk.units.notify_one();
                Ok(None)
            }
        }
    }

    /// Starts reads. Those done on return are appended to `answers`, the others come later by
    /// [`Journal::take_completed`].
    pub(crate) fn load(&mut self, loads: &mut Vec<Load>, answers: &mut Answers) -> Result<(), StorageError> {
        match &mut self.place {
            Place::Inline(_) => {
                for load in loads.drain(..) {
                    answers.push((load.id, read(&*self.reader, load)?));
                }
            }
            Place::Threads(threads) if !loads.is_empty() => threads.load(loads, &self.reader)?,
            Place::Threads(_) => {}
        }
        Ok(())
    }

    /// Ready if there is something for [`Journal::take_completed`].
    pub(crate) fn poll_completed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &self.place {
            Place::Inline(_) => Poll::Pending,
            Place::Threads(threads) => threads.poll(context, |papers| papers.news),
        }
    }

    /// What the threads have done since the last time: the last unit that became durable, and reads.
    pub(crate) fn take_completed(&mut self, answers: &mut Answers) -> Result<Option<WriteId>, StorageError> {
        let Place::Threads(threads) = &mut self.place else { return Ok(None) };
        let mut papers = lock(&threads.desk.papers);
        if !papers.news {
            return Ok(None);
        }
        papers.news = false;
        if let Some(error) = &papers.error {
            return Err(error.clone());
        }
        answers.append(&mut papers.answers);
        let advanced = papers.durable > threads.durable;
        threads.durable = papers.durable;
        Ok(advanced.then_some(threads.durable))
    }

    /// True if everything handed over is durable.
    pub(crate) fn is_settled(&self) -> bool {
        match &self.place {
            Place::Inline(_) => true,
            Place::Threads(threads) => threads.durable == threads.issued,
        }
    }

    /// Ends the threads and joins them. A write in progress is finished, queued units are dropped.
    pub(crate) async fn close(mut self) {
        let Place::Threads(threads) = &mut self.place else { return };
        threads.close();
        std::future::poll_fn(|context| threads.poll(context, |papers| papers.threads_running == 0)).await;
        for thread in [threads.writer.take(), threads.reader.take()].into_iter().flatten() {
            // Its last act was to count itself out; a panic was reported by the storage's error.
            let _ = thread.join();
        }
    }
}

fn read(reader: &dyn LogReader, load: Load) -> Result<Result<Loaded, Compacted>, StorageError> {
    match reader.read(load.range, load.bytes_max) {
        Ok(loaded) => Ok(Ok(loaded)),
        Err(ReadError::Compacted(compacted)) => Ok(Err(compacted)),
        Err(ReadError::Storage(error)) => Err(error),
        Err(_) => Err(StorageError::Poisoned),
    }
}

impl Threads {
    fn start(storage: Box<dyn Storage>, counters: Arc<Counters>) -> std::io::Result<Threads> {
        let desk = Arc::new(Desk::default());
        let mut threads =
            Threads { desk, issued: WriteId(0), durable: WriteId(0), writer: None, reader: None };
        let runtime = Handle::current();
        threads.writer =
            Some(threads.spawn("synod-writer", move |desk| write_all(desk, storage, &counters, &runtime))?);
        Ok(threads)
    }

    fn spawn(
        &self,
        name: &str,
        work: impl FnOnce(&Desk) -> Result<(), StorageError> + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let desk = Arc::clone(&self.desk);
        let on_duty = OnDuty::begin(Arc::clone(&desk));
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let on_duty = on_duty;
            if let Err(error) = work(&desk) {
                on_duty.report(|papers| papers.error = Some(error));
            }
        })
    }

    fn load(&mut self, loads: &mut Vec<Load>, reader: &Arc<dyn LogReader>) -> Result<(), StorageError> {
        if self.reader.is_none() {
            let reader = Arc::clone(reader);
            let thread = self.spawn("synod-reader", move |desk| read_all(desk, &*reader));
            self.reader = Some(thread.map_err(|source| StorageError::Io {
                operation: "starting the reader thread",
                source: Arc::new(source),
            })?);
        }
        lock(&self.desk.papers).loads.append(loads);
        self.desk.loads.notify_one();
        Ok(())
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

    fn close(&self) {
        let mut papers = lock(&self.desk.papers);
        papers.closing = true;
        papers.units.clear();
        papers.loads.clear();
        drop(papers);
        self.desk.units.notify_one();
        self.desk.loads.notify_one();
    }
}

/// A driver that is dropped without notice still ends its threads; nobody is there to join them.
impl Drop for Threads {
    fn drop(&mut self) {
        self.close();
    }
}

/// The writer thread.
fn write_all(
    desk: &Desk,
    mut storage: Box<dyn Storage>,
    counters: &Counters,
    runtime: &Handle,
) -> Result<(), StorageError> {
    let mut batch: Vec<Write> = Vec::new();
    loop {
        let mut papers = lock(&desk.papers);
        while !papers.closing && papers.units.is_empty() {
            papers = wait(&desk.units, papers);
        }
        if papers.closing {
            return Ok(());
        }
        std::mem::swap(&mut papers.units, &mut batch);
        drop(papers);
        counters.storage_writes.add(1);
        runtime.block_on(storage.write(&batch))?;
        let durable = batch.last().map(|unit| unit.id);
        batch.clear();
        let mut papers = lock(&desk.papers);
        papers.durable = durable.unwrap_or(papers.durable);
        tell_driver(papers);
    }
}

/// The reader thread.
fn read_all(desk: &Desk, reader: &dyn LogReader) -> Result<(), StorageError> {
    loop {
        let mut papers = lock(&desk.papers);
        while !papers.closing && papers.loads.is_empty() {
            papers = wait(&desk.loads, papers);
        }
        if papers.closing {
            return Ok(());
        }
        let load = papers.loads.remove(0);
        drop(papers);
        let answer = (load.id, read(reader, load)?);
        let mut papers = lock(&desk.papers);
        papers.answers.push(answer);
        tell_driver(papers);
    }
}

fn wait<'a>(condvar: &Condvar, papers: MutexGuard<'a, Papers>) -> MutexGuard<'a, Papers> {
    condvar.wait(papers).unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn tell_driver(mut papers: MutexGuard<'_, Papers>) {
    papers.news = true;
    let driver = papers.driver.take();
    drop(papers);
    if let Some(driver) = driver {
        driver.wake();
    }
}

/// Counts a thread in and, whatever ends it, out again. A panic of the storage is an error of the storage.
struct OnDuty(Arc<Desk>);

impl OnDuty {
    fn begin(desk: Arc<Desk>) -> OnDuty {
        lock(&desk.papers).threads_running += 1;
        OnDuty(desk)
    }

    fn report(&self, change: impl FnOnce(&mut Papers)) {
        let mut papers = lock(&self.0.papers);
        change(&mut papers);
        tell_driver(papers);
    }
}

impl Drop for OnDuty {
    fn drop(&mut self) {
        self.report(|papers| {
            papers.threads_running -= 1;
            if std::thread::panicking() {
                papers.error.get_or_insert(StorageError::Poisoned);
            }
        });
    }
}
