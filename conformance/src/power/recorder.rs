//! Watching a process write.

mod syscall;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::Files;
use super::disk::Contents;
use super::recording::{Change, Event, Recording};
use crate::target::{Claim, TargetError};
use syscall::Syscall;

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

/// Runs `command`, which calls [`be_watched`], to its end; blocks the thread. Calls that change
/// files in ways that are not understood here are an error: a recording has all, or there is none.
pub fn record(mut command: Command, files: &Files) -> Result<Recording, TargetError> {
    let files = Files { folder: files.folder.canonicalize()?, ..files.clone() };
    let before = contents(&files)?;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Its end would tell the child that nobody waits for it.
    let input = child.stdin.take();
    let main = Pid::from_raw(i32::try_from(child.id())?);
    let names = before.keys().cloned().collect();
    let mut watch = Watch { main, files, names, entered: HashMap::new(), events: Vec::new() };
    let ended = watch.until_the_end();
    drop(input);
    if ended.as_ref().is_ok_and(|code| *code == 0) {
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

fn contents(files: &Files) -> Result<Contents, TargetError> {
    let mut contents = Contents::new();
    for entry in fs::read_dir(&files.folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|_| "a file's name is no UTF-8")?;
        if !entry.file_type()?.is_file() {
            return Err(format!("{name} is no file: folders in it are not understood").into());
        }
        if !files.is_scratch(&name) {
            contents.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(contents)
}

/// What a register holds of an `int`.
const HALF: u64 = 0xffff_ffff;

fn has(flags: u64, flag: i32) -> bool {
    flags & u64::from(flag.unsigned_abs()) != 0
}

struct Watch {
    main: Pid,
    files: Files,
    /// The files there are.
    names: BTreeSet<String>,
    /// The calls that threads are in.
    entered: HashMap<Pid, Syscall>,
    events: Vec<Event>,
}

impl Watch {
    /// Returns the exit code.
    fn until_the_end(&mut self) -> Result<i32, TargetError> {
        // Of this thread's children alone: others in this process have children of their own.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let mut known = BTreeSet::new();
        loop {
            let (thread, signal) = match waitpid(None, Some(flags))? {
                WaitStatus::Exited(thread, code) if thread == self.main => return Ok(code),
                WaitStatus::Signaled(thread, signal, _) if thread == self.main => {
                    return Err(format!("it was killed by {signal}").into());
                }
                WaitStatus::PtraceSyscall(thread) => {
                    self.stopped(thread)?;
                    (thread, None)
                }
                WaitStatus::PtraceEvent(thread, ..) => (thread, None),
                WaitStatus::Stopped(thread, signal) => {
                    let new = known.insert(thread);
                    if new && thread == self.main {
                        let options = Options::PTRACE_O_TRACESYSGOOD
                            | Options::PTRACE_O_TRACECLONE
                            | Options::PTRACE_O_EXITKILL;
                        ptrace::setoptions(thread, options)?;
                    }
                    // Each thread begins with a stop.
                    (thread, (!new || signal != Signal::SIGSTOP).then_some(signal))
                }
                WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) => {
                    self.entered.remove(&thread);
                    continue;
                }
                WaitStatus::Continued(_) | WaitStatus::StillAlive => continue,
            };
            match ptrace::syscall(thread, signal) {
                // The process ends, and its threads before we see it.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A thread is at the entry of a call, or at its end.
    fn stopped(&mut self, thread: Pid) -> Result<(), TargetError> {
        let now = match syscall::of(thread) {
            Err(Errno::ESRCH) => return Ok(()),
            now => now?,
        };
        let Some(entry) = self.entered.remove(&thread) else {
            self.entered.insert(thread, now);
            // What is told may be read at once, so it counts from here on.
            let [fd, data, len, ..] = now.arguments;
            if now.number == libc::SYS_write && fd == 1 {
                let line = String::from_utf8_lossy(&self.memory(data, len)?).trim().to_owned();
                self.events.push(Event::Told(line));
            }
            return Ok(());
        };
        if now.result < 0 {
            return Ok(());
        }
        let ended = Syscall { result: now.result, ..entry };
        self.ended(&ended)
    }

    fn ended(&mut self, call: &Syscall) -> Result<(), TargetError> {
        let [first, second, third, fourth, ..] = call.arguments;
        let count = call.result.unsigned_abs();
        match call.number {
            libc::SYS_openat => self.opened(call, third)?,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => self.opened(call, second)?,
            libc::SYS_write => {
                if let Some(name) = self.file(first)? {
                    let end = self.position(first)?;
                    self.wrote(name, end - count, second, count)?;
                }
            }
            libc::SYS_pwrite64 => {
                if let Some(name) = self.file(first)? {
                    self.wrote(name, fourth, second, count)?;
                }
            }
            libc::SYS_ftruncate => {
                if let Some(name) = self.file(first)? {
                    self.changed(Change::Resize(name, usize::try_from(second)?));
                }
            }
            libc::SYS_fsync | libc::SYS_fdatasync => {
                if self.target(first).is_some_and(|target| target == self.files.folder) {
                    self.changed(Change::SyncFolder);
                } else if let Some(name) = self.file(first)? {
                    self.changed(Change::Sync(name));
                }
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_unlink => self.removed(None, first)?,
            libc::SYS_unlinkat => self.removed(Some(first), second)?,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => self.renamed((None, first), (None, second))?,
            libc::SYS_renameat | libc::SYS_renameat2 => {
                self.renamed((Some(first), second), (Some(third), fourth))?;
            }
            libc::SYS_mmap => {
                let writes = has(third, libc::PROT_WRITE);
                let shared = has(fourth, libc::MAP_SHARED);
                let fd = call.arguments[4];
                if writes && shared && fd < u64::from(u32::MAX) {
                    self.refuse(fd, "through memory")?;
                }
            }
            libc::SYS_writev
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_fallocate
            | libc::SYS_sync_file_range
            | libc::SYS_sendfile => self.refuse(first, "by a call that is not understood")?,
            libc::SYS_copy_file_range | libc::SYS_splice => {
                self.refuse(third, "by a call that is not understood")?;
            }
            libc::SYS_truncate => self.refuse_named((None, first), "cut by its path")?,
            libc::SYS_mkdirat => self.refuse_named((Some(first), second), "a folder")?,
            libc::SYS_linkat => self.refuse_named((Some(third), fourth), "a second name")?,
            libc::SYS_io_uring_setup => {
                return Err("it writes by io_uring, which is not understood".into());
            }
            _ => {}
        }
        Ok(())
    }

    fn opened(&mut self, call: &Syscall, flags: u64) -> Result<(), TargetError> {
        let fd = call.result.unsigned_abs();
        let Some(name) = self.file(fd)? else { return Ok(()) };
        if has(flags, libc::O_DSYNC) {
            self.refuse(fd, "with every write synced, which is not understood")?;
        }
        if !self.names.contains(&name) {
            self.names.insert(name.clone());
            self.changed(Change::Make(name));
        } else if has(flags, libc::O_TRUNC) {
            self.changed(Change::Resize(name, 0));
        }
        Ok(())
    }

    fn wrote(&mut self, name: String, offset: u64, at: u64, len: u64) -> Result<(), TargetError> {
        let bytes = self.memory(at, len)?;
        self.changed(Change::Write { name, offset: usize::try_from(offset)?, bytes });
        Ok(())
    }

    fn removed(&mut self, from: Option<u64>, path: u64) -> Result<(), TargetError> {
        if let Some(name) = self.named((from, path))? {
            self.names.remove(&name);
            self.changed(Change::Remove(name));
        }
        Ok(())
    }

    fn renamed(
        &mut self,
        from: (Option<u64>, u64),
        to: (Option<u64>, u64),
    ) -> Result<(), TargetError> {
        match (self.named(from)?, self.named(to)?) {
            (Some(old), Some(new)) => {
                self.names.remove(&old);
                self.names.insert(new.clone());
                self.changed(Change::Rename(old, new));
                Ok(())
            }
            (None, None) => Ok(()),
            _ => Err("a file is moved into its folder or out of it: not understood".into()),
        }
    }

    fn changed(&mut self, change: Change) {
        self.events.push(Event::Change(change));
    }

    /// Ends the recording if the file is one that is watched.
    fn refuse(&self, fd: u64, how: &str) -> Result<(), TargetError> {
        match self.file(fd)? {
            Some(name) => Err(format!("{name} is written {how}").into()),
            None => Ok(()),
        }
    }

    fn refuse_named(&self, at: (Option<u64>, u64), what: &str) -> Result<(), TargetError> {
        match self.named(at)? {
            Some(name) => Err(format!("{name} is {what}, which is not understood").into()),
            None => Ok(()),
        }
    }

    /// What a descriptor stands for.
    fn target(&self, fd: u64) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/fd/{fd}", self.main)).ok()
    }

    /// The watched file that a descriptor stands for.
    fn file(&self, fd: u64) -> Result<Option<String>, TargetError> {
        self.target(fd).map_or(Ok(None), |target| self.watched(&target))
    }

    /// The name of a file that is watched.
    fn watched(&self, path: &Path) -> Result<Option<String>, TargetError> {
        let Ok(name) = path.strip_prefix(&self.files.folder) else { return Ok(None) };
        let name = name.to_str().ok_or("a file's name is no UTF-8")?;
        if name.contains('/') {
            return Err(format!("{name} is in a folder in its folder: not understood").into());
        }
        // A file whose name was removed can still be written, and nobody will find it.
        let gone = name.ends_with(" (deleted)");
        Ok((!name.is_empty() && !gone && !self.files.is_scratch(name)).then(|| name.to_owned()))
    }

    /// The watched file with the path at this address, taken from this folder's descriptor.
    fn named(&self, (from, address): (Option<u64>, u64)) -> Result<Option<String>, TargetError> {
        let mut path = self.memory(address, libc::PATH_MAX.unsigned_abs().into())?;
        path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
        let path = PathBuf::from(String::from_utf8(path)?);
        let here = match from {
            Some(fd) if fd & HALF != u64::from(libc::AT_FDCWD.cast_unsigned()) => {
                self.target(fd).ok_or("a folder that is closed")?
            }
            _ => fs::read_link(format!("/proc/{}/cwd", self.main))?,
        };
        let path = here.join(path);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        match folder.canonicalize() {
            Ok(folder) => self.watched(&folder.join(name)),
            Err(_) => Ok(None),
        }
    }

    /// Where in a file a descriptor stands.
    fn position(&self, fd: u64) -> Result<u64, TargetError> {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.main))?;
        let at = info.lines().find_map(|line| line.strip_prefix("pos:"));
        Ok(at.ok_or("a descriptor without a position")?.trim().parse()?)
    }

    /// Its memory from an address on: so many bytes, or those up to where it ends.
    fn memory(&self, address: u64, len: u64) -> Result<Vec<u8>, TargetError> {
        let memory = File::open(format!("/proc/{}/mem", self.main))?;
        let mut bytes = vec![0; usize::try_from(len)?];
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            // The next page may be none of its.
            let page = 4096 - (usize::try_from(address)? + read) % 4096;
            let len = rest.len().min(page);
            let (part, _) = rest.split_at_mut(len);
            match memory.read_at(part, address + u64::try_from(read)?) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(_) if read > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    }
}
