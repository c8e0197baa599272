//! Who we are to a NATS server: credentials, NKey seeds, and the JSON of CONNECT. Invariant: no secret
//! shows in `Debug` or in an error. Sources: NATS client protocol, CONNECT; NATS NKeys; `.creds` files
//! as `nsc` writes them.

use super::info::Info;
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use ed25519_dalek::{Signer as _, SigningKey};
use serde::Serialize;
use std::fmt;

/// Text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text` from here on.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// How a connection proves who it is.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// The server asks nobody.
    #[default]
    None,
    /// Name and password.
    UserPassword {
        /// Name.
        user: String,
        /// Password.
        password: Secret,
    },
    /// A token all clients share.
    Token(Secret),
    /// A key whose public half the server knows.
    NKey {
        /// Private half.
        seed: NKeySeed,
    },
    /// A signed claim and the key it names.
    Creds {
        /// The claim as issued.
        jwt: Secret,
        /// Private half of the key.
        seed: NKeySeed,
    },
}

impl Credentials {
    /// Reads the text of a `.creds` file.
    ///
    /// # Errors
    /// [`AuthError::CredsBlock`] if one of its two blocks is missing; those of [`NKeySeed::parse`].
    pub fn from_creds(text: &str) -> Result<Self, AuthError> {
        let jwt = find_block(text, "NATS USER JWT")?;
        let seed = NKeySeed::parse(find_block(text, "USER NKEY SEED")?)?;
        Ok(Self::Creds { jwt: Secret::new(jwt), seed })
    }
}

/// Why credentials cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A block of a `.creds` file is not there or empty.
    #[error("credentials have no block {name:?}")]
    CredsBlock {
        /// Title of the block.
        name: &'static str,
    },
    /// A seed is not base32 of the right size.
    #[error("seed of {size} characters is not base32 of 36 bytes")]
    SeedEncoding {
        /// Characters found.
        size: usize,
    },
    /// A seed's checksum does not fit: a character is wrong.
    #[error("seed checksum is {actual:#06x}, its bytes give {expected:#06x}")]
    SeedChecksum {
        /// As its bytes give.
        expected: u16,
        /// As written in it.
        actual: u16,
    },
    /// A seed, but not one of a user.
    #[error("seed has prefix bytes {prefix:02x?}, not those of a user")]
    SeedKind {
        /// First two bytes.
        prefix: [u8; 2],
    },
    /// The server sent nothing to sign.
    #[error("server sent no nonce, so it does not know keys")]
    NonceMissing,
    /// The options could not be written as JSON.
    #[error("options of CONNECT are not valid JSON")]
    Json,
}

/// Private half of a user's key.
#[derive(Clone)]
pub struct NKeySeed(SigningKey);

/// `SU`: a seed, of a user.
const SEED_PREFIX_USER: [u8; 2] = [0x95, 0x00];
/// `U`: the public key of a user.
const PUBLIC_PREFIX_USER: u8 = 20 << 3;
const SEED_LEN: usize = 2 + 32 + 2;

impl NKeySeed {
    /// Reads a seed `SU...`: base32 of 2 prefix bytes, 32 seed bytes and a CRC-16, little-endian.
    ///
    /// # Errors
    /// [`AuthError`]: not base32 of 36 bytes, a wrong checksum, or not a user's.
    pub fn parse(text: &str) -> Result<Self, AuthError> {
        let text = text.trim();
        let encoding = AuthError::SeedEncoding { size: text.len() };
        let bytes = BASE32_NOPAD.decode(text.as_bytes()).map_err(|_| encoding)?;
        let bytes: [u8; SEED_LEN] = bytes.try_into().map_err(|_| encoding)?;
        let (body, crc) = bytes.split_at(SEED_LEN - 2);
        let (expected, actual) = (crc16(body), u16::from_le_bytes([crc[0], crc[1]]));
        if expected != actual {
            return Err(AuthError::SeedChecksum { expected, actual });
        }
        let prefix = [body[0], body[1]];
        if prefix != SEED_PREFIX_USER {
            return Err(AuthError::SeedKind { prefix });
        }
        let seed: [u8; 32] = body[2..].try_into().map_err(|_| encoding)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Public key `U...`.
    #[must_use]
    pub fn public(&self) -> String {
        let mut bytes = Vec::with_capacity(1 + 32 + 2);
        bytes.push(PUBLIC_PREFIX_USER);
        bytes.extend_from_slice(self.0.verifying_key().as_bytes());
        let crc = crc16(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        BASE32_NOPAD.encode(&bytes)
    }

    /// Signature over the bytes of the nonce's text, base64url without padding.
    #[must_use]
    pub fn sign(&self, nonce: &str) -> String {
        BASE64URL_NOPAD.encode(&self.0.sign(nonce.as_bytes()).to_bytes())
    }
}

impl fmt::Debug for NKeySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NKeySeed({})", self.public())
    }
}

/// What CONNECT says besides who we are.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Name shown by the server's monitoring, such as `daisi/shard-3`.
    pub name: String,
    /// Whether this connection is encrypted; must be true where the server asks for TLS.
    pub tls: bool,
    /// Whether our own publishes come back on our subscriptions.
    pub echo: bool,
}

