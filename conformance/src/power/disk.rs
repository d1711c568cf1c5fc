//! A disk in memory: files, and what a crash leaves of them.
//!
//! The disk guarantees what ext4, XFS and APFS do:
//!
//! - A synced file has its contents and, if it is new, its name. A synced folder has its names.
//! - Either sync includes all earlier changes of names, since these file systems log them in order.
//! - A rename is atomic.
//!
//! After a power cut any part of everything else may survive: sectors in any order, lengths, names.
//! A sector is written whole or not at all, and bytes that nobody wrote stay as they are.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::contents::Contents;
use super::recording::Change;

/// The unit that a disk writes atomically, in bytes.
const SECTOR: usize = 512;

/// A kind of crash.
pub enum Ending<'a> {
    /// Only the process is killed. All of its changes are there.
    Killed,
    /// The power is cut, and only synced changes survive.
    Cut,
    /// The power is cut with torn writes: each unsynced sector, length and change of names survives
    /// at random.
    Torn(&'a mut ChaCha8Rng),
    /// The power is cut, and the last unsynced changes are lost. Of the unsynced writes to each
    /// file, a random number survives, beginning with the first write. The same holds for the
    /// unsynced changes of names.
    Shortened(&'a mut ChaCha8Rng),
}

/// A folder of files, as running processes see it and as it is on the disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    names: Names,
    synced_names: Names,
    unsynced_names: Vec<Naming>,
}

/// The names in the folder, as paths relative to it.
#[derive(Clone, Debug, Default)]
struct Names {
    /// The index of the file that each name stands for.
    files: BTreeMap<String, usize>,
    folders: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Write>,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes(usize, Vec<u8>),
    Len(usize),
}

#[derive(Clone, Debug)]
enum Naming {
    Made(String, usize),
    MadeFolder(String),
    Removed(String),
    Renamed(String, String),
}

impl Disk {
    /// Creates a disk with these contents, all of them synced.
    #[must_use]
    pub fn new(contents: Contents) -> Self {
        let mut disk = Self::default();
        disk.names.folders = contents.folders;
        for (name, bytes) in contents.files {
            disk.names.files.insert(name, disk.files.len());
            disk.files.push(File { now: bytes.clone(), synced: bytes, unsynced: Vec::new() });
        }
        disk.synced_names.clone_from(&disk.names);
        disk
    }

    /// Applies a change or a sync.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Make(name) => self.name(Naming::Made(name.clone(), self.files.len())),
            Change::MakeFolder(name) => self.name(Naming::MadeFolder(name.clone())),
            Change::Remove(name) => self.name(Naming::Removed(name.clone())),
            Change::Rename(from, to) => self.name(Naming::Renamed(from.clone(), to.clone())),
            Change::Write { name, offset, bytes } => {
                self.write(name, Write::Bytes(*offset, bytes.clone()));
            }
            Change::Resize(name, len) => self.write(name, Write::Len(*len)),
            Change::Sync(name) => self.sync(name),
            Change::SyncFolder => {
                for naming in std::mem::take(&mut self.unsynced_names) {
                    naming.apply(&mut self.synced_names);
                }
            }
        }
    }

    /// The files as this crash leaves them.
    #[must_use]
    pub fn after(&self, ending: &mut Ending<'_>) -> Contents {
        let names = match ending {
            Ending::Killed => self.names.clone(),
            Ending::Cut => self.synced_names.clone(),
            Ending::Torn(rng) => self.names_with(|_| rng.random_bool(0.5)),
            Ending::Shortened(rng) => {
                let kept = rng.random_range(0..=self.unsynced_names.len());
                self.names_with(|number| number < kept)
            }
        };
        let files = names.files.into_iter().filter_map(|(name, file)| {
            let file = self.files.get(file)?;
            let bytes = match ending {
                Ending::Killed => file.now.clone(),
                Ending::Cut => file.synced.clone(),
                Ending::Torn(rng) => file.torn(rng),
                Ending::Shortened(rng) => file.shortened(rng.random_range(0..=file.unsynced.len())),
            };
            Some((name, bytes))
        });
        Contents { files: files.collect(), folders: names.folders }.reachable()
    }

    /// Returns the synced names, after applying those unsynced changes for whose numbers `kept` is
    /// true.
    fn names_with(&self, mut kept: impl FnMut(usize) -> bool) -> Names {
        let mut names = self.synced_names.clone();
        for (number, naming) in self.unsynced_names.iter().enumerate() {
            if kept(number) {
                naming.apply(&mut names);
            }
        }
        names
    }

    fn name(&mut self, naming: Naming) {
        if let Naming::Made(..) = naming {
            self.files.push(File::default());
        }
        naming.apply(&mut self.names);
        self.unsynced_names.push(naming);
    }

    fn write(&mut self, name: &str, write: Write) {
        let file = self.names.files.get(name).and_then(|file| self.files.get_mut(*file));
        if let Some(file) = file {
            write.apply(&mut file.now);
            file.unsynced.push(write);
        }
    }

    fn sync(&mut self, name: &str) {
        let Some(&id) = self.names.files.get(name) else { return };
        if let Some(file) = self.files.get_mut(id) {
            file.synced.clone_from(&file.now);
            file.unsynced.clear();
        }
        // The sync of a new file includes its name, and with it all earlier changes of names.
        let made = |naming: &Naming| matches!(naming, Naming::Made(_, made) if *made == id);
        if let Some(last) = self.unsynced_names.iter().position(made) {
            for naming in self.unsynced_names.drain(..=last) {
                naming.apply(&mut self.synced_names);
            }
        }
    }
}

