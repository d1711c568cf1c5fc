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
use std::process::{Child, ChildStdin, Command, Stdio};
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
    body: Body,
    pid: Pid,
    ended: Option<String>,
}

#[derive(Debug)]
enum Body {
    Child(Child),
    /// The engine's child rather than ours.
    #[cfg(feature = "docker")]
    Container(#[expect(dead_code, reason = "held for its destructor")] super::docker::Container),
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
        let process = Self { body: Body::Child(child), pid, ended: None };
        watch(&process.item())?;
        go.ok_or(io::ErrorKind::BrokenPipe)?.write_all(b"go\n")?;
        Ok(process)
    }

    /// The process `pid` of a container that shares our process numbers.
    #[cfg(feature = "docker")]
    pub(super) fn inside(container: super::docker::Container, pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        let process = Self { body: Body::Container(container), pid, ended: None };
        watch(&process.item())?;
        Ok(process)
    }

    fn item(&self) -> String {
        self.pid.as_raw_nonzero().to_string()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> io::Result<Option<&str>> {
        if self.ended.is_none() {
            let ended = match &mut self.body {
                Body::Child(child) => child.try_wait()?.map(|status| status.to_string()),
                #[cfg(feature = "docker")]
                Body::Container(_) => match rustix::process::test_kill_process(self.pid) {
                    Err(rustix::io::Errno::SRCH) => Some("its container ended".to_owned()),
                    Err(error) => return Err(error.into()),
                    Ok(()) => None,
                },
            };
            if ended.is_some() {
                // At once: its number may soon be another's.
                unwatch(&self.item());
                self.ended = ended;
            }
        }
        Ok(self.ended.as_deref())
    }

    /// Sends a signal, unless it ended.
    pub(super) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        match self.ended()? {
            Some(_) => Ok(()),
            None => Ok(kill_process(self.pid, signal)?),
        }
    }

    /// Sends SIGSTOP, and returns once it has stopped: until then its other threads go on.
    pub(super) fn pause(&mut self) -> io::Result<()> {
        use rustix::process::{WaitId, WaitIdOptions, waitid};

        self.signal(Signal::STOP)?;
        // Left to be reported again, so that whoever asks how it ended is told.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(self.pid), options) {
            // Not our child, but a container's.
            Ok(_) | Err(rustix::io::Errno::CHILD) => Ok(()),
            Err(error) => Err(error.into()),
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
    fn end(&mut self) {
        if self.ended.is_some() {
            return;
        }
        match &mut self.body {
            Body::Child(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            #[cfg(feature = "docker")]
            Body::Container(_) => {
                let _ = kill_process(self.pid, Signal::KILL);
                let deadline = Instant::now() + Duration::from_secs(10);
                while matches!(self.ended(), Ok(None)) && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
        unwatch(&self.item());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
