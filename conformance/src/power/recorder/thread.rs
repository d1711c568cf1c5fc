//! A stopped thread, read through `/proc`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::libc;
use nix::unistd::Pid;

use crate::target::TargetError;

/// The bits of a register that hold an `int`.
const HALF: u64 = 0xffff_ffff;

/// A stopped thread.
#[derive(Clone, Copy)]
pub(super) struct Thread(pub(super) Pid);

impl Thread {
    /// The thread's process; `None` once the thread is gone.
    pub(super) fn process(self) -> Option<Pid> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let number = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
        number.trim().parse().ok().map(Pid::from_raw)
    }

    /// The path that a descriptor stands for.
    pub(super) fn target(self, fd: u64) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/fd/{}", self.0, fd & HALF)).ok()
    }

    /// A descriptor's position in its file, and the flags with which it was opened.
    pub(super) fn descriptor(self, fd: u64) -> Result<(u64, u64), TargetError> {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{}", self.0, fd & HALF))?;
        let field = |name| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).ok_or(format!("a descriptor without {name}"))
        };
        Ok((field("pos:")?.parse()?, u64::from_str_radix(field("flags:")?, 8)?))
    }

    /// The path at this address, relative to the folder of descriptor `from`, or to the working
    /// directory if there is none.
    pub(super) fn path(self, from: Option<u64>, address: u64) -> Result<PathBuf, TargetError> {
        let mut path = self.memory(address, libc::PATH_MAX.unsigned_abs().into())?;
        path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
        let path = PathBuf::from(String::from_utf8(path)?);
        let here = match from {
            Some(fd) if fd & HALF != u64::from(libc::AT_FDCWD.cast_unsigned()) => {
                self.target(fd).ok_or("a path is relative to a closed folder")?
            }
            _ => fs::read_link(format!("/proc/{}/cwd", self.0))?,
        };
        Ok(here.join(path))
    }

    /// Reads `len` bytes of the thread's memory, or those up to where the memory ends.
    pub(super) fn memory(self, address: u64, len: u64) -> Result<Vec<u8>, TargetError> {
        let memory = File::open(format!("/proc/{}/mem", self.0))?;
        let mut bytes = vec![0; usize::try_from(len)?];
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            // Page by page: the next page may not be mapped.
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

    /// The first `len` bytes of the buffers in a list of `count` entries (`iovec`).
    pub(super) fn gathered(self, list: u64, count: u64, len: u64) -> Result<Vec<u8>, TargetError> {
        let list = self.memory(list, count.saturating_mul(16))?;
        let (entries, _) = list.as_chunks::<16>();
        let mut bytes = Vec::new();
        for entry in entries {
            let (base, size) = entry.split_at(8);
            let rest = len - u64::try_from(bytes.len())?;
            let size = u64::from_ne_bytes(size.try_into()?).min(rest);
            bytes.extend(self.memory(u64::from_ne_bytes(base.try_into()?), size)?);
        }
        Ok(bytes)
    }
}