impl File {
    /// Returns the synced bytes with a random choice of the unsynced sectors and lengths.
    fn torn(&self, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for write in &self.unsynced {
            match write {
                Write::Len(_) if rng.random_bool(0.5) => write.apply(&mut bytes),
                Write::Len(_) => {}
                Write::Bytes(offset, data) => {
                    let mut at = *offset;
                    let mut rest = data.as_slice();
                    while !rest.is_empty() {
                        let len = rest.len().min(SECTOR - at % SECTOR);
                        let (sector, more) = rest.split_at(len);
                        if rng.random_bool(0.5) {
                            Write::Bytes(at, sector.to_vec()).apply(&mut bytes);
                        }
                        (at, rest) = (at + len, more);
                    }
                }
            }
        }
        bytes
    }

    /// Returns the synced bytes with the first `kept` unsynced writes.
    fn shortened(&self, kept: usize) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        self.unsynced.iter().take(kept).for_each(|write| write.apply(&mut bytes));
        bytes
    }
}

impl Write {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Len(len) => bytes.resize(*len, 0),
            Self::Bytes(offset, data) => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(place) = bytes.get_mut(*offset..end) {
                    place.copy_from_slice(data);
                }
            }
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Made(name, file) => drop(names.files.insert(name.clone(), *file)),
            Self::MadeFolder(name) => drop(names.folders.insert(name.clone())),
            Self::Removed(name) => {
                names.files.remove(name);
                names.folders.remove(name);
            }
            Self::Renamed(from, to) => names.rename(from, to),
        }
    }
}

