//! The translation of system calls into changes of files.

use std::path::Path;

use nix::libc;
use nix::unistd::Pid;

use super::Watch;
use super::syscall::Syscall;
use super::thread::Thread;
use crate::power::Change;
use crate::target::TargetError;

/// A path argument: the descriptor of the folder to which the path is relative, if the system call
/// takes one, and the path's address in the thread's memory.
type At = (Option<u64>, u64);

fn has(flags: u64, flag: i32) -> bool {
    flags & u64::from(flag.unsigned_abs()) != 0
}

impl Watch {
    /// Whether a system call may change or sync recorded files.
    pub(super) fn may_change(&self, thread: Pid, call: &Syscall) -> bool {
        let [first, second, third, ..] = call.arguments;
        let opens = |flags| has(flags, libc::O_CREAT) || has(flags, libc::O_TRUNC);
        match call.number {
            libc::SYS_openat => opens(third),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => opens(second),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat
            | libc::SYS_unlink
            | libc::SYS_rename
            | libc::SYS_mkdir
            | libc::SYS_rmdir => true,
            libc::SYS_unlinkat
            | libc::SYS_renameat
            | libc::SYS_renameat2
            | libc::SYS_mkdirat
            | libc::SYS_truncate => true,
            libc::SYS_write
            | libc::SYS_writev
            | libc::SYS_pwrite64
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_ftruncate
            | libc::SYS_fallocate
            | libc::SYS_fsync
            | libc::SYS_fdatasync => {
                let target = Thread(thread).target(first);
                target.is_some_and(|target| target.starts_with(&self.files.folder))
            }
            _ => false,
        }
    }

