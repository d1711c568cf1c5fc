//! The write-ahead log, read without SQLite.
//!
//! SQLite cannot read a log without making shared memory for it, and copies the log into the file if it may write. But
//! another application's files must not change (clause DUR-3). SQLite holds no locks on a log, so opening and closing
//! it here releases none.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

const HEADER: usize = 32;
const FRAME: usize = 24;
/// The page sizes that SQLite allows.
const PAGES: std::ops::RangeInclusive<u32> = 512..=65536;

/// The first page of a database, which says which application the database belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) application: i64,
    pub(super) version: i64,
    /// Whether the database has no tables.
    pub(super) empty: bool,
}

impl Head {
    fn of(page: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(i64::from(i32::from_be_bytes(array(page, at)?)));
        // The root page of `sqlite_schema` is an empty leaf.
        let empty = page.get(100..105)? == [13, 0, 0, 0, 0];
        Some(Self { application: number(68)?, version: number(60)?, empty })
    }
}

/// Returns the first page of the database as of the log's last commit; `None` if no commit wrote that page.
pub(super) fn head(log: &Path) -> io::Result<Option<Head>> {
    let (mut committed, mut written) = (None, None);
    committed_frames(log, |number, page, commits| {
        if number == 1 {
            written = Head::of(page);
        }
        if commits {
            committed = written;
        }
    })?;
    Ok(committed)
}

/// Calls `each` for every frame of a log, in order, up to the first incomplete frame. Its arguments are the page's
/// number, the page, and whether the frame ends a commit.
fn committed_frames(log: &Path, mut each: impl FnMut(u32, &[u8], bool)) -> io::Result<()> {
    let mut log = match File::open(log) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER];
    if !whole(&mut log, &mut header)? {
        return Ok(());
    }
    let big = match word(&header, 0) {
        Some(0x377F_0683) => true,
        Some(0x377F_0682) => false,
        _ => return Ok(()),
    };
    let Some(size) = word(&header, 8).filter(|size| PAGES.contains(size)) else { return Ok(()) };
    let mut sum = Sum { big, s0: 0, s1: 0 };
    sum.add(header.get(..24).unwrap_or_default());
    if !sum.is(&header, 24) {
        return Ok(());
    }
    let mut frame = vec![0; FRAME + usize::try_from(size).unwrap_or_default()];
    while whole(&mut log, &mut frame)? {
        let (head, page) = frame.split_at(FRAME);
        sum.add(head.get(..8).unwrap_or_default());
        sum.add(page);
        if head.get(8..16) != header.get(16..24) || !sum.is(head, 16) {
            break;
        }
        let (Some(number), Some(pages)) = (word(head, 0), word(head, 4)) else { break };
        each(number, page, pages != 0);
    }
    Ok(())
}

/// Fills `buffer`; `false` if the log ends before.
fn whole(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn array(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at + 4)?.try_into().ok()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// SQLite's checksum of a log. The checksum of each frame continues that of the frame before.
struct Sum {
    /// The byte order of the machine that wrote the log.
    big: bool,
    s0: u32,
    s1: u32,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8]| {
            let bytes = array(bytes, 0).unwrap_or_default();
            if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        for pair in bytes.chunks_exact(8) {
            let (first, second) = pair.split_at(4);
            self.s0 = self.s0.wrapping_add(word(first)).wrapping_add(self.s1);
            self.s1 = self.s1.wrapping_add(word(second)).wrapping_add(self.s0);
        }
    }

    fn is(&self, bytes: &[u8], at: usize) -> bool {
        word(bytes, at) == Some(self.s0) && word(bytes, at + 4) == Some(self.s1)
    }
}
