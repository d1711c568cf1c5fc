//! Child processes that do not outlive this process, however it ends.
//!
//! A shell, the reaper, reads a pipe that only this process holds. The pipe ends when this process
//! does, even by SIGKILL. Then the shell kills the processes on its list, and removes the
//! directories on it. Other means do not suffice: `PR_SET_PDEATHSIG` needs unsafe code and fires
//! when the *thread* that started the child ends, and a destructor does not run on SIGKILL.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The reaper reads lines `+ ITEM` and `- ITEM`, and keeps the list of items: a number is a
/// process, a path a directory. Directories are removed after the processes that write into them
/// are killed.
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

/// Runs a program once its process is on the list. If this process ends before that, the launcher
/// ends without running it.
const LAUNCHER: &str = r#"read -r go && exec "$@" </dev/null"#;

static REAPER_PIPE: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Puts an item on the list.
pub(super) fn watch(item: &str) -> io::Result<()> {
    tell('+', item)
}

/// Takes an item off the list.
pub(super) fn unwatch(item: &str) {
    // An error means that the reaper has ended, together with its list.
    let _ = tell('-', item);
}

fn tell(op: char, item: &str) -> io::Result<()> {
    let mut pipe = REAPER_PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = match &mut *pipe {
        Some(pipe) => pipe,
        none => {
            // The reaper is in a process group of its own. Ctrl-C must end this process, but the
            // reaper must live on to clean up.
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

/// A running child process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    body: Body,
    pid: Pid,
    ended: Option<String>,
}

#[derive(Debug)]
enum Body {
    Child(Child),
    /// A child of the container engine rather than of this process.
    #[cfg(feature = "docker")]
    Container(#[expect(dead_code, reason = "held for its destructor")] super::docker::Container),
}

impl Process {
    /// Starts `program`, and appends its output to `log`.
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

    /// The process `pid` of a container that shares this machine's process ids.
    #[cfg(feature = "docker")]
    pub(super) fn inside(container: super::docker::Container, pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        let process = Self { body: Body::Container(container), pid, ended: None };
        watch(&process.item())?;
        Ok(process)
    }

    pub(super) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    fn item(&self) -> String {
        self.pid.as_raw_nonzero().to_string()
    }

    /// How the process ended; `None` while it runs.
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
                // The process is taken off the list at once, since another process may soon get its
                // id.
                unwatch(&self.item());
                self.ended = ended;
            }
        }
        Ok(self.ended.as_deref())
    }

    /// Sends a signal, unless the process has ended.
    pub(super) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        match self.ended()? {
            Some(_) => Ok(()),
            None => Ok(kill_process(self.pid, signal)?),
        }
    }

    /// Sends SIGSTOP, and returns once the process has stopped. Until then some of its threads run
    /// on.
    pub(super) fn pause(&mut self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        wait_stopped(self.pid)
    }

    /// Waits until the process has ended. Returns whether it ended in time.
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

    /// Kills the process, and waits until it is gone.
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

/// Waits until a process that was sent SIGSTOP has stopped, or ended.
fn wait_stopped(pid: Pid) -> io::Result<()> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    // NOWAIT leaves the status to be reported again, so that `ended` still finds it.
    let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    match waitid(WaitId::Pid(pid), options) {
        Ok(_) => return Ok(()),
        // The process of a container is not our child, so no status is reported, and its state must
        // be looked up.
        Err(rustix::io::Errno::CHILD) => {}
        Err(error) => return Err(error.into()),
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_stopped(pid)? {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not stop"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether all of its threads are stopped or have ended.
fn is_stopped(pid: Pid) -> io::Result<bool> {
    let tasks = match std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        tasks => tasks?,
    };
    for task in tasks {
        // A thread that has ended does not run. In the file the state follows the thread's name,
        // which is in parentheses.
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else { continue };
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('T' | 't' | 'Z' | 'X')) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    /// Like a server in a container, this process has another parent.
    #[test]
    fn what_is_not_our_child_has_stopped_too_when_that_is_said() {
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'while :; do :; done' & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        let stopped: Vec<bool> = (0..50)
            .map(|_| {
                kill_process(pid, Signal::STOP).unwrap();
                wait_stopped(pid).unwrap();
                let stopped = is_stopped(pid).unwrap();
                kill_process(pid, Signal::CONT).unwrap();
                stopped
            })
            .collect();
        kill_process(pid, Signal::KILL).unwrap();
        shell.wait().unwrap();
        assert!(stopped.iter().all(|stopped| *stopped), "{stopped:?}");
    }
}
