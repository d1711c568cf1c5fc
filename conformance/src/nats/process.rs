//! Processes that do not outlive this one, however it ends.
//!
//! A shell beside us reads a pipe that only we hold. At its end, which comes when this process
//! does, also after SIGKILL, the shell kills what is on its list and removes what is to be removed.
//! Of the other ways, `PR_SET_PDEATHSIG` needs unsafe code and fires when the *thread* ends that
//! started the process, and a destructor does not run on SIGKILL.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Keeps a list, one `+ ITEM` or `- ITEM` a line; a number is a process, a path a directory.
/// Directories go after the processes that write into them.
const REAPER: &str = r#"
trap '' INT TERM HUP
set --
while read -r op item; do
  case $op in
    +) set -- "$@" "$item" ;;
    -) for kept do shift; [ "$kept" = "$item" ] || set -- "$@" "$kept"; done ;;
  esac
done
for item do case $item in [0-9]*) kill -KILL "$item" ;; esac; done
for item do case $item in /*) rm -rf -- "$item" || { sleep 1; rm -rf -- "$item"; } ;; esac; done
"#;

/// Waits until it is on the list, and ends where it stands when we die before that.
const LAUNCHER: &str = r#"read -r go && exec "$@" </dev/null"#;

static REAPER_PIPE: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Puts an item on the list.
pub(super) fn watch(item: &str) -> io::Result<()> {
    tell('+', item)
}

/// Takes an item off the list.
pub(super) fn unwatch(item: &str) {
    // A reaper that is gone has no list.
    let _ = tell('-', item);
}

fn tell(op: char, item: &str) -> io::Result<()> {
    let mut pipe = REAPER_PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = match &mut *pipe {
        Some(pipe) => pipe,
        none => {
            // In a group of its own: Ctrl-C is for us, and what we leave is for it.
            let mut reaper = Command::new("sh")
                .args(["-c", REAPER])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()?;
            let pipe = reaper.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
            none.insert(pipe)
        }
    };
    pipe.write_all(format!("{op} {item}\n").as_bytes())
}

/// A process of ours that runs. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pid: Pid,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `program` with its output appended to `log`.
    pub(super) fn start(program: &Path, args: &[&Path], log: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut child = Command::new("sh")
            .args(["-c", LAUNCHER, "sh"])
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let go = child.stdin.take();
        let pid = Pid::from_child(&child);
        let mut process = Self { child, pid, ended: None };
        watch(&process.item())?;
        go.ok_or(io::ErrorKind::BrokenPipe)?.write_all(b"go\n").inspect_err(|_| process.end())?;
        Ok(process)
    }

    fn item(&self) -> String {
        self.pid.as_raw_nonzero().to_string()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            // Off the list before it is reaped: from then on its number may be another's. One that
            // is taken off too early is still killed by whatever drops it.
            if let Some(status) = self.child.try_wait()? {
                unwatch(&self.item());
                self.ended = Some(status);
            }
        }
        Ok(self.ended)
    }

    /// Sends a signal, unless it ended.
    pub(super) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        match self.ended()? {
            Some(_) => Ok(()),
            None => Ok(kill_process(self.pid, signal)?),
        }
    }

    /// Waits until it ended; whether it did in time.
    pub(super) async fn wait(&mut self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        while self.ended()?.is_none() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(true)
    }

    /// Kills it and waits until it is gone.
    pub(super) fn end(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
            unwatch(&self.item());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
