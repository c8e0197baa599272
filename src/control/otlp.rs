//! Spans of events to a collector: OTLP over HTTP, in protobuf. Runs on the control thread's runtime, and takes
//! from a bounded queue that shards only ever try to put into. Invariants: a collector that is away costs spans
//! and nothing else; memory is bounded by the queue and one batch; the end waits [`FLUSH_MAX`] at the most.
//! Source: OpenTelemetry protocol specification 1.x, OTLP/HTTP.

mod message;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use crossbeam_channel::{Receiver, Sender, bounded};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use shards::pipeline::Span;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::config::plan::{TelemetryPlan, TlsPlan};
use crate::tls;

/// Spans that wait for export, of all shards: some seconds of a sampled process, and 4 MiB.
const QUEUE_MAX: usize = 8192;
/// Spans of one request.
const BATCH_MAX: usize = 512;
/// How long spans gather.
const GATHER: Duration = Duration::from_secs(1);
/// Longest pause after attempts in vain; the first is [`GATHER`].
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Bound on one request.
const SEND_MAX: Duration = Duration::from_secs(5);
/// What the end of the process may wait for a collector: with the drain below what Kubernetes allows.
const FLUSH_MAX: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 64 * 1024;

/// What export has come to.
#[derive(Debug, Default)]
pub struct ExportFigures {
    /// Spans that the collector has.
    pub exported: AtomicU64,
    /// Spans that it refused for good, or that were left at the end.
    pub lost: AtomicU64,
    /// Requests in vain; their spans were sent again.
    pub failures: AtomicU64,
}

/// Takes spans to the collector.
pub struct Exporter {
    spans: Receiver<Span>,
    batch: Vec<Span>,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    uri: Uri,
    headers: HeaderMap,
    service: String,
    figures: Arc<ExportFigures>,
    is_away: bool,
}

/// What became of a request.
enum Answer {
    Taken { refused: u64 },
    Refused(String),
    Away(String),
}

impl Exporter {
    /// The exporter, and where shards put their spans; `None` without an endpoint.
    ///
    /// # Errors
    /// Endpoint, headers or TLS cannot be used.
    pub fn of(plan: &TelemetryPlan) -> Result<Option<(Self, Sender<Span>)>, String> {
        let Some(endpoint) = &plan.endpoint else { return Ok(None) };
        let uri = traces_uri(endpoint)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        for (name, value) in &plan.headers {
            let said = |error: &dyn std::fmt::Display| format!("telemetry.otlp_headers: {error}");
            let name = HeaderName::try_from(name.as_str()).map_err(|error| said(&error))?;
            let mut value = HeaderValue::try_from(value.expose()).map_err(|error| said(&error))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(SEND_MAX));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(&TlsPlan::default())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let (sender, spans) = bounded(QUEUE_MAX);
        let exporter = Self {
            spans,
            batch: Vec::with_capacity(BATCH_MAX),
            client: Client::builder(TokioExecutor::new()).build(connector),
            uri,
            headers,
            service: plan.service.clone(),
            figures: Arc::default(),
            is_away: false,
        };
        Ok(Some((exporter, sender)))
    }

    /// What it counts.
    #[must_use]
    pub fn figures(&self) -> Arc<ExportFigures> {
        Arc::clone(&self.figures)
    }

    /// Exports until told to stop, then what is left.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut pause = GATHER;
        loop {
            // A request that is cut off is sent again below: same spans, same ids.
            tokio::select! {
                went = async { sleep(pause).await; self.send_all().await } => {
                    pause = if went { GATHER } else { (2 * pause).min(PAUSE_MAX) };
                }
                _ = &mut stop => break,
            }
        }
        // False or late: either way what is left is counted below.
        let _flushed = timeout(FLUSH_MAX, self.send_all()).await;
        let left = self.batch.len() + self.spans.len();
        if left > 0 {
            self.figures.lost.fetch_add(left as u64, Relaxed);
            tracing::warn!(left, "spans are left behind: the collector does not take them");
        }
    }

    /// Everything that waits; false if the collector is away.
    async fn send_all(&mut self) -> bool {
        loop {
            let room = BATCH_MAX - self.batch.len();
            self.batch.extend(self.spans.try_iter().take(room));
            if self.batch.is_empty() {
                return true;
            }
            let count = self.batch.len() as u64;
            match self.send().await {
                Answer::Taken { refused } => {
                    let refused = refused.min(count);
                    self.figures.exported.fetch_add(count - refused, Relaxed);
                    self.figures.lost.fetch_add(refused, Relaxed);
                    if std::mem::take(&mut self.is_away) {
                        tracing::info!("the collector takes spans again");
                    }
                }
                Answer::Refused(why) => {
                    self.figures.lost.fetch_add(count, Relaxed);
                    tracing::warn!(why, count, "the collector refuses spans; they are dropped");
                }
                Answer::Away(why) => {
                    self.figures.failures.fetch_add(1, Relaxed);
                    if !std::mem::replace(&mut self.is_away, true) {
                        tracing::warn!(why, "spans cannot be exported; it is tried again");
                    }
                    return false;
                }
            }
            self.batch.clear();
        }
    }

    async fn send(&self) -> Answer {
        let mut request = Request::post(self.uri.clone());
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
        }
        let body = Body::from(message::encode(&self.batch, &self.service));
        let request = match request.body(body) {
            Ok(request) => request,
            Err(error) => return Answer::Refused(error.to_string()),
        };
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| described(&error))?;
            let status = answer.status();
            let body = axum::body::to_bytes(Body::new(answer.into_body()), ANSWER_MAX).await;
            Ok::<_, String>((status, body.unwrap_or_default()))
        };
        match timeout(SEND_MAX, exchange).await {
            Err(_) => Answer::Away(format!("no answer within {} s", SEND_MAX.as_secs())),
            Ok(Err(why)) => Answer::Away(why),
            Ok(Ok((status, body))) if status.is_success() => {
                Answer::Taken { refused: message::refused(&body) }
            }
            Ok(Ok((status, _))) if is_passing(status) => Answer::Away(format!("HTTP {status}")),
            Ok(Ok((status, _))) => Answer::Refused(format!("HTTP {status}")),
        }
    }
}

/// Statuses after which the same request may succeed: OTLP/HTTP, retryable response codes.
fn is_passing(status: StatusCode) -> bool {
    [429, 502, 503, 504].contains(&status.as_u16())
}

/// Cause by cause: the outer one says only that it failed.
fn described(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", described(source)),
        None => error.to_string(),
    }
}

/// A base address gets the path of the standard; one that ends with it stays as it is.
fn traces_uri(endpoint: &str) -> Result<Uri, String> {
    let base = endpoint.trim_end_matches('/');
    let whole =
        if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") };
    whole.parse().map_err(|error| format!("telemetry.otlp_endpoint {endpoint:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_standard_is_added_once() {
        for (endpoint, expected) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("https://collector/otlp/", "https://collector/otlp/v1/traces"),
            ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
        ] {
            assert_eq!(traces_uri(endpoint).expect("an address").to_string(), expected);
        }
    }

    #[test]
    fn only_passing_trouble_is_tried_again() {
        assert!(is_passing(StatusCode::SERVICE_UNAVAILABLE));
        assert!(is_passing(StatusCode::TOO_MANY_REQUESTS));
        assert!(!is_passing(StatusCode::BAD_REQUEST) && !is_passing(StatusCode::UNAUTHORIZED));
    }
}
