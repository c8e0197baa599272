//! The thread that starts every server, and the folder that never outlives its process.
//! Invariant: whatever ends this process, SIGKILL included, ends its servers and removes its folder.
//!
//! Two guards, because either alone has a gap. `setpriv --pdeathsig` makes the kernel signal a server
//! when the *thread* that started it ends (prctl(2), `PR_SET_PDEATHSIG`), so one thread that lives as
//! long as the process starts them all; a process killed between fork and prctl slips through.
//! A shell outside our process group reads a pipe whose only writer is this process: at end of file
//! it ends whatever still works inside the folder, then removes the folder.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

struct Order {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

/// Starts `command` from the keeper thread.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static KEEPER: OnceLock<Sender<Order>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        // Never joined: it ends with the process, which is the point.
        drop(std::thread::Builder::new().name("stack-keeper".into()).spawn(move || {
            while let Ok(mut order) = inbox.recv() {
                // A caller that went away has no use for the answer.
                let _ = order.answer.send(order.command.spawn());
            }
        }));
        orders
    });
    let (answer, reply) = channel();
    let gone = || io::Error::other("the keeper thread could not be started");
    keeper.send(Order { command, answer }).map_err(|_| gone())?;
    reply.recv().map_err(|_| gone())?
}

/// A temporary folder removed by a watcher process, on drop or when this process is gone.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    watcher: Child,
}

/// `$1` is the folder. What works in it (its current directory lies there) is given two seconds to
/// follow its death signal, so that a PostgreSQL can take its shared memory with it, then killed.
const WATCHER: &str = r#"
trap '' HUP INT QUIT TERM
cat >/dev/null
tenants() { find /proc -maxdepth 2 -name cwd -lname "$1*" 2>/dev/null; }
round=0
while links=$(tenants "$1"); [ -n "$links" ] && [ $round -lt 100 ]; do
  round=$((round + 1))
  if [ $round -gt 40 ]; then
    for link in $links; do pid=${link#/proc/}; kill -9 "${pid%/cwd}" 2>/dev/null; done
  fi
  sleep 0.05
done
rm -rf -- "$1" || { sleep 0.5; rm -rf -- "$1"; }
"#;

impl Folder {
    /// Makes the folder under `parent` and starts its watcher.
    pub(super) fn create(parent: &Path) -> io::Result<Self> {
        let temporary = tempfile::Builder::new().prefix("daisi-stack-").tempdir_in(parent)?;
        // PostgreSQL runs as another user and must be able to walk through.
        std::fs::set_permissions(temporary.path(), PermissionsExt::from_mode(0o711))?;
        let watcher = Command::new("sh")
            .args(["-c", WATCHER, "stack-watcher"])
            .arg(temporary.path())
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { path: temporary.keep(), watcher })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        // Waiting makes "dropped" mean "gone"; a watcher someone killed leaves the folder, no more.
        let _ = self.watcher.wait();
    }
}
