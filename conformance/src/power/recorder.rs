//! The recorder: traces processes with `ptrace`, and records what they do to files.

mod calls;
mod syscall;
mod thread;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs;
use std::io::{self, Read};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::recording::{Change, Event, Recording};
use super::{Contents, Files};
use crate::target::{Claim, TargetError};
use syscall::Syscall;
use thread::Thread;

/// Claims that system calls can be traced on this platform.
#[must_use]
pub fn claim() -> Claim {
    Claim::Claimed
}

/// Lets the parent process trace this one. The child calls this before anything else.
pub fn be_watched() -> io::Result<()> {
    ptrace::traceme()?;
    Ok(raise(Signal::SIGSTOP)?)
}

/// Runs `command` to its end, and records what it does to `files`. Blocks the thread.
///
/// The command must call [`be_watched`]. The running processes `servers` are recorded as long as
/// the command runs. Afterwards they run on untraced, but a recording that fails kills them.
///
/// # Errors
/// The command fails, or cannot be traced. It is also an error if a system call changes the files
/// in a way that the recorder does not understand: the recording would be incomplete.
pub fn record(
    mut command: Command,
    files: &Files,
    servers: &[u32],
) -> Result<Recording, TargetError> {
    let files = Files { folder: files.folder.canonicalize()?, ..files.clone() };
    let mut watch = Watch::new(files);
    // The servers stand still while the files are read, so that no write is missed or half read.
    let mut held = Vec::new();
    for server in servers {
        held.extend(watch.seize(Pid::from_raw(i32::try_from(*server)?))?);
    }
    let before = Contents::read(&watch.files)?;
    watch.begun.clone_from(&watch.threads);
    watch.files_there = before.files.keys().cloned().collect();
    watch.folders_there.clone_from(&before.folders);
    for (thread, signal) in held {
        resume(thread, signal)?;
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Keep the pipe open: the child exits when its standard input ends.
    let input = child.stdin.take();
    watch.main = Pid::from_raw(i32::try_from(child.id())?);
    watch.threads.insert(watch.main);
    let ended = watch.until_the_end();
    drop(input);
    if ended.as_ref().is_ok_and(|code| *code == 0) {
        watch.detach_all()?;
        return Ok(Recording { before, events: watch.events });
    }
    // The other traced processes are killed when this thread ends (`PTRACE_O_EXITKILL`).
    let _ = child.kill();
    let mut said = String::new();
    if let Some(mut errors) = child.stderr.take() {
        let _ = errors.read_to_string(&mut said);
    }
    match ended {
        Ok(code) => Err(format!("a traced child ended with code {code}: {said}").into()),
        Err(error) => Err(format!("tracing a child: {error} {said}").into()),
    }
}

/// Waits only for children and tracees of this thread: other threads have children of their own.
const OURS: WaitPidFlag = WaitPidFlag::__WALL.union(WaitPidFlag::__WNOTHREAD);

fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL
}

/// Resumes a thread until its next system call entry or exit, or its next other stop.
fn resume(thread: Pid, signal: Option<Signal>) -> nix::Result<()> {
    match ptrace::syscall(thread, signal) {
        // The thread is gone already, because its process is ending.
        Err(Errno::ESRCH) => Ok(()),
        done => done,
    }
}

/// Waits until a seized thread is stopped between two system calls, or has ended.
fn first_stop(thread: Pid) -> nix::Result<WaitStatus> {
    loop {
        match waitpid(thread, Some(OURS))? {
            stop @ WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_STOP) => return Ok(stop),
            // The thread is within a system call, such as `clone`.
            WaitStatus::PtraceEvent(..) => ptrace::cont(thread, None)?,
            other => return Ok(other),
        }
    }
}

/// The thread or process that this thread is creating.
fn made_by(thread: Pid) -> Result<Pid, TargetError> {
    Ok(Pid::from_raw(i32::try_from(ptrace::getevent(thread)?)?))
}

struct Watch {
    /// The child. The recording ends with it.
    main: Pid,
    files: Files,
    files_there: BTreeSet<String>,
    folders_there: BTreeSet<String>,
    /// The traced threads.
    threads: BTreeSet<Pid>,
    /// The traced threads whose first stop was seen.
    begun: BTreeSet<Pid>,
    /// The system call that each thread is in.
    entered: HashMap<Pid, Syscall>,
    /// The thread whose system call changes files. Only one thread at a time may do that: a write
    /// beside a sync, or a rename beside a write, could be recorded in the wrong order.
    changing: Option<Pid>,
    /// The threads that wait at the entry of a system call for `changing` to finish.
    waiting: VecDeque<Pid>,
    events: Vec<Event>,
}

impl Watch {
    fn new(files: Files) -> Self {
        Self {
            main: Pid::from_raw(0),
            files,
            files_there: BTreeSet::new(),
            folders_there: BTreeSet::new(),
            threads: BTreeSet::new(),
            begun: BTreeSet::new(),
            entered: HashMap::new(),
            changing: None,
            waiting: VecDeque::new(),
            events: Vec::new(),
        }
    }

