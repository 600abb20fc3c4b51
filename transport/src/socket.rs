//! A connection, encrypted or not: written from one place and read from another, and neither waits for the other.
//!
//! A send writes at once under the lock of its queue, from any thread. So encryption happens there too, by hand,
//! and not in a stream that only the task which polls it may use.

use std::io::{self, ErrorKind};

use bytes::BufMut;
use tokio::net::TcpStream;

#[cfg(feature = "tls")]
use crate::tls::Session;

#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TcpStream,
    #[cfg(feature = "tls")]
    session: Option<std::sync::Mutex<Session>>,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream) -> Socket {
        Socket {
            tcp,
            #[cfg(feature = "tls")]
            session: None,
        }
    }

    /// From now on everything goes through `session`, whose handshake is over.
    #[cfg(feature = "tls")]
    pub(crate) fn secure(&mut self, session: Session) {
        self.session = Some(std::sync::Mutex::new(session));
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// What `judge` thinks of the other end's certificate; true where there is none to have.
    #[cfg(feature = "tls")]
    pub(crate) fn certified(&self, judge: impl FnOnce(&Session) -> bool) -> bool {
        self.session.as_ref().is_none_or(|session| judge(&crate::lock(session)))
    }

    /// Hands bytes on, as many as are taken; what encryption holds back goes first.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(session) = &self.session {
            return crate::lock(session).try_write(&self.tcp, bytes);
        }
        self.tcp.try_write(bytes)
    }

    /// Hands on what encryption holds back.
    pub(crate) fn try_flush(&self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(session) = &self.session {
            return crate::lock(session).try_flush(&self.tcp);
        }
        Ok(())
    }

    /// Whether encryption holds something back, and how many bytes it has handed on so far.
    pub(crate) fn unsent(&self) -> (bool, u64) {
        #[cfg(feature = "tls")]
        if let Some(session) = &self.session {
            return crate::lock(session).unsent();
        }
        (false, 0)
    }

    /// Reads into the room that `into` has; 0 at the end.
    pub(crate) fn try_read(&self, into: &mut impl BufMut) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(session) = &self.session {
            return crate::lock(session).try_read(&self.tcp, into);
        }
        self.tcp.try_read_buf(into)
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(session) = &self.session
            && crate::lock(session).has_unread()
        {
            return Ok(());
        }
        self.tcp.readable().await
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }

    /// Waits for bytes and reads them; cancel-safe.
    pub(crate) async fn read(&self, into: &mut impl BufMut) -> io::Result<usize> {
        loop {
            match self.try_read(into) {
                Err(error) if would_block(&error) => self.readable().await?,
                read => return read,
            }
        }
    }

    /// Fills `into`, and reads no byte further.
    pub(crate) async fn read_exact(&self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            if self.read(&mut into).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            let written = match bytes {
                [] => self.try_flush().map(|()| 0),
                _ => self.try_write(bytes),
            };
            match written {
                Ok(_) if bytes.is_empty() => return Ok(()),
                Ok(len) => bytes = &bytes[len..],
                Err(error) if would_block(&error) => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Nothing more is written: the other end reads to the end of what was.
    pub(crate) async fn shut(&mut self) -> io::Result<()> {
        tokio::io::AsyncWriteExt::shutdown(&mut self.tcp).await
    }
}

/// The operating system would have to wait, or was interrupted: the same again later.
pub(crate) fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
