//! The disk of the operating system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{Disk, DiskFile};

/// A folder of the operating system.
#[derive(Debug)]
pub struct FileDisk {
    folder: PathBuf,
    /// The folder itself, kept open: it is what `sync_dir` syncs.
    handle: File,
    read_only: bool,
}

impl FileDisk {
    /// A folder that is there.
    ///
    /// # Errors
    /// What the system says if it cannot be opened, or is no folder.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<FileDisk> {
        let folder = folder.into();
        let handle = File::open(&folder)?;
        if !handle.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(FileDisk { folder, handle, read_only: false })
    }

    /// As [`FileDisk::open`], but nothing can be changed: files are opened for reading only.
    ///
    /// # Errors
    /// As [`FileDisk::open`].
    pub fn open_read_only(folder: impl Into<PathBuf>) -> io::Result<FileDisk> {
        Ok(FileDisk { read_only: true, ..FileDisk::open(folder)? })
    }

    fn changes(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Disk for FileDisk {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            // A name that is no text is nobody's of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        self.changes()?;
        OpenOptions::new().read(true).write(true).create_new(true).open(self.folder.join(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(!self.read_only).open(self.folder.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.changes()?;
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.changes()?;
        fs::remove_file(self.folder.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_does_what_the_trait_says() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(folder.path()).unwrap();
        let file = disk.create("a").unwrap();
        assert_eq!(disk.create("a").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.open("b").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(DiskFile::write_at(&file, 4, b"log").unwrap(), 3);
        file.sync().unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        let again = disk.open("b").unwrap();
        let mut bytes = [9; 16];
        assert_eq!(DiskFile::read_at(&again, 0, &mut bytes).unwrap(), 7);
        assert_eq!(&bytes[..7], b"\0\0\0\0log");
        assert_eq!(DiskFile::read_at(&again, 7, &mut bytes).unwrap(), 0);
        DiskFile::set_len(&again, 5).unwrap();
        assert_eq!(DiskFile::len(&file).unwrap(), 5);
        disk.remove("b").unwrap();
        assert_eq!(disk.list().unwrap(), [""; 0]);
    }

    #[test]
    fn nothing_changes_through_a_disk_for_reading() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), b"log").unwrap();
        let disk = FileDisk::open_read_only(folder.path()).unwrap();
        let file = disk.open("a").unwrap();
        assert!(DiskFile::write_at(&file, 0, b"x").is_err());
        let refused = [disk.create("b").map(|_| ()), disk.rename("a", "b"), disk.remove("a")];
        for outcome in refused {
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"log");
    }

    #[test]
    fn a_file_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"").unwrap();
        assert_eq!(FileDisk::open(path).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(FileDisk::open(folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
