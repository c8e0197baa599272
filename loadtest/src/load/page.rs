//! The page `/metrics` of a load: one thread that answers one request after another. Invariant: it ends
//! with the load, whoever is connected.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::LoadError;
use crate::meter::Meter;

/// A scraper that says nothing for this long is let go: the next one waits behind it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The open page.
#[derive(Debug)]
pub(crate) struct Page {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Page {
    /// Opens it on all addresses: what scrapes it runs elsewhere.
    pub(crate) fn open(port: u16, meter: Arc<Meter>) -> Result<Self, LoadError> {
        let doing = format!("open the metrics port {port} (--metrics-port 0 does without)");
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        let listener = listener.map_err(LoadError::io(doing))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let serve = move || {
            for socket in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A scraper that goes away is its own loss.
                let _ = socket.and_then(|socket| answer(&socket, &meter));
            }
        };
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(serve);
        let thread = thread.map_err(LoadError::io("start the thread of the metrics page"))?;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Ok(Self { address, stop, thread: Some(thread) })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread from its accept.
        if TcpStream::connect_timeout(&self.address, PATIENCE).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn answer(socket: &TcpStream, meter: &Meter) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut request = String::new();
    let mut head = BufReader::new(io::Read::take(socket, 8 << 10));
    head.read_line(&mut request)?;
    // Unread headers would turn the close into a reset, and the answer with it.
    let mut line = String::new();
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match path.split('?').next() {
        Some("/metrics") => match meter.page() {
            Ok(page) => ("200 OK", page),
            Err(error) => ("500 Internal Server Error", format!("{error}\n")),
        },
        _ => ("404 Not Found", "there is /metrics\n".to_owned()),
    };
    let mut out = socket;
    write!(
        out,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    socket.shutdown(Shutdown::Write)
}
