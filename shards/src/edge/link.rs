//! One TCP connection of a shard, with or without TLS. Invariants: a read takes what there is, a write
//! hands over what there is, neither waits; what could not be written stays in the caller's buffer.

use super::inbox::Inbox;
use super::tls::Tls;
use bytes::{Buf, BytesMut};
use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use rustls::ClientConfig;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// An open connection.
pub struct Link {
    stream: TcpStream,
    tls: Option<Tls>,
    securing: bool,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Bytes were appended to the inbox.
    Bytes,
    /// The TLS handshake is over.
    Secured,
}

impl Link {
    /// Connect to the first address of `host` that answers within `timeout`.
    ///
    /// # Errors
    /// No address, or none that answers; the last failure is told.
    pub async fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<Self> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in resolve(host, port).await? {
            match TcpStream::connect_timeout(address, timeout).await {
                Ok(stream) => {
                    // Two small writes without it cost 40 ms (delayed acks meet Nagle).
                    stream.set_nodelay(true)?;
                    return Ok(Self { stream, tls: None, securing: false });
                }
                Err(error) => failure = io::Error::other(format!("{address}: {error}")),
            }
        }
        Err(failure)
    }

    /// Begin TLS with the server called `name`.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub fn start_tls(&mut self, config: &Arc<ClientConfig>, name: &str) -> io::Result<()> {
        self.tls = Some(Tls::new(config, name)?);
        self.securing = true;
        Ok(())
    }

    /// Read once, through `scratch`, and append the plain bytes to `inbox`.
    ///
    /// # Errors
    /// The connection is over; an orderly close is [`io::ErrorKind::UnexpectedEof`].
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        inbox: &mut Inbox,
    ) -> Poll<io::Result<Received>> {
        loop {
            let size = ready!(Pin::new(&mut self.stream).poll_read(cx, scratch))?;
            if size == 0 {
                let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed");
                return Poll::Ready(Err(closed));
            }
            let Some(tls) = &mut self.tls else {
                inbox.extend(&scratch[..size]);
                return Poll::Ready(Ok(Received::Bytes));
            };
            let before = inbox.bytes.len();
            tls.receive(&scratch[..size], inbox)?;
            if self.securing && tls.is_secured() {
                self.securing = false;
                return Poll::Ready(Ok(Received::Secured));
            }
            if inbox.bytes.len() > before {
                return Poll::Ready(Ok(Received::Bytes));
            }
            // Handshake bytes only: their answers must go out before more can come.
            let _pending = self.poll_write(cx, &mut BytesMut::new())?;
        }
    }

    /// Write as much of `out` as the socket takes. Ready when everything was handed over.
    ///
    /// # Errors
    /// The connection is over.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut BytesMut) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.stream);
        let Some(tls) = &mut self.tls else { return write_all(stream, cx, out) };
        if !self.securing {
            tls.send(out)?; // During the handshake nothing of ours may go.
        }
        write_all(stream, cx, tls.cipher_out())
    }

    /// Are there encrypted bytes that the socket has not taken?
    pub fn has_output(&mut self) -> bool {
        self.tls.as_mut().is_some_and(|tls| !tls.cipher_out().is_empty())
    }
}

fn write_all(
    mut stream: Pin<&mut TcpStream>,
    cx: &mut Context<'_>,
    out: &mut BytesMut,
) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        let size = ready!(stream.as_mut().poll_write(cx, out))?;
        out.advance(size);
    }
    Poll::Ready(Ok(()))
}

// Name resolution blocks, so a name goes to the executor's helper thread; an address does not.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let host = host.to_owned();
    let lookup = move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
    glommio::executor().spawn_blocking(lookup).await
}
