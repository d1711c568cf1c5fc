//! Learns from the kernel whether the names of a store's files may stand for other files now.
//!
//! Looking at three names costs more than a decision does. The kernel queues its notification
//! within the system call that changes a name. So a change that has happened is always found.

#[cfg(target_os = "linux")]
pub(super) use linux::Watch;
#[cfg(not(target_os = "linux"))]
pub(super) use none::Watch;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::fs::File;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

    use rustix::event::{Timespec, epoll};
    use rustix::fs::{inotify, statfs};

    use inotify::WatchFlags;

    /// File systems on which the kernel reports every change of a name, because no other machine
    /// can make one: ext4, xfs, btrfs, f2fs, bcachefs, zfs, tmpfs, overlayfs.
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

    /// The process has one set of descriptors, which is never closed. The kernel takes tens of
    /// milliseconds to close an inotify descriptor, and a user may have little more than a hundred
    /// of them.
    static NEWS: OnceLock<Mutex<News>> = OnceLock::new();

    struct News {
        epoll: OwnedFd,
        names: OwnedFd,
        /// The list of mounts. The kernel wakes `epoll` when it changes.
        _mounts: File,
        /// How many stores use each of the kernel's watches, by the number of the watch.
        watched: HashMap<i32, usize>,
        /// How often the kernel has reported changes, for any store of the process.
        told: u64,
    }

    impl News {
        /// Returns the lock, which is held while the kernel is asked. Otherwise one thread could
        /// take the notifications, and another thread could go on before the first one has counted
        /// them.
        fn get() -> io::Result<MutexGuard<'static, Self>> {
            let news = match NEWS.get() {
                Some(news) => news,
                None => {
                    let new = Self::new()?;
                    NEWS.get_or_init(|| Mutex::new(new))
                }
            };
            // Each change under this lock is one step, so a panic leaves the value valid.
            Ok(news.lock().unwrap_or_else(PoisonError::into_inner))
        }

        fn new() -> io::Result<Self> {
            let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
            let names = inotify::init(flags)?;
            let mounts = File::open("/proc/self/mountinfo")?;
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let nothing = epoll::EventData::new_u64(0);
            epoll::add(&epoll, &names, nothing, epoll::EventFlags::IN)?;
            epoll::add(&epoll, &mounts, nothing, epoll::EventFlags::PRI | epoll::EventFlags::ERR)?;
            Ok(Self { epoll, names, _mounts: mounts, watched: HashMap::new(), told: 0 })
        }

        /// Removes all notifications from the queue.
        fn forget(&self) {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut told = inotify::Reader::new(&self.names, &mut buffer);
            while told.next().is_ok() {}
        }
    }

    /// The kernel's watches that one store uses.
    pub(in super::super) struct Watch {
        numbers: Vec<i32>,
    }

    impl Watch {
        /// `None` if the kernel would not report every change. Then each check must look at the
        /// names themselves.
        pub(in super::super) fn start(given: &Path, file: &Path) -> Option<Self> {
            // The target of a symbolic link may change without a notification.
            if given != file {
                return None;
            }
            let mut watch = Self { numbers: Vec::new() };
            watch.names(file).ok()?.then_some(watch)
        }

        fn names(&mut self, file: &Path) -> io::Result<bool> {
            let itself = WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR;
            let inside = WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO | WatchFlags::DELETE;
            let mut flags = itself | inside;
            for directory in file.ancestors().skip(1) {
                // The type of this field is narrower on some platforms, and signed on others.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let kind = statfs(directory)?.f_type as u32;
                if !LOCAL.contains(&kind) {
                    return Ok(false);
                }
                self.add(directory, flags)?;
                flags = itself;
            }
            Ok(true)
        }

        fn add(&mut self, path: &Path, flags: WatchFlags) -> io::Result<()> {
            let mut news = News::get()?;
            let number = inotify::add_watch(&news.names, path, flags | WatchFlags::MASK_ADD)?;
            *news.watched.entry(number).or_default() += 1;
            self.numbers.push(number);
            Ok(())
        }

        /// Returns how often the kernel has reported changes so far. While this number stays the
        /// same, the names stand for the same files. `None` if the kernel cannot be asked.
        #[expect(clippy::unused_self, reason = "there is something to tell only while one watches")]
        pub(in super::super) fn now(&self) -> Option<u64> {
            let mut news = News::get().ok()?;
            let mut events = [MaybeUninit::uninit(); 2];
            match epoll::wait(&news.epoll, &mut events[..], Some(&AT_ONCE)) {
                Ok(([], _)) => {}
                // Notifications count as a change. So does an error, since it may hide one.
                _ => {
                    news.forget();
                    news.told += 1;
                }
            }
            Some(news.told)
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            let Ok(mut news) = News::get() else { return };
            for number in &self.numbers {
                let left = news.watched.get_mut(number).map_or(0, |count| {
                    *count -= 1;
                    *count
                });
                if left == 0 {
                    news.watched.remove(number);
                    // An error means that the kernel has removed the watch already, together with
                    // the directory.
                    let _ = inotify::remove_watch(&news.names, *number);
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod none {
    use std::path::Path;

    /// Never used: on this platform each check looks at the names themselves.
    pub(in super::super) enum Watch {}

    impl Watch {
        pub(in super::super) fn start(_: &Path, _: &Path) -> Option<Self> {
            None
        }

        pub(in super::super) fn now(&self) -> Option<u64> {
            match *self {}
        }
    }
}
