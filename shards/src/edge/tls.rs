//! TLS over bytes: a rustls connection and the buffers round it. Sans-IO, like everything it serves.

use super::inbox::Inbox;
use bytes::{Buf, BytesMut};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// One TLS session.
pub struct Tls {
    session: ClientConnection,
    cipher_out: BytesMut,
}

impl Tls {
    /// A session with the server called `name` in its certificate.
    ///
    /// # Errors
    /// The name is no DNS name and no address, or the configuration does not fit.
    pub fn new(config: &Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut tls = Self { session, cipher_out: BytesMut::with_capacity(32 * 1024) };
        tls.collect()?;
        Ok(tls)
    }

    /// Is the handshake over?
    #[must_use]
    pub fn is_secured(&self) -> bool {
        !self.session.is_handshaking()
    }

    /// Bytes of the socket came: append what they decrypt to.
    ///
    /// # Errors
    /// The peer broke the protocol, or its certificate is not accepted.
    pub fn receive(&mut self, mut cipher: &[u8], plain: &mut Inbox) -> io::Result<()> {
        while !cipher.is_empty() {
            self.session.read_tls(&mut cipher)?;
            self.session
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.drain_plain(plain)?;
        }
        self.collect() // Handshake answers, key updates, alerts.
    }

    /// Encrypt all of `plain`.
    ///
    /// # Errors
    /// The session is broken.
    pub fn send(&mut self, plain: &mut BytesMut) -> io::Result<()> {
        while !plain.is_empty() {
            let taken = self.session.writer().write(plain)?;
            plain.advance(taken);
            self.collect()?;
        }
        Ok(())
    }

    /// Bytes for the socket.
    pub fn cipher_out(&mut self) -> &mut BytesMut {
        &mut self.cipher_out
    }

    fn drain_plain(&mut self, plain: &mut Inbox) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        loop {
            match self.session.reader().read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(size) => plain.extend(&piece[..size]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn collect(&mut self) -> io::Result<()> {
        let mut piece = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut piece)?;
        }
        self.cipher_out.extend_from_slice(&piece);
        Ok(())
    }
}
