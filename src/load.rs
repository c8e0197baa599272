//! `daisi load`: the load test's generator as a command of this binary. What it does is `loadtest::load`; here
//! it is told which server the configuration names.

use loadtest::load::{self, LoadArgs, LoadError};
use shards::wire::nats::auth::Credentials;

use crate::cli::{Exit, Global};

/// Publishes or prints events until it is done or told to stop.
#[must_use]
pub fn main(global: &Global, args: &LoadArgs) -> Exit {
    match load::run(args, || configured_url(global)) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("daisi load: {error}");
            if matches!(error, LoadError::Usage(_)) { Exit::Usage } else { Exit::Failed }
        }
    }
}

/// The first configured server, as the plain client of the load test can reach it.
fn configured_url(global: &Global) -> Result<String, String> {
    let plan = global.plan().map_err(|_| "the configuration names no server; give --url")?;
    let server = plan.nats.servers.first().ok_or("no NATS server is configured; give --url")?;
    if server.tls || plan.nats.tls.is_wanted() {
        return Err("load speaks no TLS; give --url of a server that asks for none".to_owned());
    }
    let who = match server.credentials(&plan.nats.credentials).load()? {
        Credentials::None => String::new(),
        Credentials::UserPassword { user, password } => format!("{user}:{}@", password.expose()),
        Credentials::Token(token) => format!("{}@", token.expose()),
        Credentials::NKey { .. } | Credentials::Creds { .. } => {
            return Err("load signs no nonce; give --url with a password or token".to_owned());
        }
    };
    let host =
        if server.host.contains(':') { format!("[{}]", server.host) } else { server.host.clone() };
    Ok(format!("nats://{who}{host}:{}", server.port))
}
