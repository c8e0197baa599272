//! Names, streams and the pull consumer that peers and feed share. Both sides must agree on these, so
//! they stand here once. Stream settings follow the CDC contract §1.2 and §6.

use std::time::Duration;

use async_nats::jetstream::{
    self, Context,
    consumer::{self, AckPolicy, PullConsumer},
    stream,
};

/// Stream the change events wait in.
pub const SOURCE_STREAM: &str = "cdc_events_stream";
/// Subjects of [`SOURCE_STREAM`].
pub const SOURCE_SUBJECTS: &str = "cdc.*.*";
/// Stream that feeds the browsers.
pub const OUTPUT_STREAM: &str = "wa_stream";
/// Subjects of [`OUTPUT_STREAM`].
pub const OUTPUT_SUBJECTS: &str = "wa.>";
/// Stream of events nobody could use.
pub const DLQ_STREAM: &str = "dlq_stream";
/// Most events delivered and not yet acknowledged; contract §1.2.
pub const ACK_PENDING_MAX: i64 = 5000;
/// Time after which the server delivers an unacknowledged event again; contract §1.2.
pub const ACK_WAIT: Duration = Duration::from_secs(30);

/// Any failure of client or server. These programs stop at it, or retry it; they never match on it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Connects, and answers a JetStream context that keeps up to `inflight_max` publishes open.
///
/// # Errors
/// When the server does not answer.
pub async fn connect(url: &str, inflight_max: usize) -> Result<Context, Error> {
    let client = async_nats::ConnectOptions::new()
        .client_capacity(8192)
        .subscription_capacity(1 << 18)
        .connect(url)
        .await?;
    Ok(jetstream::ContextBuilder::new()
        .timeout(Duration::from_secs(5))
        .max_ack_inflight(inflight_max)
        .backpressure_on_inflight(true)
        .build(client))
}

/// Creates what is missing of source, output and dead-letter stream; leaves the rest as it is.
///
/// # Errors
/// When JetStream refuses.
pub async fn ensure_streams(context: &Context) -> Result<(), Error> {
    let day = Duration::from_secs(24 * 3600);
    for (name, subjects, max_age) in [
        (SOURCE_STREAM, SOURCE_SUBJECTS, 7 * day),
        (OUTPUT_STREAM, OUTPUT_SUBJECTS, day),
        (DLQ_STREAM, "v1.dlq.*", 7 * day),
    ] {
        context
            .get_or_create_stream(stream::Config {
                name: name.to_owned(),
                subjects: vec![subjects.to_owned()],
                max_age,
                max_bytes: 4 << 30,
                storage: stream::StorageType::File,
                duplicate_window: Duration::from_secs(120),
                ..stream::Config::default()
            })
            .await?;
    }
    Ok(())
}

/// The durable pull consumer of one program on [`SOURCE_STREAM`], explicit acks.
///
/// # Errors
/// When JetStream refuses.
pub async fn durable(context: &Context, name: &str) -> Result<PullConsumer, Error> {
    let source = context.get_stream(SOURCE_STREAM).await?;
    let config = consumer::pull::Config {
        durable_name: Some(name.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: ACK_PENDING_MAX,
        ..consumer::pull::Config::default()
    };
    Ok(source.get_or_create_consumer(name, config).await?)
}
