//! One end of an encrypted connection, over a socket that it does not own.

use std::io::{self, BufRead, ErrorKind, IoSlice, Write};

use bytes::BufMut;
use rustls::{AlertDescription, CertificateError, Connection, InvalidMessage};
use synod_core::Identity;
use tokio::net::TcpStream;

use crate::handshake::{Greeting, MAGIC, PREFIX_LEN, Refusal};
use crate::socket::would_block;

/// How much is read at once, in bytes: until a peer is known, and from then on.
const SHAKE_BYTES: usize = 4 << 10;
const READ_BYTES: usize = 32 << 10;

/// How every record of a TLS handshake begins.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Encrypts and decrypts.
pub(crate) struct Session {
    tls: Connection,
    /// Encrypted bytes that were read: those from `start` to `end` are not decrypted yet.
    raw: Vec<u8>,
    start: usize,
    end: usize,
    /// Encrypted bytes that were written.
    sent: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Why there is no encrypted connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShakeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other end was told by an alert, if at all.
    #[error("{reason}")]
    Here { reason: Refusal, source: Option<rustls::Error> },
    /// What came is no TLS: the other end can read a greeting, and nothing else.
    #[error("{0}")]
    NoTls(Refusal),
    /// The other end says so; none for a reason of a later version.
    #[error("refused by the other end")]
    There(Option<Refusal>),
}

impl Session {
    pub(crate) fn new(tls: Connection) -> Session {
        Session { tls, raw: Vec::new(), start: 0, end: 0, sent: 0 }
    }

