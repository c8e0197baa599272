//! Routes of the control pages and their answers. Invariant: every answer but the index and `/metrics` is
//! JSON, errors too; nothing here changes the state of the process.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::oneshot;

use super::Board;
use super::ready::ReadyPage;
use super::view::{DependencyState, IngestSnapshot, ShardSnapshot, ShardStatus};

/// Prometheus text format, version 0.0.4: what the encoder of the `prometheus` crate writes.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "<!doctype html><title>daisi</title><h1>daisi</h1><ul>\
<li><a href=\"/metrics\">/metrics</a> counters and histograms, Prometheus text\
<li><a href=\"/health\">/health</a> 200 while the shards' loops turn\
<li><a href=\"/ready\">/ready</a> 200 while traffic may come, else 503 with the reasons\
<li><a href=\"/shards\">/shards</a> the condition of every shard</ul>\n";

/// Serves until told to stop. Requests under way then get no grace: they are scrapes, and are repeated.
///
/// # Errors
/// The listener cannot be used by this runtime, or fails.
pub async fn serve(
    listener: TcpListener,
    board: Arc<Board>,
    stopped: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let server = axum::serve(listener, router(board));
    tokio::select! {
        ended = server.into_future() => ended,
        _ = stopped => Ok(()),
    }
}

/// The routes over a board.
pub fn router(board: Arc<Board>) -> Router {
    Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/shards", get(shards))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(board)
}

