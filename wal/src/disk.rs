//! What the log asks of the operating system.

use std::io;

/// One directory of files, as the log needs it. Every call may block.
///
/// # Crashes
/// What was not made durable may be lost in any part and any order: of a file, each sector that was written
/// since its last [`DiskFile::sync`]; of the directory, each entry that was created, renamed or removed since the
/// last [`Disk::sync_dir`]. A rename is atomic: after a crash the file has one of its two names, and its
/// contents are what its own `sync` made durable.
///
/// # Errors
/// Whatever the system says. A file that is not there is [`io::ErrorKind::NotFound`]; creating one that is there
/// is [`io::ErrorKind::AlreadyExists`]. The log treats every other error as final, and never repeats a sync.
pub trait Disk: Send + Sync + 'static {
    /// A file that is open.
    type File: DiskFile;

    /// The names of all files, in any order.
    ///
    /// # Errors
    /// See [`Disk`].
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file and opens it for reading and writing. Fails if the name is taken.
    ///
    /// # Errors
    /// See [`Disk`].
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// See [`Disk`].
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, replacing what had it; files that are open stay so.
    ///
    /// # Errors
    /// See [`Disk`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// See [`Disk`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every file created, renamed or removed so far durable as such.
    ///
    /// # Errors
    /// See [`Disk`].
    fn sync_dir(&self) -> io::Result<()>;
}

/// A file of a [`Disk`]. Reads may run while another thread writes.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait DiskFile: Send + Sync + 'static {
    /// How many bytes it holds.
    ///
    /// # Errors
    /// See [`Disk`].
    fn len(&self) -> io::Result<u64>;

    /// Reads from `offset` on; answers how many bytes, 0 at the end of the file. May read less than asked for.
    ///
    /// # Errors
    /// See [`Disk`]. [`io::ErrorKind::Interrupted`] is tried again.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes at `offset`, growing the file where needed; answers how many bytes. May write less than given.
    ///
    /// # Errors
    /// See [`Disk`]. [`io::ErrorKind::Interrupted`] is tried again.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Cuts the file, or lets it grow by zeros.
    ///
    /// # Errors
    /// See [`Disk`].
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes contents and size durable (`fdatasync`).
    ///
    /// # Errors
    /// See [`Disk`].
    fn sync(&self) -> io::Result<()>;
}