/// JSON of CONNECT for the server that sent `info`. To be built anew for each connection: the nonce in
/// it is.
///
/// # Errors
/// [`AuthError::NonceMissing`] where a key must sign and the server sent no nonce.
pub fn connect_json(
    info: &Info,
    options: &ConnectOptions,
    credentials: &Credentials,
) -> Result<String, AuthError> {
    let mut connect = Connect {
        verbose: false,
        pedantic: false,
        tls_required: options.tls,
        name: &options.name,
        lang: "rust",
        version: env!("CARGO_PKG_VERSION"),
        protocol: 1,
        echo: options.echo,
        headers: true,
        no_responders: true,
        user: None,
        pass: None,
        auth_token: None,
        nkey: None,
        jwt: None,
        sig: None,
    };
    let sign = |seed: &NKeySeed| {
        info.nonce.as_deref().map(|nonce| seed.sign(nonce)).ok_or(AuthError::NonceMissing)
    };
    match credentials {
        Credentials::None => {}
        Credentials::UserPassword { user, password } => {
            (connect.user, connect.pass) = (Some(user.as_str()), Some(password.expose()));
        }
        Credentials::Token(token) => connect.auth_token = Some(token.expose()),
        Credentials::NKey { seed } => {
            (connect.nkey, connect.sig) = (Some(seed.public()), Some(sign(seed)?));
        }
        Credentials::Creds { jwt, seed } => {
            (connect.jwt, connect.sig) = (Some(jwt.expose()), Some(sign(seed)?));
        }
    }
    serde_json::to_string(&connect).map_err(|_| AuthError::Json)
}

/// `verbose` and `pedantic` are said because the server's defaults are true; `account` is never sent,
/// it is an authorization violation.
#[derive(Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    tls_required: bool,
    name: &'a str,
    lang: &'static str,
    version: &'static str,
    protocol: u8,
    echo: bool,
    headers: bool,
    no_responders: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

/// The line between `-----BEGIN <name>-----` and `------END <name>------`; the number of dashes varies.
fn find_block<'a>(text: &'a str, name: &'static str) -> Result<&'a str, AuthError> {
    let mut lines = text.lines().map(str::trim);
    let title = |line: &&str| {
        line.starts_with("---")
            && line.trim_matches('-').strip_prefix("BEGIN ").is_some_and(|found| found == name)
    };
    let missing = AuthError::CredsBlock { name };
    lines.find(title).ok_or(missing)?;
    let line = lines.find(|line| !line.is_empty()).ok_or(missing)?;
    if line.starts_with("---") { Err(missing) } else { Ok(line) }
}

/// CRC-16/XMODEM: polynomial 0x1021, start 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signature, Verifier as _};

    /// Pair of keys printed in the NATS documentation, "NKeys".
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

    fn options() -> ConnectOptions {
        ConnectOptions { name: "daisi/shard-3".into(), tls: false, echo: true }
    }

    fn json(info: &Info, credentials: &Credentials) -> serde_json::Value {
        serde_json::from_str(&connect_json(info, &options(), credentials).unwrap()).unwrap()
    }

    #[test]
    fn crc_is_the_published_check_value() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn documented_seed_gives_the_documented_public_key() {
        assert_eq!(NKeySeed::parse(SEED).unwrap().public(), PUBLIC);
    }

    #[test]
    fn a_seed_with_one_wrong_character_is_refused() {
        let wrong = SEED.replace("CSSL", "CSSM");
        assert!(matches!(NKeySeed::parse(&wrong), Err(AuthError::SeedChecksum { .. })));
        assert_eq!(NKeySeed::parse("SU1").err(), Some(AuthError::SeedEncoding { size: 3 }));
        assert!(matches!(NKeySeed::parse(PUBLIC), Err(AuthError::SeedEncoding { .. })));
    }

    #[test]
    fn nonce_is_signed_with_the_key_named() {
        let info = Info { nonce: Some("PXoWU7zWAMt75FY".into()), ..Info::default() };
        let seed = NKeySeed::parse(SEED).unwrap();
        let json = json(&info, &Credentials::NKey { seed: seed.clone() });
        assert_eq!(json["nkey"], PUBLIC);
        let signature = BASE64URL_NOPAD.decode(json["sig"].as_str().unwrap().as_bytes()).unwrap();
        let signature = Signature::from_slice(&signature).unwrap();
        seed.0.verifying_key().verify(b"PXoWU7zWAMt75FY", &signature).unwrap();
        assert!(json.get("user").is_none() && json.get("account").is_none());
    }

    #[test]
    fn creds_file_gives_claim_and_key() {
        let text = format!(
            "-----BEGIN NATS USER JWT-----\r\neyJ0eXAi.abc.def\r\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             -----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
        );
        let credentials = Credentials::from_creds(&text).unwrap();
        let info = Info { nonce: Some("n".into()), ..Info::default() };
        let json = json(&info, &credentials);
        assert_eq!(json["jwt"], "eyJ0eXAi.abc.def");
        assert!(json["sig"].is_string() && json.get("nkey").is_none());
        assert_eq!(
            Credentials::from_creds("-----BEGIN NATS USER JWT-----\nx\n").err(),
            Some(AuthError::CredsBlock { name: "USER NKEY SEED" })
        );
    }

    #[test]
    fn connect_says_what_servers_default_otherwise() {
        let json = json(&Info::default(), &Credentials::None);
        for (field, expected) in
            [("verbose", false), ("pedantic", false), ("headers", true), ("no_responders", true)]
        {
            assert_eq!(json[field], expected, "{field}");
        }
        assert_eq!(json["protocol"], 1);
        let seed = NKeySeed::parse(SEED).unwrap();
        assert_eq!(
            connect_json(&Info::default(), &options(), &Credentials::NKey { seed }).err(),
            Some(AuthError::NonceMissing)
        );
    }

    #[test]
    fn secrets_do_not_show() {
        let seed = NKeySeed::parse(SEED).unwrap();
        let all = format!(
            "{:?} {:?} {:?}",
            Credentials::UserPassword { user: "u".into(), password: Secret::new("hunter2") },
            Credentials::Token(Secret::new("hunter2")),
            Credentials::Creds { jwt: Secret::new("hunter2"), seed }
        );
        assert!(!all.contains("hunter2") && !all.contains(SEED), "{all}");
    }
}