    /// Starts to trace every thread of a running process, and stops it between two system calls.
    /// Returns the threads, each with the signal that is to be delivered to it, if there is one.
    fn seize(&mut self, process: Pid) -> Result<Vec<(Pid, Option<Signal>)>, TargetError> {
        let mut stopped = Vec::new();
        loop {
            let mut new = Vec::new();
            for entry in fs::read_dir(format!("/proc/{process}/task"))? {
                let name = entry?.file_name();
                let thread =
                    Pid::from_raw(name.to_str().ok_or("a thread without a number")?.parse()?);
                if self.threads.insert(thread) {
                    new.push(thread);
                }
            }
            // List the threads until none is new: one that still ran may have created others.
            if new.is_empty() {
                return Ok(stopped);
            }
            for thread in new {
                match ptrace::seize(thread, options()) {
                    // A thread that a traced one created is traced already; its first stop follows.
                    Err(Errno::EPERM) if !stopped.is_empty() => {}
                    Err(Errno::ESRCH) => {
                        self.threads.remove(&thread);
                        continue;
                    }
                    seized => {
                        seized?;
                        ptrace::interrupt(thread)?;
                    }
                }
                match first_stop(thread)? {
                    WaitStatus::Stopped(_, signal) => stopped.push((thread, Some(signal))),
                    WaitStatus::PtraceEvent(..) => stopped.push((thread, None)),
                    ended if thread == process => {
                        return Err(format!("a traced server has ended: {ended:?}").into());
                    }
                    _ => drop(self.threads.remove(&thread)),
                }
            }
        }
    }

    /// Records until the child ends, and returns its exit code.
    fn until_the_end(&mut self) -> Result<i32, TargetError> {
        loop {
            let (thread, signal) = match waitpid(None, Some(OURS))? {
                WaitStatus::Exited(thread, code) if thread == self.main => {
                    self.gone(thread)?;
                    return Ok(code);
                }
                WaitStatus::Signaled(thread, signal, _) if thread == self.main => {
                    return Err(format!("the child was killed by {signal}").into());
                }
                WaitStatus::PtraceSyscall(thread) => {
                    if self.stopped(thread)? {
                        continue;
                    }
                    (thread, None)
                }
                WaitStatus::PtraceEvent(
                    thread,
                    _,
                    libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK,
                ) => {
                    self.threads.insert(made_by(thread)?);
                    (thread, None)
                }
                WaitStatus::PtraceEvent(thread, ..) => {
                    self.begun.insert(thread);
                    (thread, None)
                }
                WaitStatus::Stopped(thread, signal) => {
                    let new = self.begun.insert(thread);
                    if new && thread == self.main {
                        ptrace::setoptions(thread, options())?;
                    }
                    // Each thread of the child begins with a `SIGSTOP`, which must not reach it.
                    (thread, (!new || signal != Signal::SIGSTOP).then_some(signal))
                }
                WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) => {
                    self.gone(thread)?;
                    continue;
                }
                WaitStatus::Continued(_) | WaitStatus::StillAlive => continue,
            };
            resume(thread, signal)?;
        }
    }

    /// Detaches from all threads: those that still run go on untraced.
    fn detach_all(&mut self) -> Result<(), TargetError> {
        let mut running = self.threads.clone();
        for thread in std::mem::take(&mut self.waiting) {
            ptrace::detach(thread, None)?;
            running.remove(&thread);
        }
        for thread in &running {
            match ptrace::interrupt(*thread) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        while !running.is_empty() {
            let (thread, signal) = match waitpid(None, Some(OURS))? {
                WaitStatus::PtraceEvent(thread, _, libc::PTRACE_EVENT_CLONE) => {
                    running.insert(made_by(thread)?);
                    (thread, None)
                }
                WaitStatus::PtraceSyscall(thread) | WaitStatus::PtraceEvent(thread, ..) => {
                    (thread, None)
                }
                WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
                WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) => {
                    running.remove(&thread);
                    continue;
                }
                WaitStatus::Continued(_) | WaitStatus::StillAlive => continue,
            };
            match ptrace::detach(thread, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
            running.remove(&thread);
        }
        Ok(())
    }

    /// Handles the stop of a thread at the entry or the exit of a system call. Returns whether the
    /// thread must wait there.
    fn stopped(&mut self, thread: Pid) -> Result<bool, TargetError> {
        let now = match syscall::of(thread) {
            Err(Errno::ESRCH) => return Ok(false),
            now => now?,
        };
        let Some(entry) = self.entered.remove(&thread) else {
            self.entered.insert(thread, now);
            self.record_output(thread, &now)?;
            if !self.may_change(thread, &now) {
                return Ok(false);
            }
            if self.changing.is_some() {
                self.waiting.push_back(thread);
                return Ok(true);
            }
            self.changing = Some(thread);
            return Ok(false);
        };
        if now.result >= 0 {
            self.ended(thread, &Syscall { result: now.result, ..entry })?;
        }
        self.next(thread)?;
        Ok(false)
    }

    /// Records a line that the child writes to its standard output. The line is recorded at the
    /// entry of the system call, since a reader may have the line before the exit.
    fn record_output(&mut self, thread: Pid, call: &Syscall) -> Result<(), TargetError> {
        let [fd, data, len, ..] = call.arguments;
        let thread = Thread(thread);
        if call.number == libc::SYS_write && fd == 1 && thread.process() == Some(self.main) {
            let line = String::from_utf8_lossy(&thread.memory(data, len)?).trim().to_owned();
            self.events.push(Event::Told(line));
        }
        Ok(())
    }

    fn gone(&mut self, thread: Pid) -> Result<(), TargetError> {
        self.threads.remove(&thread);
        self.begun.remove(&thread);
        self.entered.remove(&thread);
        self.waiting.retain(|waiting| *waiting != thread);
        self.next(thread)
    }

    /// If this thread was changing files, resumes the next thread that waits to do so.
    fn next(&mut self, thread: Pid) -> Result<(), TargetError> {
        if self.changing == Some(thread) {
            self.changing = self.waiting.pop_front();
            if let Some(next) = self.changing {
                resume(next, None)?;
            }
        }
        Ok(())
    }

    fn changed(&mut self, change: Change) {
        self.events.push(Event::Change(change));
    }
}
