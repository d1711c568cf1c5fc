//! Told by the kernel that the names of the files may mean others now: cheaper than to look.
//!
//! To look at three names costs more than a decision does. The kernel tells at once, within the
//! call that changes a name, so that a change that has happened is always found.

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

    /// One for the process, kept for good: to close one makes the kernel wait for tens of
    /// milliseconds, and a user has no more than some hundred.
    static NEWS: OnceLock<Mutex<News>> = OnceLock::new();

    struct News {
        epoll: OwnedFd,
        names: OwnedFd,
        /// Told of every change of what is mounted where.
        _mounts: File,
        /// By how many each file or directory is watched, by the kernel's number of the watch.
        watched: HashMap<i32, usize>,
        /// How often there was something to tell, to whomever.
        told: u64,
    }

    impl News {
        /// Locked while the kernel is asked: otherwise one thread could take the news and another
        /// go on before they are counted.
        fn get() -> io::Result<MutexGuard<'static, Self>> {
            let news = match NEWS.get() {
                Some(news) => news,
                None => {
                    let new = Self::new()?;
                    NEWS.get_or_init(|| Mutex::new(new))
                }
            };
            // Each change of it is one step, so it is sound whatever panicked.
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

        /// Takes what was told off the queue.
        fn forget(&self) {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut told = inotify::Reader::new(&self.names, &mut buffer);
            while told.next().is_ok() {}
        }
    }

    /// What one store has watched.
    pub(in super::super) struct Watch {
        numbers: Vec<i32>,
    }

    impl Watch {
        /// `None` where not every change would be told: then the names have to be looked at.
        pub(in super::super) fn start(given: &Path, file: &Path) -> Option<Self> {
            // What a symbolic link points to may change without a word.
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
                // Narrower on some platforms, and signed on others.
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

        /// How often there was something to tell until now. As long as this stays the same, the
        /// names mean the same files; `None` where nobody knows.
        #[expect(clippy::unused_self, reason = "there is something to tell only while one watches")]
        pub(in super::super) fn now(&self) -> Option<u64> {
            let mut news = News::get().ok()?;
            let mut events = [MaybeUninit::uninit(); 2];
            match epoll::wait(&news.epoll, &mut events[..], Some(&AT_ONCE)) {
                Ok(([], _)) => {}
                // Who cannot be asked has something to tell.
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
                    // One that is gone with what it watched is none.
                    let _ = inotify::remove_watch(&news.names, *number);
                }
            }
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

        pub(in super::super) fn now(&self) -> Option<u64> {
            match *self {}
        }
    }
}