async fn metrics(State(board): State<Arc<Board>>) -> Response {
    match board.metrics_page() {
        Ok(page) => ([(header::CONTENT_TYPE, METRICS_TYPE)], page).into_response(),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn health(State(board): State<Arc<Board>>) -> Response {
    let health = board.health();
    (status(health.stalled.is_empty()), Json(health)).into_response()
}

async fn ready(State(board): State<Arc<Board>>) -> Response {
    let readiness = board.readiness();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    (status(readiness.ready), Json(ReadyPage::new(readiness, now))).into_response()
}

async fn shards(State(board): State<Arc<Board>>) -> Json<Vec<ShardPage>> {
    let pages = board.statuses().into_iter().zip(board.snapshots()).map(ShardPage::from);
    Json(pages.collect())
}

async fn not_found(uri: Uri) -> Response {
    failure(StatusCode::NOT_FOUND, format!("no page {}; / lists them", uri.path()))
}

async fn wrong_method() -> Response {
    failure(StatusCode::METHOD_NOT_ALLOWED, "these pages are read with GET".to_owned())
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[derive(Serialize)]
struct Failure {
    error: String,
}

fn failure(status: StatusCode, error: String) -> Response {
    (status, Json(Failure { error })).into_response()
}

/// One shard in `/shards`. Field names are an interface: dashboards and scripts read them.
#[derive(Serialize)]
struct ShardPage {
    shard: usize,
    core: usize,
    heartbeat_age_ms: u64,
    companies: u64,
    partitions: Vec<u16>,
    in_flight: u64,
    lag_seconds: f64,
    pulled: u64,
    outcomes: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingest: Option<IngestPage>,
    dependencies: Vec<DependencyPage>,
}

/// The ingest stage of a shard.
#[derive(Serialize)]
struct IngestPage {
    pulled: u64,
    in_flight: u64,
    outcomes: BTreeMap<&'static str, u64>,
    connections: u64,
    /// Companies whose events cannot be written now, and why; some of them.
    held: Vec<HeldPage>,
}

#[derive(Serialize)]
struct HeldPage {
    company: String,
    cause: String,
}

#[derive(Serialize)]
struct DependencyPage {
    name: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    since_seconds: u64,
}

impl From<(ShardStatus, ShardSnapshot)> for ShardPage {
    fn from((status, snapshot): (ShardStatus, ShardSnapshot)) -> Self {
        let mut outcomes = BTreeMap::new();
        for event in &snapshot.events {
            *outcomes.entry(event.outcome.as_str()).or_default() += event.count;
        }
        let held = status.held.into_iter().map(|(company, cause)| HeldPage { company, cause });
        let ingest = snapshot.ingest.map(|ingest| {
            let mut outcomes = BTreeMap::new();
            for (_, outcome, count) in &ingest.events {
                *outcomes.entry(outcome.as_str()).or_default() += count;
            }
            let IngestSnapshot { pulled, in_flight, lanes: connections, .. } = ingest;
            IngestPage { pulled, in_flight, outcomes, connections, held: held.collect() }
        });
        let dependencies = status.dependencies.into_iter().map(|dependency| {
            let (state, cause) = match dependency.state {
                DependencyState::Up => ("up", None),
                DependencyState::Standby => ("standby", None),
                DependencyState::Starting(cause) => ("starting", Some(cause)),
                DependencyState::Down(cause) => ("down", Some(cause)),
            };
            DependencyPage {
                name: dependency.name,
                state,
                cause,
                since_seconds: dependency.since.as_secs(),
            }
        });
        Self {
            shard: status.shard,
            core: status.core,
            heartbeat_age_ms: u64::try_from(status.heartbeat_age.as_millis()).unwrap_or(u64::MAX),
            companies: status.companies,
            partitions: status.partitions,
            in_flight: status.in_flight,
            lag_seconds: status.lag.as_secs_f64(),
            pulled: snapshot.pulled,
            outcomes,
            ingest,
            dependencies: dependencies.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    use super::super::ControlServer;
    use super::super::ready::Phase;
    use super::super::view::{Dependency, ShardView};
    use super::*;
    use crate::config::plan::Plan;
    use crate::config::{Config, Sources};

    struct Fixed(DependencyState);

    impl ShardView for Fixed {
        fn snapshot(&self) -> ShardSnapshot {
            ShardSnapshot { pulled: 4, in_flight: 4, ..ShardSnapshot::default() }
        }

        fn status(&self) -> ShardStatus {
            let since = Duration::from_secs(3);
            ShardStatus {
                shard: 0,
                core: 1,
                heartbeat_age: Duration::from_millis(5),
                companies: 2,
                partitions: vec![0],
                in_flight: 4,
                lag: Duration::from_millis(250),
                held: Vec::new(),
                dependencies: vec![Dependency { name: "redis", state: self.0.clone(), since }],
            }
        }
    }

    fn start(state: DependencyState) -> (ControlServer, Arc<Board>) {
        let plan = Plan::try_from(Config::load(&Sources::default())).expect("defaults");
        let board = Arc::new(Board::new(&plan, vec![Box::new(Fixed(state))], Arc::default()));
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server =
            ControlServer::start(listen, None, Arc::clone(&board), None).expect("a free port");
        (server, board)
    }

    /// Status and body of one request.
    fn ask(server: &ControlServer, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(server.address()).expect("it listens");
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        // The one thing that no test can know.
        match body.split_once(r#""timestamp":""#) {
            Some((head, tail)) => {
                let (time, tail) = tail.split_once('"').expect("a quoted time");
                assert!(time.ends_with('Z') && time.len() == 20, "{time}");
                (status, format!("{head}\"timestamp\":\"T\"{tail}"))
            }
            None => (status, body.to_owned()),
        }
    }

    #[test]
    fn every_page_answers_in_its_form() {
        let (server, board) = start(DependencyState::Up);
        assert_eq!(
            ask(&server, "GET", "/ready"),
            (503, r#"{"status":"NOT_READY","details":{"process":"starting","timestamp":"T"},"ready":false,"phase":"starting","reasons":[{"what":"process","cause":"starting"}]}"#.into())
        );
        board.set_phase(Phase::Running);
        assert_eq!(
            ask(&server, "GET", "/ready"),
            (200, r#"{"status":"READY","details":{"timestamp":"T"},"ready":true,"phase":"running","reasons":[]}"#.into())
        );
        assert_eq!(
            ask(&server, "GET", "/health"),
            (200, r#"{"status":"ok","version":"0.1.0"}"#.into())
        );
        assert_eq!(
            ask(&server, "GET", "/shards").1,
            r#"[{"shard":0,"core":1,"heartbeat_age_ms":5,"companies":2,"partitions":[0],"in_flight":4,"lag_seconds":0.25,"pulled":4,"outcomes":{},"dependencies":[{"name":"redis","state":"up","since_seconds":3}]}]"#
        );
        let (status, page) = ask(&server, "GET", "/metrics");
        assert!(
            status == 200
                && page.contains("daisi_cdc_events_pulled_total{shard=\"0\",core=\"1\"} 4")
        );
        assert!(ask(&server, "GET", "/").1.contains("/metrics"));
        assert_eq!(
            ask(&server, "GET", "/x"),
            (404, r#"{"error":"no page /x; / lists them"}"#.into())
        );
        assert_eq!(
            ask(&server, "POST", "/ready"),
            (405, r#"{"error":"these pages are read with GET"}"#.into())
        );
    }

    #[test]
    fn a_lost_server_is_a_503_with_its_cause_and_no_reason_to_restart() {
        let (server, board) = start(DependencyState::Down("connection refused".into()));
        board.set_phase(Phase::Running);
        assert_eq!(
            ask(&server, "GET", "/ready"),
            (
                503,
                r#"{"status":"NOT_READY","details":{"redis":"down for 3 s: connection refused","timestamp":"T"},"ready":false,"phase":"running","reasons":[{"shard":0,"what":"redis","cause":"down for 3 s: connection refused"}]}"#.into()
            )
        );
        assert_eq!(ask(&server, "GET", "/health").0, 200);
    }

    #[test]
    fn a_port_in_use_is_an_error_at_start() {
        let (server, board) = start(DependencyState::Up);
        assert!(ControlServer::start(server.address(), None, board, None).is_err());
    }
}
