//! Connections of a shard, on its own kind of executor: Unix socket, TCP, TLS with SCRAM, and refusals.

use std::fs;
use std::future::Future;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use daisi::config::plan::TlsPlan;
use glommio::LocalExecutorBuilder;
use loadtest::stack::{PostgresOptions, Stack};
use shards::edge::pg::connect::{ConnectError, PgTarget, connect, parse};
use tokio_postgres::Client;

const PASSWORD: &str = "hunter2-not-told";

fn on_executor<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    LocalExecutorBuilder::default().make().expect("an executor").run(future)
}

fn target(dsn: &str, ca_file: Option<&Path>) -> PgTarget {
    let plan = TlsPlan { ca_file: ca_file.map(Into::into), identity: None, first: false };
    PgTarget {
        config: parse(dsn).expect("a connection string"),
        tls: Arc::new(daisi::tls::client_config(&plan).expect("trust")),
        connect_timeout: Duration::from_secs(5),
    }
}

async fn open(target: &PgTarget) -> Result<Client, ConnectError> {
    let (client, driver) = connect(target).await?;
    glommio::spawn_local(driver).detach();
    Ok(client)
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.expect("an answer").get(0)
}

#[test]
fn a_shard_connects_by_socket_by_tcp_and_by_tls_with_a_password() {
    let stack = Stack::builder().postgres(PostgresOptions::default()).start().expect("it starts");
    let home = stack.folder().join("postgres");
    secure(&home.join("data"), &stack);
    let port = stack.postgres.port();
    let (ca, other) = (home.join("data/ca.pem"), home.join("data/other.pem"));
    let socket = format!("host={} port={port} user=postgres dbname=postgres", home.display());
    let plain = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable");
    // The first host does not listen.
    let secured = format!(
        "host=127.0.0.1,127.0.0.1 port=1,{port} user=app password={PASSWORD} dbname=postgres sslmode=verify-full"
    );
    on_executor(async move {
        let ssl =
            "SELECT coalesce(ssl::text, 'none') FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        for (dsn, is_secured) in [(&socket, "false"), (&plain, "false"), (&secured, "true")] {
            let client = open(&target(dsn, Some(&ca))).await.expect("it connects");
            assert_eq!(text(&client, ssl).await, is_secured, "{dsn}");
            // More than any buffer on the way, there and back, and several questions at once.
            let long = "x".repeat(8 << 20);
            let row =
                client.query_one("SELECT $1::text || 'y'", &[&long]).await.expect("an answer");
            assert_eq!(row.get::<_, &str>(0).len(), long.len() + 1);
            let (one, two) =
                futures_lite::future::zip(text(&client, "SELECT 'a'"), text(&client, "SELECT 'b'"))
                    .await;
            assert_eq!((one.as_str(), two.as_str()), ("a", "b"));
        }
        let told = |error: &ConnectError| {
            let told = format!("{error} {error:?}");
            assert!(!told.contains(PASSWORD), "{told}");
            told.to_lowercase()
        };
        let refused = |result: Result<Client, ConnectError>| match result {
            Ok(_) => panic!("it was let in"),
            Err(error) => told(&error),
        };
        assert!(refused(open(&target(&secured, Some(&other))).await).contains("certificate"));
        let wrong = secured.replace(PASSWORD, "wrong");
        assert!(refused(open(&target(&wrong, Some(&ca))).await).contains("password"));
        let unencrypted = secured.replace("verify-full", "disable");
        assert!(refused(open(&target(&unencrypted, Some(&ca))).await).contains("pg_hba"));
    });
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    on_executor(async move {
        let dsn = format!("host=127.0.0.1 port={port} user=u");
        let mut target = target(&dsn, None);
        target.connect_timeout = Duration::from_millis(200);
        let Err(error) = connect(&target).await else { panic!("nobody answered") };
        assert!(error.to_string().contains("no answer in time"), "{error}");
        target.config = parse("user=u").expect("a connection string");
        assert!(matches!(connect(&target).await, Err(ConnectError::NoHost)));
    });
}

/// Certificates, a role with a password that may come encrypted only, and a reload.
fn secure(data: &Path, stack: &Stack) {
    let script = r#"
set -e
for name in ca other; do
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
    -keyout $name.key -out $name.pem -subj "/CN=daisi test $name"
done
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
  -keyout server.key -out server.csr -subj "/CN=localhost"
printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n' > ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.pem
"#;
    let output =
        Command::new("sh").args(["-c", script]).current_dir(data).output().expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let owner = fs::metadata(data).expect("the data folder");
    for name in ["server.key", "server.pem"] {
        let file = data.join(name);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
        chown(&file, Some(owner.uid()), Some(owner.gid())).expect("its owner");
    }
    let rules = data.join("pg_hba.conf");
    let rest = fs::read_to_string(&rules).expect("the rules");
    let ours = "hostssl all app 127.0.0.1/32 scram-sha-256\nhost all app 127.0.0.1/32 reject\n";
    fs::write(&rules, format!("{ours}{rest}")).expect("new rules");
    for sql in [
        &format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'"),
        "ALTER SYSTEM SET ssl_cert_file = 'server.pem'",
        "ALTER SYSTEM SET ssl_key_file = 'server.key'",
        "ALTER SYSTEM SET ssl = on",
        "SELECT pg_reload_conf()",
    ] {
        stack.postgres.psql(sql).expect("psql");
    }
    // The reload is taken up by the postmaster a moment later.
    for _attempt in 0..100 {
        if stack.postgres.psql("SHOW ssl").expect("psql") == "on" {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("ssl was not switched on");
}
