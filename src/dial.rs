//! A blocking connection with a deadline on every step, plain or TLS: commands ask one question after another
//! and have no use for a ring. Invariant: no call waits longer than the timeout it was given.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use shards::wire::Step;

use crate::config::plan::{ServerAddress, TlsPlan};

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;
/// Most bytes held of an answer; ours are a few KiB.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// A connection, plain or TLS, and the bytes received and not yet decoded.
pub(crate) struct Link {
    stream: Stream,
    inbox: BytesMut,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// Between plain and TLS; never seen outside `upgrade`, unless that failed.
    Gone,
}

impl Link {
    /// Connects to the first address of the name that answers.
    pub(crate) fn connect(server: &ServerAddress, timeout: Duration) -> Result<Self, String> {
        let addresses = (server.host.as_str(), server.port).to_socket_addrs();
        let addresses = addresses.map_err(|error| format!("name not resolved: {error}"))?;
        let mut last = "name has no address".to_owned();
        for address in addresses {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    return Self::over(stream, timeout).map_err(|error| error.to_string());
                }
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        Err(last)
    }

    fn over(stream: TcpStream, timeout: Duration) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Stream::Plain(stream), inbox: BytesMut::new() })
    }

    /// Waits so long for each answer from now on.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) -> std::io::Result<()> {
        let stream = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref(),
            Stream::Gone => return Ok(()),
        };
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))
    }

    /// Goes on in TLS; the handshake itself happens with the first bytes.
    pub(crate) fn upgrade(&mut self, host: &str, plan: &TlsPlan) -> Result<(), String> {
        let config = crate::tls::client_config(plan)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let session =
            ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
        self.stream = match std::mem::replace(&mut self.stream, Stream::Gone) {
            Stream::Plain(stream) => Stream::Tls(Box::new(StreamOwned::new(session, stream))),
            other => other,
        };
        Ok(())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Stream::Gone => return Err("connection is gone".to_owned()),
        };
        sent.map_err(|error| error.to_string())
    }

    /// Reads until `decode` has one value.
    pub(crate) fn receive<T, E: std::fmt::Display>(
        &mut self,
        mut decode: impl FnMut(&mut BytesMut) -> Result<Step<T>, E>,
    ) -> Result<T, String> {
        let mut chunk = vec![0; READ_BYTES];
        loop {
            if let Step::Done(value) = decode(&mut self.inbox).map_err(|error| error.to_string())? {
                return Ok(value);
            }
            if self.inbox.len() > ANSWER_BYTES_MAX {
                return Err(format!("answer is longer than {ANSWER_BYTES_MAX} bytes"));
            }
            let size = match &mut self.stream {
                Stream::Plain(stream) => stream.read(&mut chunk),
                Stream::Tls(stream) => stream.read(&mut chunk),
                Stream::Gone => return Err("connection is gone".to_owned()),
            };
            match size {
                Ok(0) => return Err("server closed the connection".to_owned()),
                Ok(size) => self.inbox.extend_from_slice(&chunk[..size]),
                // A signal, which cuts short every read with a timeout.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err("no answer in time".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
