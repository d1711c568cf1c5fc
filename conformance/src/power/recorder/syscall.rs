//! Calls of the operating system, as they stand in a stopped thread's registers.

use nix::libc::c_long;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// A call, at its entry or its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syscall {
    pub(super) number: c_long,
    pub(super) arguments: [u64; 6],
    /// What it returned, at its end: a negative error number, or not.
    pub(super) result: i64,
}

/// What a stopped thread's registers say.
#[cfg(target_arch = "x86_64")]
pub(super) fn of(thread: Pid) -> nix::Result<Syscall> {
    let r = ptrace::getregs(thread)?;
    Ok(Syscall {
        number: r.orig_rax.cast_signed(),
        arguments: [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9],
        result: r.rax.cast_signed(),
    })
}

/// What a stopped thread's registers say. At the end of a call the first argument has become its
/// result.
#[cfg(target_arch = "aarch64")]
pub(super) fn of(thread: Pid) -> nix::Result<Syscall> {
    let [first, second, third, fourth, fifth, sixth, _, _, number, ..] =
        ptrace::getregs(thread)?.regs;
    Ok(Syscall {
        number: number.cast_signed(),
        arguments: [first, second, third, fourth, fifth, sixth],
        result: first.cast_signed(),
    })
}
