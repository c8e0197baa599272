//! Streams as tokio-postgres wants them: the two IO traits of tokio over a socket of ours, and TLS over any
//! such stream. No runtime of tokio is involved. Invariant: what TLS has encrypted is handed to the socket
//! before more is taken, up to a bound.
//!
//! The connectors that exist for rustls want a stream that may move between threads; ours must not.

use super::super::inbox::Inbox;
use super::super::tls::Tls;
use bytes::{Buf, BytesMut};
use futures_lite::{AsyncRead as _, AsyncWrite as _};
use rustls::ClientConfig;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// Encrypted bytes that may wait for the socket.
const CIPHER_BYTES_MAX: usize = 256 * 1024;

/// A socket of the executor.
pub(super) enum Socket {
    Tcp(glommio::net::TcpStream),
    Unix(glommio::net::UnixStream),
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.initialize_unfilled();
        let size = ready!(match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, room),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, room),
        })?;
        buffer.advance(size);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_close(cx),
            Self::Unix(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}

/// Makes TLS sessions with the server called `name`.
#[derive(Clone)]
pub struct PgTls {
    config: Arc<ClientConfig>,
    name: String,
}

impl PgTls {
    /// With that trust and identity; `name` is what the certificate must bear.
    #[must_use]
    pub fn new(config: Arc<ClientConfig>, name: &str) -> Self {
        Self { config, name: name.to_owned() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> TlsConnect<S> for PgTls {
    type Stream = Secured<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured<S>>>>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let tls = Tls::new(&self.config, &self.name)?;
            let mut secured = Secured {
                stream,
                tls,
                inbox: Inbox::new(2 * READ_BYTES),
                scratch: vec![0; READ_BYTES].into_boxed_slice(),
                plain: BytesMut::new(),
            };
            poll_fn(|cx| secured.poll_handshake(cx)).await?;
            Ok(secured)
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> MakeTlsConnect<S> for PgTls {
    type Stream = Secured<S>;
    type TlsConnect = Self;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Self> {
        Ok(Self::new(Arc::clone(&self.config), domain))
    }
}

/// TLS over a stream.
pub struct Secured<S> {
    stream: S,
    tls: Tls,
    inbox: Inbox,
    scratch: Box<[u8]>,
    plain: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Secured<S> {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_drain(cx))?;
            if self.tls.is_secured() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads once and decrypts; 0 at the end of the stream. The peer's alert, if it sent one, is the error.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(&mut self.scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let size = buffer.filled().len();
        let received = self.tls.receive(&self.scratch[..size], &mut self.inbox);
        Poll::Ready(received.map(|()| size))
    }

    /// Hands everything that is encrypted to the socket.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.tls.cipher_out().is_empty() {
            let size = ready!(Pin::new(&mut self.stream).poll_write(cx, self.tls.cipher_out()))?;
            if size == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.tls.cipher_out().advance(size);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.inbox.bytes.is_empty() {
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
            // Key updates and alerts are answered; whether the socket takes them now does not matter here.
            let _pending = self.poll_drain(cx)?;
        }
        let size = self.inbox.bytes.len().min(buffer.remaining());
        buffer.put_slice(&self.inbox.bytes[..size]);
        self.inbox.bytes.advance(size);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.tls.cipher_out().len() >= CIPHER_BYTES_MAX {
            ready!(this.poll_drain(cx))?;
        }
        let size = bytes.len().min(CIPHER_BYTES_MAX);
        this.plain.extend_from_slice(&bytes[..size]);
        this.tls.send(&mut this.plain)?;
        Poll::Ready(Ok(size))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_drain(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Secured<S> {
    /// None: SCRAM works without, and the certificate is verified.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}
