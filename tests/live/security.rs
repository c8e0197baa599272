//! Who daisi is to its servers: passwords, tokens, keys, TLS; and that a refusal is told with its reason
//! and without the secret (DESIGN.md section 6). A `.creds` file needs a server in operator mode: its
//! parsing and signing are held by the codec's own tests.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use loadtest::stack::{NatsAuth, NatsOptions, RedisOptions};
use shards::wire::nats::auth::NKeySeed;

use crate::change::message;
use crate::daisi::{Daisi, READY_MAX};
use crate::world::{OUTPUT, SOON, Server, World};

on_each_server!(
    a_password_a_token_and_a_key_open_nats,
    tls_is_spoken_to_a_server_that_we_can_check,
);

on_the_installed_server!(
    a_rotated_token_file_is_used_without_a_restart,
    a_refused_secret_is_a_reason_and_never_logged,
    a_redis_password_is_used,
);

const SECRET: &str = "hunter2-very-secret";

#[track_caller]
fn flows(world: &World, sets: &[(&str, &str)]) -> Daisi {
    let daisi = Daisi::spawn(world, sets);
    daisi.ready(READY_MAX);
    world.put(&[message("ACME", "M1", 1)]);
    daisi.settled(1, SOON);
    assert_eq!(world.count(OUTPUT), 1);
    assert!(!daisi.log().contains(SECRET), "the secret is in the log");
    a_command_comes_in(world, sets);
    daisi
}

/// A command has a session of its own kind, and the same configuration.
#[track_caller]
fn a_command_comes_in(world: &World, sets: &[(&str, &str)]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daisi"));
    let own = world.settings();
    let own = own.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in own.chain(sets.iter().copied()) {
        command.arg(format!("--set={key}={value}"));
    }
    let output = command.args(["dlq", "list"]).env_clear().output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("0 dead letters"), "{told}");
}

fn with_nats(server: Server, nats: NatsOptions) -> World {
    World::with(server, nats, RedisOptions::default())
}

fn a_password_a_token_and_a_key_open_nats(server: Server) {
    let auth = NatsAuth::User { user: "daisi".into(), password: SECRET.into() };
    let world = with_nats(server, NatsOptions { auth, ..NatsOptions::default() });
    // The address without the secret, which comes from a file.
    let file = world.new_folder("secret").join("password");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let bare = format!("nats://127.0.0.1:{}", world.stack.nats.port());
    let file = file.to_str().unwrap();
    let sets =
        [("nats.servers", bare.as_str()), ("nats.user", "daisi"), ("nats.password_file", file)];
    flows(&world, &sets);
    drop(world);

    let auth = NatsAuth::Token(SECRET.into());
    let world = with_nats(server, NatsOptions { auth, ..NatsOptions::default() });
    flows(&world, &[]);
    drop(world);

    let seed = new_seed();
    let public = NKeySeed::parse(&seed).unwrap().public();
    let users = format!("{{ nkey: {public} }}, {{ user: test, password: test }}");
    let config_extra = format!("authorization {{ users: [ {users} ] }}\n");
    let mut world = with_nats(server, NatsOptions { config_extra, ..NatsOptions::default() });
    world.login = "test:test@".to_owned();
    let file = world.new_folder("secret").join("seed.nk");
    std::fs::write(&file, &seed).unwrap();
    let daisi = flows(&world, &[("nats.nkey_seed_file", file.to_str().unwrap())]);
    assert!(!daisi.log().contains(&seed));
}

/// Whoever of the two changes first: the file, or the server.
fn a_rotated_token_file_is_used_without_a_restart(server: Server) {
    let token = |number: u32| NatsAuth::Token(format!("{SECRET}-{number}"));
    let mut world = with_nats(server, NatsOptions { auth: token(1), ..NatsOptions::default() });
    let file = world.new_folder("secret").join("token");
    let write = |number: u32| std::fs::write(&file, format!("{SECRET}-{number}\n")).unwrap();
    write(1);
    let bare = format!("nats://127.0.0.1:{}", world.stack.nats.port());
    let sets = [("nats.servers", bare.as_str()), ("nats.token_file", file.to_str().unwrap())];
    let daisi = flows(&world, &sets);

    write(2);
    world.stack.nats.stop();
    world.stack.nats.set_auth(token(2));
    world.stack.nats.start().unwrap();
    daisi.ready(READY_MAX);
    world.put(&[message("ACME", "M2", 2)]);
    assert_eq!(world.await_letters(OUTPUT, 2).len(), 2);

    world.stack.nats.stop();
    world.stack.nats.set_auth(token(3));
    world.stack.nats.start().unwrap();
    daisi.not_ready("Authorization Violation", SOON);
    write(3);
    daisi.ready(READY_MAX);
    world.put(&[message("ACME", "M3", 3)]);
    assert_eq!(world.await_letters(OUTPUT, 3).len(), 3);
    assert!(!daisi.log().contains(SECRET), "a secret is in the log");
}