    /// Shakes hands, reading `bytes_max` at most.
    pub(crate) async fn shake(&mut self, tcp: &TcpStream, bytes_max: usize) -> Result<(), ShakeError> {
        let mut budget = bytes_max;
        loop {
            while let Err(error) = self.try_flush(tcp) {
                if !would_block(&error) {
                    return Err(error.into());
                }
                tcp.writable().await?;
            }
            if !self.tls.is_handshaking() {
                self.raw = vec![0; READ_BYTES];
                return Ok(());
            }
            tcp.readable().await?;
            let mut bytes = [0; SHAKE_BYTES];
            let len = match tcp.try_read(&mut bytes) {
                Ok(0) => return Err(ShakeError::Io(ErrorKind::UnexpectedEof.into())),
                Ok(len) => len,
                Err(error) if would_block(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut bytes = &bytes[..len];
            if bytes.starts_with(&MAGIC) {
                return Err(self.plaintext(bytes));
            }
            if budget == bytes_max
                && matches!(self.tls, Connection::Server(_))
                && bytes[0] != HANDSHAKE_RECORD
            {
                return Err(ShakeError::NoTls(Refusal::Malformed));
            }
            budget =
                budget.checked_sub(len).ok_or(ShakeError::Here { reason: Refusal::Tls, source: None })?;
            while !bytes.is_empty() {
                if let Err(error) = self.tls.read_tls(&mut bytes).map(|_| self.tls.process_new_packets())? {
                    // The alert that says why.
                    let _ = self.try_flush(tcp);
                    return Err(match refusal_of(&error) {
                        (reason, true) => ShakeError::There(Some(reason)),
                        (reason, false) => ShakeError::Here { reason, source: Some(error) },
                    });
                }
            }
        }
    }

    /// The other end does not speak TLS, or ends the handshake with a greeting that can be read without.
    fn plaintext(&self, bytes: &[u8]) -> ShakeError {
        if matches!(self.tls, Connection::Server(_)) {
            return ShakeError::NoTls(Refusal::TlsWanted);
        }
        let greeting = bytes
            .first_chunk::<PREFIX_LEN>()
            .and_then(|prefix| Greeting::body_len(prefix).ok())
            .and_then(|len| Greeting::from_bytes(bytes.get(..PREFIX_LEN + len)?).ok());
        match greeting {
            Some(Greeting::Refused(reason)) => ShakeError::There(reason),
            _ => ShakeError::NoTls(Refusal::TlsWanted),
        }
    }

    /// Whether the other end is certified as this node.
    pub(crate) fn is_of(&self, identity: &Identity) -> bool {
        let chain = self.tls.peer_certificates().unwrap_or_default();
        chain.first().is_some_and(|certificate| super::holds_name(certificate, identity))
    }

    pub(crate) fn try_write(&mut self, tcp: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        self.try_flush(tcp)?;
        let len = self.tls.writer().write(bytes)?;
        match self.try_flush(tcp) {
            Err(error) if !would_block(&error) => Err(error),
            _ => Ok(len),
        }
    }

    pub(crate) fn try_flush(&mut self, tcp: &TcpStream) -> io::Result<()> {
        while self.tls.wants_write() {
            self.sent += self.tls.write_tls(&mut Unwaiting(tcp))? as u64;
        }
        Ok(())
    }

    pub(crate) fn unsent(&self) -> (bool, u64) {
        (self.tls.wants_write(), self.sent)
    }

    /// Whether something can be read without the socket.
    pub(crate) fn has_unread(&mut self) -> bool {
        self.start < self.end || self.tls.reader().fill_buf().is_ok()
    }

    pub(crate) fn try_read(&mut self, tcp: &TcpStream, into: &mut impl BufMut) -> io::Result<usize> {
        let mut taken = 0;
        let mut room = into.chunk_mut().len();
        loop {
            // Bytes are decrypted only when all before them are taken: rustls holds one record at most.
            while room > 0 {
                let mut reader = self.tls.reader();
                let len = match reader.fill_buf() {
                    Ok([]) => return Ok(taken),
                    Ok(plain) => {
                        let len = plain.len().min(room);
                        into.put_slice(&plain[..len]);
                        len
                    }
                    Err(_) => break,
                };
                reader.consume(len);
                room -= len;
                taken += len;
            }
            if room == 0 {
                return Ok(taken);
            }
            if self.start == self.end {
                if taken > 0 {
                    return Ok(taken);
                }
                let len = tcp.try_read(&mut self.raw)?;
                if len == 0 {
                    return Ok(0);
                }
                (self.start, self.end) = (0, len);
            }
            let mut bytes = &self.raw[self.start..self.end];
            self.tls.read_tls(&mut bytes)?;
            self.start = self.end - bytes.len();
            if let Err(error) = self.tls.process_new_packets() {
                let _ = self.try_flush(tcp);
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
        }
    }
}

/// Writes without waiting.
struct Unwaiting<'a>(&'a TcpStream);

impl Write for Unwaiting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reason in an error of TLS, and true if the other end gave it. Alerts have fewer words than errors: a
/// certificate that is not valid yet is told as an expired one, and a malformed one as one with another name.
pub(crate) fn refusal_of(error: &rustls::Error) -> (Refusal, bool) {
    let here = match error {
        rustls::Error::AlertReceived(alert) => {
            let there = match alert {
                AlertDescription::UnknownCA => Refusal::Authority,
                AlertDescription::CertificateExpired => Refusal::Expired,
                AlertDescription::BadCertificate => Refusal::Name,
                AlertDescription::CertificateRevoked => Refusal::Revoked,
                AlertDescription::CertificateRequired => Refusal::NoCertificate,
                AlertDescription::DecryptError
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::AccessDenied => Refusal::Certificate,
                _ => Refusal::Tls,
            };
            return (there, true);
        }
        rustls::Error::NoCertificatesPresented => Refusal::NoCertificate,
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => Refusal::Authority,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Refusal::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Refusal::NotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Refusal::Name
            }
            CertificateError::Revoked => Refusal::Revoked,
            _ => Refusal::Certificate,
        },
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Refusal::TlsWanted,
        _ => Refusal::Tls,
    };
    (here, false)
}
