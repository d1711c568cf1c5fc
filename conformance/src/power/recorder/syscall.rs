//! System calls, read from a stopped thread's registers.

use nix::libc::c_long;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// A system call, at its entry or its exit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syscall {
    pub(super) number: c_long,
    pub(super) arguments: [u64; 6],
    /// At the exit, the result of the system call. A negative result is an error number.
    pub(super) result: i64,
}

/// Reads the system call from a stopped thread's registers.
#[cfg(target_arch = "x86_64")]
pub(super) fn of(thread: Pid) -> nix::Result<Syscall> {
    let r = ptrace::getregs(thread)?;
    Ok(Syscall {
        number: r.orig_rax.cast_signed(),
        arguments: [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9],
        result: r.rax.cast_signed(),
    })
}

/// Reads the system call from a stopped thread's registers. At the exit, the result has replaced
/// the first argument.
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
