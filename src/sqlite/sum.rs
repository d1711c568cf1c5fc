use crc::{CRC_32_ISCSI, Crc, Digest, Table};

/// The table variant "slicing by 16" is the fastest one; a sealed key may have 4096 bytes.
static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// The checksum of a record, over the name of its table and all of its fields, including the key. So a record that was
/// changed, moved or copied is detected (clause ERR-3).
///
/// Each field is preceded by its kind and length, so no two records feed the same bytes. A CRC-32 detects every change
/// of one byte; it does not stop an attacker, who can write a new checksum.
pub(super) struct Sum {
    digest: Digest<'static, u32, Table<16>>,
    /// Collects short fields before they are fed. The CRC is several times faster on one long piece than on many short
    /// ones, and every decision computes a checksum.
    held: [u8; HELD],
    len: usize,
}

/// Enough for a user with a label of usual length.
const HELD: usize = 192;

impl Sum {
    pub(super) fn of(table: &str) -> Self {
        Self { digest: CRC.digest(), held: [0; HELD], len: 0 }.text(table)
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.field(b't', text.as_bytes())
    }

    pub(super) fn blob(self, bytes: &[u8]) -> Self {
        self.field(b'b', bytes)
    }

    pub(super) fn int(self, number: i64) -> Self {
        self.field(b'i', &number.to_le_bytes())
    }

    pub(super) fn flag(self, flag: bool) -> Self {
        self.int(flag.into())
    }

    pub(super) fn maybe(self, number: Option<i64>) -> Self {
        match number {
            Some(number) => self.int(number),
            None => self.field(b'n', &[]),
        }
    }

    pub(super) fn finish(mut self) -> i64 {
        self.flush();
        self.digest.finalize().into()
    }

    fn field(mut self, kind: u8, bytes: &[u8]) -> Self {
        // No field that a store writes is longer than 4096 bytes, but a field of a damaged file may be.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let [a, b, c, d] = len;
        self.feed(&[kind, a, b, c, d]);
        self.feed(bytes);
        self
    }

    fn feed(&mut self, bytes: &[u8]) {
        if self.len + bytes.len() > HELD {
            self.flush();
        }
        match self.held.get_mut(self.len..self.len + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.digest.update(bytes),
        }
    }

    fn flush(&mut self) {
        self.digest.update(self.held.get(..self.len).unwrap_or_default());
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::table(Sum::of("a").text("x"), Sum::of("b").text("x"))]
    #[case::border(Sum::of("t").text("ab").text("c"), Sum::of("t").text("a").text("bc"))]
    #[case::kind(Sum::of("t").text("a"), Sum::of("t").blob(b"a"))]
    #[case::null(Sum::of("t").maybe(None), Sum::of("t").maybe(Some(0)))]
    #[case::empty(Sum::of("t").text(""), Sum::of("t"))]
    #[case::long(Sum::of("t").blob(&[0; 4096]), Sum::of("t").blob(&[0; 4095]))]
    #[case::after_long(
        Sum::of("t").blob(&[0; 4096]).int(1),
        Sum::of("t").blob(&[0; 4096]).int(2)
    )]
    #[case::flag(Sum::of("t").flag(true), Sum::of("t").flag(false))]
    fn differ(#[case] one: Sum, #[case] other: Sum) {
        assert_ne!(one.finish(), other.finish());
    }

    #[test]
    fn the_checksum_is_what_earlier_versions_wrote() {
        let sum = Sum::of("users").blob(&[7; 32]).text("é").flag(true).int(-1).maybe(None);
        assert_eq!(sum.finish(), 3_754_665_707);
    }

    /// The same checksum, fed piece by piece.
    fn plain(fields: &[(u8, &[u8])]) -> i64 {
        let mut digest = CRC.digest();
        for (kind, bytes) in fields {
            digest.update(&[*kind]);
            digest.update(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
            digest.update(bytes);
        }
        digest.finalize().into()
    }

    #[test]
    fn what_is_held_back_changes_nothing() {
        for one in 0..=2 * HELD {
            for other in [0, 1, 2, HELD - 5, HELD, HELD + 1, 4096] {
                let (one, other) = (vec![1; one], vec![2; other]);
                let sum = Sum::of("t").blob(&one).blob(&other).blob(b"x").finish();
                let fields: [(u8, &[u8]); 4] =
                    [(b't', b"t"), (b'b', &one), (b'b', &other), (b'b', b"x")];
                assert_eq!(sum, plain(&fields), "{} and {}", one.len(), other.len());
            }
        }
    }
}