impl Names {
    fn rename(&mut self, from: &str, to: &str) {
        if let Some(file) = self.files.remove(from) {
            self.files.insert(to.to_owned(), file);
        } else if self.folders.contains(from) {
            let moved = |name: &String| match name.strip_prefix(from) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{to}{rest}"),
                _ => name.clone(),
            };
            self.folders = self.folders.iter().map(moved).collect();
            self.files = self.files.iter().map(|(name, file)| (moved(name), *file)).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn write(name: &str, offset: usize, bytes: &[u8]) -> Change {
        Change::Write { name: name.to_owned(), offset, bytes: bytes.to_vec() }
    }

    fn contents(files: &[(&str, &[u8])]) -> Contents {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
        Contents { files: files.collect(), folders: BTreeSet::new() }
    }

    #[test]
    fn a_power_cut_leaves_only_what_was_synced() {
        let mut disk = Disk::new(contents(&[("old", b"abc")]));
        disk.apply(&write("old", 2, b"xy"));
        disk.apply(&Change::Make("new".into()));
        disk.apply(&write("new", 0, b"1"));
        assert_eq!(disk.after(&mut Ending::Cut), contents(&[("old", b"abc")]));
        assert_eq!(disk.after(&mut Ending::Killed), contents(&[("new", b"1"), ("old", b"abxy")]));
        disk.apply(&Change::Sync("new".into()));
        disk.apply(&write("new", 1, b"2"));
        disk.apply(&Change::Rename("new".into(), "old".into()));
        assert_eq!(disk.after(&mut Ending::Cut), contents(&[("new", b"1"), ("old", b"abc")]));
        disk.apply(&Change::SyncFolder);
        assert_eq!(disk.after(&mut Ending::Cut), contents(&[("old", b"1")]));
        disk.apply(&Change::Sync("old".into()));
        disk.apply(&Change::Remove("old".into()));
        assert_eq!(disk.after(&mut Ending::Cut), contents(&[("old", b"12")]));
        assert_eq!(disk.after(&mut Ending::Killed), contents(&[]));
    }

    #[test]
    fn a_file_that_was_created_again_and_synced_survives() {
        let mut disk = Disk::default();
        disk.apply(&Change::Make("file".into()));
        disk.apply(&Change::Remove("file".into()));
        disk.apply(&Change::Make("file".into()));
        disk.apply(&write("file", 0, b"1"));
        disk.apply(&Change::Sync("file".into()));
        disk.apply(&Change::SyncFolder);
        assert_eq!(disk.after(&mut Ending::Cut), contents(&[("file", b"1")]));
    }

    #[test]
    fn a_renamed_folder_keeps_its_contents() {
        let mut disk = Disk::default();
        disk.apply(&Change::MakeFolder("a".into()));
        disk.apply(&Change::Make("a/file".into()));
        disk.apply(&Change::Make("ab".into()));
        disk.apply(&write("a/file", 0, b"1"));
        disk.apply(&Change::Rename("a".into(), "b".into()));
        let mut expected = contents(&[("ab", b""), ("b/file", b"1")]);
        expected.folders.insert("b".into());
        assert_eq!(disk.after(&mut Ending::Killed), expected);
        assert_eq!(disk.after(&mut Ending::Cut), Contents::default());
        disk.apply(&Change::Sync("b/file".into()));
        disk.apply(&Change::Remove("b/file".into()));
        disk.apply(&Change::Remove("b".into()));
        // The file was created before its folder was renamed, so its sync does not include the
        // rename.
        expected = contents(&[("a/file", b"1")]);
        expected.folders.insert("a".into());
        assert_eq!(disk.after(&mut Ending::Cut), expected);
        assert_eq!(disk.after(&mut Ending::Killed), contents(&[("ab", b"")]));
    }

    #[test]
    fn a_shortened_file_has_the_first_of_its_writes() {
        let mut disk = Disk::new(contents(&[("file", b"")]));
        for at in 0..3 {
            disk.apply(&write("file", at, b"x"));
        }
        disk.apply(&Change::MakeFolder("a".into()));
        disk.apply(&Change::Make("a/file".into()));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            let left = disk.after(&mut Ending::Shortened(&mut rng));
            seen.insert((left.files["file"].len(), left.folders.len(), left.files.len()));
        }
        let names = [(0, 1), (1, 1), (1, 2)];
        let all = (0..4).flat_map(|len| names.map(|(folders, files)| (len, folders, files)));
        assert_eq!(seen, all.collect());
    }

    #[test]
    fn a_torn_write_leaves_whole_sectors() {
        let mut disk = Disk::new(contents(&[("file", &[0; 3 * SECTOR])]));
        disk.apply(&write("file", SECTOR / 2, &[1; 2 * SECTOR]));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let after = disk.after(&mut Ending::Torn(&mut rng));
            let sectors: Vec<_> =
                after.files["file"].chunks(SECTOR).map(|s| (s[0], s[SECTOR - 1])).collect();
            seen.insert(sectors);
        }
        let expected = [(0, 1), (0, 0)].iter().flat_map(|first| {
            [(1, 1), (0, 0)].iter().flat_map(move |second| {
                [(1, 0), (0, 0)].iter().map(move |third| vec![*first, *second, *third])
            })
        });
        assert_eq!(seen, expected.collect());
    }
}
