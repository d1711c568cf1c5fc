//! Told by the kernel that the names of the files may mean others now, or that the file was written:
//! cheaper than to look.
//!
//! To look at three names costs more than a decision does. The kernel tells at once, within the
//! call that changes a name, so that a change that has happened is always found.

#[cfg(target_os = "linux")]
pub(super) use linux::Watch;
#[cfg(not(target_os = "linux"))]
pub(super) use none::Watch;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::sync::{Mutex, PoisonError};

    use rustix::event::{Timespec, epoll};
    use rustix::fs::{inotify, statfs};

    use inotify::WatchFlags;

    /// File systems that tell of every change of a name, since nobody but this kernel makes any:
    /// ext4, xfs, btrfs, f2fs, bcachefs, zfs, tmpfs, overlayfs.
    const LOCAL: [u32; 8] = [
        0xEF53,
        0x5846_5342,
        0x9123_683E,
        0xF2F5_2010,
        0xCA45_1A4E,
        0x2FC1_2FC1,
        0x0102_1994,
        0x794C_7630,
    ];
    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

    pub(in super::super) struct Watch {
        epoll: OwnedFd,
        names: OwnedFd,
        /// Told of every change of what is mounted where.
        _mounts: File,
        /// How often there was something to tell. Held while the kernel is asked: otherwise one
        /// thread could take the news and another go on before they are counted.
        told: Mutex<u64>,
    }

    impl Watch {
        /// `None` where not every change would be told: then the names have to be looked at.
        pub(in super::super) fn start(given: &Path, file: &Path) -> Option<Self> {
            // What a symbolic link points to may change without a word.
            if given != file {
                return None;
            }
            Self::of(file).ok().flatten()
        }

        fn of(file: &Path) -> io::Result<Option<Self>> {
            let names =
                inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
            let itself = WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR;
            let inside = WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO | WatchFlags::DELETE;
            let mut flags = itself | inside;
            for directory in file.ancestors().skip(1) {
                // Narrower on some platforms, and signed on others.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let kind = statfs(directory)?.f_type as u32;
                if !LOCAL.contains(&kind) {
                    return Ok(None);
                }
                inotify::add_watch(&names, directory, flags)?;
                flags = itself;
            }
            let mounts = File::open("/proc/self/mountinfo")?;
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let nothing = epoll::EventData::new_u64(0);
            epoll::add(&epoll, &names, nothing, epoll::EventFlags::IN)?;
            epoll::add(&epoll, &mounts, nothing, epoll::EventFlags::PRI | epoll::EventFlags::ERR)?;
            Ok(Some(Self { epoll, names, _mounts: mounts, told: Mutex::new(0) }))
        }

        /// Has every write to the file told as well, from now on; it must be there.
        pub(in super::super) fn writes_to(self, file: &Path) -> Option<Self> {
            inotify::add_watch(&self.names, file, WatchFlags::MODIFY).ok().map(|_| self)
        }

        /// How often there was something to tell until now. As long as this stays the same, the
        /// names mean the same files.
        pub(in super::super) fn now(&self) -> u64 {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let mut events = [MaybeUninit::uninit(); 2];
            match epoll::wait(&self.epoll, &mut events[..], Some(&AT_ONCE)) {
                Ok((some, _)) if some.is_empty() => {}
                // Who cannot be asked has something to tell.
                _ => {
                    self.forget();
                    *told += 1;
                }
            }
            *told
        }

        /// Takes what was told off the queue.
        fn forget(&self) {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut told = inotify::Reader::new(&self.names, &mut buffer);
            while told.next().is_ok() {}
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod none {
    use std::path::Path;

    /// None: here the names have to be looked at.
    pub(in super::super) enum Watch {}

    impl Watch {
        pub(in super::super) fn start(_: &Path, _: &Path) -> Option<Self> {
            None
        }

        pub(in super::super) fn writes_to(self, _: &Path) -> Option<Self> {
            match self {}
        }

        pub(in super::super) fn now(&self) -> u64 {
            match *self {}
        }
    }
}