// `SU...`: two prefix bytes, 32 bytes of chance, CRC-16/XMODEM, in base32 (nkeys, strkey.go).
fn new_seed() -> String {
    let mut bytes = vec![0x95, 0x00];
    bytes.extend((0..32).map(|_| fastrand::u8(..)));
    let crc = bytes.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    bytes.extend(crc.to_le_bytes());
    data_encoding::BASE32_NOPAD.encode(&bytes)
}

fn a_refused_secret_is_a_reason_and_never_logged(server: Server) {
    let auth = NatsAuth::User { user: "daisi".into(), password: "right".into() };
    let nats = NatsOptions { auth, ..NatsOptions::default() };
    let redis = RedisOptions { password: Some("right".into()), ..RedisOptions::default() };
    let world = World::with(server, nats, redis);
    let (nats_port, redis_port) = (world.stack.nats.port(), world.stack.redis.port());
    let wrong_nats = format!("nats://daisi:{SECRET}@127.0.0.1:{nats_port}");
    let wrong_redis = format!("redis://:{SECRET}@127.0.0.1:{redis_port}");
    let sets = [("nats.servers", wrong_nats.as_str()), ("redis.url", wrong_redis.as_str())];
    let daisi = Daisi::spawn(&world, &[sets[0], sets[1], ("log.level", "trace")]);
    daisi.not_ready("Authorization Violation", SOON);
    let body = daisi.not_ready("WRONGPASS", SOON);
    assert!(!body.contains(SECRET), "{body}");
    assert!(!daisi.get("/shards").1.contains(SECRET));
    assert!(!daisi.log().contains(SECRET), "the secret is in the log");
    assert_eq!(daisi.get("/health").0, 200);
}

fn a_redis_password_is_used(server: Server) {
    let redis = RedisOptions { password: Some(SECRET.into()), ..RedisOptions::default() };
    let world = World::with(server, NatsOptions::default(), redis);
    flows(&world, &[]);
}

fn tls_is_spoken_to_a_server_that_we_can_check(server: Server) {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let config_extra = format!(
        "allow_non_tls: true\ntls {{ cert_file: {:?}, key_file: {:?} }}\n",
        path("server.pem"),
        path("server.key")
    );
    // The test's own client speaks no TLS, so the server lets both in, and is asked who came how.
    let options = NatsOptions { config_extra, monitor: true, ..NatsOptions::default() };
    let world = with_nats(server, options);
    let address = format!("tls://127.0.0.1:{}", world.stack.nats.port());
    let trusting = [("nats.servers", address.as_str()), ("nats.tls.ca_file", &path("ca.pem"))];
    let daisi = flows(&world, &trusting);
    let connections = connections(&world);
    let ours: Vec<_> = connections
        .iter()
        .filter(|c| c["name"].as_str().is_some_and(|name| name.starts_with("daisi/")))
        .collect();
    assert!(!ours.is_empty());
    assert!(ours.iter().all(|c| c["tls_version"] == "1.3"), "{connections:#?}");
    drop(daisi);
    // Nobody that we trust vouches for the server.
    let stranger = Daisi::spawn(
        &world,
        &[("nats.servers", &address), ("nats.tls.ca_file", &path("other.pem"))],
    );
    let body = stranger.not_ready("certificate", SOON);
    assert!(body.contains("\"nats\""), "{body}");
}

fn connections(world: &World) -> Vec<serde_json::Value> {
    let url = world.stack.nats.monitor_url().unwrap();
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /connz HTTP/1.0\r\nhost: nats\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let page: serde_json::Value = serde_json::from_str(body).unwrap();
    page["connections"].as_array().unwrap().clone()
}

// An authority, another one, and a certificate of 127.0.0.1 from the first.
fn certificates(folder: &Path) {
    let script = r#"
set -e
for name in ca other; do
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
    -keyout $name.key -out $name.pem -subj "/CN=daisi test $name"
done
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
  -keyout server.key -out server.csr -subj "/CN=localhost"
printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n' > ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
  -extfile ext -out server.pem
"#;
    let output = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
