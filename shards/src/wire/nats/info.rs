//! The server's description of itself, sent first and again whenever it changes. Invariant: every field
//! has a default, unknown ones are ignored, so no server version fails to parse. Source: NATS client
//! protocol, INFO; servers 2.9 to 2.15.

use super::jetstream::ServerVersion;
use serde::Deserialize;

/// One INFO. It replaces the former one whole, `connect_urls` included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Unique id of this server process.
    pub server_id: String,
    /// Name from its configuration.
    pub server_name: String,
    /// Version as text; see [`Self::server_version`].
    pub version: String,
    /// Protocol level; 1 has asynchronous INFO.
    pub proto: i64,
    /// Whether HPUB and HMSG are spoken.
    pub headers: bool,
    /// Bytes of headers and payload a publish may have.
    pub max_payload: u64,
    /// Whether JetStream runs on this server.
    pub jetstream: bool,
    /// Whether CONNECT must carry credentials.
    pub auth_required: bool,
    /// Whether TLS is wanted. Still true inside a TLS-first connection: TLS is not started twice.
    pub tls_required: bool,
    /// Whether TLS is possible.
    pub tls_available: bool,
    /// Whether a client certificate is wanted.
    pub tls_verify: bool,
    /// To be signed with an NKey; new on every connection.
    pub nonce: Option<String>,
    /// Id of this connection on the server.
    pub client_id: u64,
    /// Our address as the server sees it.
    pub client_ip: String,
    /// Name of the cluster.
    pub cluster: Option<String>,
    /// JetStream domain.
    pub domain: Option<String>,
    /// Addresses of all servers of the cluster; the full list, this server included.
    pub connect_urls: Vec<String>,
    /// Lame duck: this server is about to close its connections.
    pub ldm: bool,
    /// JetStream API level, 2.12 and newer.
    pub api_lvl: u64,
    /// Second INFO of a handshake, with the limits of the account, 2.12 and newer.
    pub connect_info: bool,
}

impl Info {
    /// Parses the JSON of an INFO.
    ///
    /// # Errors
    /// The JSON parser's, if it is not an object or a known field has another type.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The version as numbers; `None` where it is not of the form `major.minor.patch`.
    #[must_use]
    pub fn server_version(&self) -> Option<ServerVersion> {
        ServerVersion::parse(&self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_ignored_and_absent_ones_default() {
        let json = br#"{"server_id":"X","version":"2.10.27","headers":true,"max_payload":1048576,
            "xkey":"a","nonce":"abc","connect_urls":["10.0.0.1:4222","10.0.0.2:4222"]}"#;
        let info = Info::parse(json).unwrap();
        assert_eq!(info.server_version(), ServerVersion::parse("2.10.27"));
        assert_eq!((info.max_payload, info.headers, info.ldm), (1 << 20, true, false));
        assert_eq!(info.nonce.as_deref(), Some("abc"));
        assert_eq!(info.connect_urls.len(), 2);
        assert_eq!(Info::parse(b"{}").unwrap(), Info::default());
        assert!(Info::parse(b"nonsense").is_err());
    }
}