    /// Records what a system call that succeeded did. Refuses those that are not understood.
    #[expect(clippy::too_many_lines, reason = "a table of system calls")]
    pub(super) fn ended(&mut self, thread: Pid, call: &Syscall) -> Result<(), TargetError> {
        let thread = Thread(thread);
        let [first, second, third, fourth, ..] = call.arguments;
        let count = call.result.unsigned_abs();
        match call.number {
            libc::SYS_openat => self.opened(thread, call, third)?,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => self.opened(thread, call, second)?,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat => self.opened(thread, call, libc::O_TRUNC.unsigned_abs().into())?,
            libc::SYS_write | libc::SYS_writev => {
                if let Some(name) = self.file(thread, first)? {
                    let bytes = match call.number {
                        libc::SYS_write => thread.memory(second, count)?,
                        _ => thread.gathered(second, third, count)?,
                    };
                    let (end, _) = thread.descriptor(first)?;
                    self.wrote(thread, first, name, end - count, bytes)?;
                }
            }
            libc::SYS_pwrite64 => {
                if let Some(name) = self.file(thread, first)? {
                    let bytes = thread.memory(second, count)?;
                    self.wrote(thread, first, name, fourth, bytes)?;
                }
            }
            libc::SYS_pwritev => {
                if let Some(name) = self.file(thread, first)? {
                    let bytes = thread.gathered(second, third, count)?;
                    self.wrote(thread, first, name, fourth, bytes)?;
                }
            }
            libc::SYS_ftruncate => {
                if let Some(name) = self.file(thread, first)? {
                    self.changed(Change::Resize(name, usize::try_from(second)?));
                }
            }
            libc::SYS_truncate => {
                if let Some(name) = self.named(thread, (None, first))? {
                    self.changed(Change::Resize(name, usize::try_from(second)?));
                }
            }
            libc::SYS_fsync | libc::SYS_fdatasync => self.synced(thread, first)?,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_unlink | libc::SYS_rmdir => self.removed(thread, (None, first))?,
            libc::SYS_unlinkat => self.removed(thread, (Some(first), second))?,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => self.renamed(thread, (None, first), (None, second))?,
            libc::SYS_renameat => {
                self.renamed(thread, (Some(first), second), (Some(third), fourth))?;
            }
            libc::SYS_renameat2 => {
                if call.arguments[4] & u64::from(libc::RENAME_EXCHANGE) != 0 {
                    self.refuse_named(thread, (Some(first), second), "exchanged with another")?;
                }
                self.renamed(thread, (Some(first), second), (Some(third), fourth))?;
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mkdir => self.made_folder(thread, (None, first))?,
            libc::SYS_mkdirat => self.made_folder(thread, (Some(first), second))?,
            libc::SYS_fallocate => {
                if let Some(name) = self.file(thread, first)?
                    // Every other mode changes the file's length or its bytes.
                    && second != u64::from(libc::FALLOC_FL_KEEP_SIZE.unsigned_abs())
                {
                    return Err(
                        format!("{name} is changed by fallocate, which is not understood").into()
                    );
                }
            }
            libc::SYS_mmap => {
                let writes = has(third, libc::PROT_WRITE);
                let shared = has(fourth, libc::MAP_SHARED);
                let fd = call.arguments[4];
                if writes && shared && fd < u64::from(u32::MAX) {
                    self.refuse(thread, fd, "through a memory mapping, which is not understood")?;
                }
            }
            libc::SYS_pwritev2 | libc::SYS_sendfile => {
                self.refuse(thread, first, "by a call that is not understood")?;
            }
            libc::SYS_copy_file_range | libc::SYS_splice => {
                self.refuse(thread, third, "by a call that is not understood")?;
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_link | libc::SYS_symlink => {
                self.refuse_named(thread, (None, second), "a second name")?;
            }
            libc::SYS_openat2 => {
                self.refuse_named(thread, (Some(first), second), "opened by openat2")?;
            }
            libc::SYS_linkat => {
                self.refuse_named(thread, (Some(third), fourth), "a second name")?;
            }
            libc::SYS_symlinkat => {
                self.refuse_named(thread, (Some(second), third), "a symbolic link")?;
            }
            libc::SYS_io_uring_setup => {
                return Err("a process uses io_uring, which is not understood".into());
            }
            // `sync_file_range` guarantees nothing after a power cut. Other system calls that sync,
            // such as `sync`, are ignored too: what they sync counts as unsynced.
            _ => {}
        }
        Ok(())
    }

    fn opened(&mut self, thread: Thread, call: &Syscall, flags: u64) -> Result<(), TargetError> {
        let Some(name) = self.file(thread, call.result.unsigned_abs())? else { return Ok(()) };
        if self.folders_there.contains(&name) {
            return Ok(());
        }
        if self.files_there.insert(name.clone()) {
            self.changed(Change::Make(name));
        } else if has(flags, libc::O_TRUNC) {
            self.changed(Change::Resize(name, 0));
        }
        Ok(())
    }

    fn wrote(
        &mut self,
        thread: Thread,
        fd: u64,
        name: String,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<(), TargetError> {
        self.changed(Change::Write { name, offset: usize::try_from(offset)?, bytes });
        // The write syncs the file itself. `O_SYNC` contains the bit of `O_DSYNC`.
        let (_, flags) = thread.descriptor(fd)?;
        if has(flags, libc::O_DSYNC) { self.synced(thread, fd) } else { Ok(()) }
    }

    fn synced(&mut self, thread: Thread, fd: u64) -> Result<(), TargetError> {
        if thread.target(fd).is_some_and(|target| target == self.files.folder) {
            self.changed(Change::SyncFolder);
        } else if let Some(name) = self.file(thread, fd)? {
            let folder = self.folders_there.contains(&name);
            self.changed(if folder { Change::SyncFolder } else { Change::Sync(name) });
        }
        Ok(())
    }

    fn made_folder(&mut self, thread: Thread, at: At) -> Result<(), TargetError> {
        if let Some(name) = self.named(thread, at)? {
            self.folders_there.insert(name.clone());
            self.changed(Change::MakeFolder(name));
        }
        Ok(())
    }

    fn removed(&mut self, thread: Thread, at: At) -> Result<(), TargetError> {
        if let Some(name) = self.named(thread, at)? {
            self.files_there.remove(&name);
            self.folders_there.remove(&name);
            self.changed(Change::Remove(name));
        }
        Ok(())
    }

    fn renamed(&mut self, thread: Thread, from: At, to: At) -> Result<(), TargetError> {
        match (self.named(thread, from)?, self.named(thread, to)?) {
            (Some(old), Some(new)) => {
                let moved = |name: &String| match name.strip_prefix(&old) {
                    Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                        format!("{new}{rest}")
                    }
                    _ => name.clone(),
                };
                self.files_there = self.files_there.iter().map(moved).collect();
                self.folders_there = self.folders_there.iter().map(moved).collect();
                self.changed(Change::Rename(old, new));
                Ok(())
            }
            (None, None) => Ok(()),
            _ => Err("a file is moved into or out of the folder, which is not understood".into()),
        }
    }

    /// Fails if the descriptor stands for a recorded file.
    fn refuse(&self, thread: Thread, fd: u64, how: &str) -> Result<(), TargetError> {
        match self.file(thread, fd)? {
            Some(name) => Err(format!("{name} is written {how}").into()),
            None => Ok(()),
        }
    }

    /// Fails if the path names a recorded file.
    fn refuse_named(&self, thread: Thread, at: At, what: &str) -> Result<(), TargetError> {
        match self.named(thread, at)? {
            Some(name) => Err(format!("{name} is {what}, which is not understood").into()),
            None => Ok(()),
        }
    }

    /// The name of the recorded file or folder that a descriptor stands for.
    fn file(&self, thread: Thread, fd: u64) -> Result<Option<String>, TargetError> {
        thread.target(fd).map_or(Ok(None), |target| self.watched(&target))
    }

    /// The name of a path, relative to the folder; `None` if the path is not recorded.
    fn watched(&self, path: &Path) -> Result<Option<String>, TargetError> {
        let Ok(name) = path.strip_prefix(&self.files.folder) else { return Ok(None) };
        let name = name.to_str().ok_or("a file's name is no UTF-8")?;
        // A removed file can still be written, but nothing can open it after a crash.
        let gone = name.ends_with(" (deleted)");
        Ok((!name.is_empty() && !gone && !self.files.is_scratch(name)).then(|| name.to_owned()))
    }

    /// The name of the recorded file that a path argument names.
    fn named(&self, thread: Thread, (from, address): At) -> Result<Option<String>, TargetError> {
        let path = thread.path(from, address)?;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        match folder.canonicalize() {
            Ok(folder) => self.watched(&folder.join(name)),
            Err(_) => Ok(None),
        }
    }
}
