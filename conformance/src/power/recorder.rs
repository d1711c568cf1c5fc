//! Watching processes write.

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

/// That a store on files can be watched here.
#[must_use]
pub fn claim() -> Claim {
    Claim::Claimed
}

/// Has the process that started this one watch it: for the child, before anything else.
pub fn be_watched() -> io::Result<()> {
    ptrace::traceme()?;
    Ok(raise(Signal::SIGSTOP)?)
}

/// Runs `command`, which calls [`be_watched`], to its end; blocks the thread. Records what it does
/// to the files, and what the running processes `servers` do to them meanwhile; these go on
/// unwatched afterwards, and die with a recording that fails. Calls that change files in ways that are
/// not understood here are an error: a recording has all, or there is none.
pub fn record(
    mut command: Command,
    files: &Files,
    servers: &[u32],
) -> Result<Recording, TargetError> {
    let files = Files { folder: files.folder.canonicalize()?, ..files.clone() };
    let mut watch = Watch::new(files);
    // Nobody writes while the files are read: a server stands still until the child runs.
    let mut held = Vec::new();
    for server in servers {
        held.extend(watch.seize(Pid::from_raw(i32::try_from(*server)?))?);
    }
    let before = Contents::read(&watch.files)?;
    watch.begun.clone_from(&watch.threads);
    watch.files_there = before.files.keys().cloned().collect();
    watch.folders_there.clone_from(&before.folders);
    for (thread, signal) in held {
        go_on(thread, signal)?;
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Its end would tell the child that nobody waits for it.
    let input = child.stdin.take();
    watch.main = Pid::from_raw(i32::try_from(child.id())?);
    watch.threads.insert(watch.main);
    let ended = watch.until_the_end();
    drop(input);
    if ended.as_ref().is_ok_and(|code| *code == 0) {
        watch.let_go()?;
        return Ok(Recording { before, events: watch.events });
    }
    // Whoever is watched dies with this thread's watch at the latest.
    let _ = child.kill();
    let mut said = String::new();
    if let Some(mut errors) = child.stderr.take() {
        let _ = errors.read_to_string(&mut said);
    }
    match ended {
        Ok(code) => Err(format!("a child that is watched ended with {code}: {said}").into()),
        Err(error) => Err(format!("watching a child: {error} {said}").into()),
    }
}

/// Of this thread's children and those it watches alone: others in this process have children of their
/// own.
const OURS: WaitPidFlag = WaitPidFlag::__WALL.union(WaitPidFlag::__WNOTHREAD);

fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL
}

/// Lets a thread run to its next stop.
fn go_on(thread: Pid, signal: Option<Signal>) -> nix::Result<()> {
    match ptrace::syscall(thread, signal) {
        // The process ends, and its threads before we see it.
        Err(Errno::ESRCH) => Ok(()),
        done => done,
    }
}

/// Waits until a thread that was seized stands between two calls, or has ended.
fn first_stop(thread: Pid) -> nix::Result<WaitStatus> {
    loop {
        match waitpid(thread, Some(OURS))? {
            stop @ WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_STOP) => return Ok(stop),
            // In the middle of a call, such as one that makes a thread.
            WaitStatus::PtraceEvent(..) => ptrace::cont(thread, None)?,
            other => return Ok(other),
        }
    }
}

/// The thread or process that another is making.
fn made_by(thread: Pid) -> Result<Pid, TargetError> {
    Ok(Pid::from_raw(i32::try_from(ptrace::getevent(thread)?)?))
}

struct Watch {
    /// The child, whose end is the end of the recording.
    main: Pid,
    files: Files,
    files_there: BTreeSet<String>,
    folders_there: BTreeSet<String>,
    /// The threads that are watched.
    threads: BTreeSet<Pid>,
    /// Those of them whose first stop was seen.
    begun: BTreeSet<Pid>,
    /// The calls that threads are in.
    entered: HashMap<Pid, Syscall>,
    /// The thread whose call changes files. One at a time: what is written beside a sync, or renamed
    /// beside a write, would be recorded in an order that it may not have had.
    changing: Option<Pid>,
    /// Those that wait for it.
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

    /// Stops every thread of a running process, between two calls. Returns them, each with the
    /// signal that it is about to be given.
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
            // A thread that runs may have made others meanwhile; one that is stopped makes none.
            if new.is_empty() {
                return Ok(stopped);
            }
            for thread in new {
                match ptrace::seize(thread, options()) {
                    // Made by a thread that is watched, and so watched itself: its first stop comes.
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
                        return Err(format!("a server that is watched: {ended:?}").into());
                    }
                    _ => drop(self.threads.remove(&thread)),
                }
            }
        }
    }

    /// Returns the exit code.
    fn until_the_end(&mut self) -> Result<i32, TargetError> {
        loop {
            let (thread, signal) = match waitpid(None, Some(OURS))? {
                WaitStatus::Exited(thread, code) if thread == self.main => {
                    self.gone(thread)?;
                    return Ok(code);
                }
                WaitStatus::Signaled(thread, signal, _) if thread == self.main => {
                    return Err(format!("it was killed by {signal}").into());
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
                    // Each thread of the child begins with a stop.
                    (thread, (!new || signal != Signal::SIGSTOP).then_some(signal))
                }
                WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) => {
                    self.gone(thread)?;
                    continue;
                }
                WaitStatus::Continued(_) | WaitStatus::StillAlive => continue,
            };
            go_on(thread, signal)?;
        }
    }

    /// Watches nobody any more: whoever still runs goes on by itself.
    fn let_go(&mut self) -> Result<(), TargetError> {
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

    /// A thread is at the entry of a call, or at its end. Returns whether it has to wait there.
    fn stopped(&mut self, thread: Pid) -> Result<bool, TargetError> {
        let now = match syscall::of(thread) {
            Err(Errno::ESRCH) => return Ok(false),
            now => now?,
        };
        let Some(entry) = self.entered.remove(&thread) else {
            self.entered.insert(thread, now);
            self.tells(thread, &now)?;
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

    /// What the child tells may be read at once, so it counts from here on.
    fn tells(&mut self, thread: Pid, call: &Syscall) -> Result<(), TargetError> {
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

    /// If this thread was changing files, it is the next one's turn.
    fn next(&mut self, thread: Pid) -> Result<(), TargetError> {
        if self.changing == Some(thread) {
            self.changing = self.waiting.pop_front();
            if let Some(next) = self.changing {
                go_on(next, None)?;
            }
        }
        Ok(())
    }

    fn changed(&mut self, change: Change) {
        self.events.push(Event::Change(change));
    }
}
