//! Bucket keys: the only code that turns ids into keys and back.
//!
//! A KV key consists of tokens joined by dots. A token has the characters `[-/_=a-zA-Z0-9]`. An id
//! becomes one token: its letters, digits, `-` and `_` stay as they are, and every other byte
//! becomes `=` and two upper-case hex digits. So different ids have different tokens, an id can be
//! read back from its token, and an operator can read plain names. A token has at most 384
//! characters and a key at most 850, far below the 4,000 that a server accepts. Tokens of our own
//! begin with `=` and a lower-case letter, which no id's token does.

use crate::{EndpointId, Epoch, RoomId, UserKey};

/// The first token of every barrier's key. The second is the client's own, the third the lane's number.
const BARRIER: &str = "=barrier";
/// The key of the bucket's first message.
pub(in crate::jetstream) const FORMAT: &str = "=format";
/// The key of the counter in `rooms_by_member` that changes before the index entries of a room are removed.
pub(in crate::jetstream) const REMOVALS: &str = "=r";
/// The key of the record that every change of an admin replaces.
pub(in crate::jetstream) const ADMINS: &str = "=admins";

/// Encodes an id as one token.
pub(in crate::jetstream) fn token(id: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut token = String::with_capacity(id.len() + 8);
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            token.push(char::from(byte));
        } else {
            token.push('=');
            for digit in [byte >> 4, byte & 15] {
                token.push(HEX.get(usize::from(digit)).copied().map_or('0', char::from));
            }
        }
    }
    token
}

/// The id of a token; `None` for a text that [`token`] never makes.
pub(in crate::jetstream) fn id(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'=' => {
                let digit = |b: u8| match b {
                    b'0'..=b'9' => Some(b - b'0'),
                    b'A'..=b'F' => Some(b - b'A' + 10),
                    _ => None,
                };
                digit(rest.next()?)? << 4 | digit(rest.next()?)?
            }
            plain => plain,
        });
    }
    let id = String::from_utf8(bytes).ok()?;
    (token(&id) == text).then_some(id)
}

/// The key of a client's barriers in one lane. No other client writes it.
pub(in crate::jetstream) fn barrier(client: &str, lane: usize) -> String {
    format!("{BARRIER}.{client}.{lane}")
}

/// A filter for all barriers of a client.
pub(in crate::jetstream) fn barriers(client: &str) -> String {
    format!("{BARRIER}.{client}.*")
}

/// Whether a key is that of a barrier of this client.
pub(in crate::jetstream) fn is_barrier_of(key: &str, client: &str) -> bool {
    let rest = key.strip_prefix(BARRIER).and_then(|rest| rest.strip_prefix('.'));
    rest.and_then(|rest| rest.strip_prefix(client)).is_some_and(|rest| rest.starts_with('.'))
}

/// Whether a key is that of some client's barriers.
pub(in crate::jetstream) fn is_barrier(key: &str) -> bool {
    key.strip_prefix(BARRIER).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Returns two hex digits of a hash of the token: an FNV-1a hash, folded to a byte. The digits
/// split a large listing into 16 or 256 parts, each small enough for one request.
fn shard(token: &str) -> (char, char) {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in token.bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash ^= hash >> 16;
    hash ^= hash >> 8;
    let digit = |n: u32| char::from_digit(n & 15, 16).unwrap_or('0');
    (digit(hash >> 4), digit(hash))
}

/// The number of parts in which a listing is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jetstream) enum Parts {
    One,
    Sixteen,
    Many,
}

impl Parts {
    /// Returns enough parts for this many records. A part may then hold some more records than
    /// expected: one request can read 1,024.
    pub(in crate::jetstream) fn for_count(count: u64) -> Self {
        match count {
            0..=1_010 => Self::One,
            1_011..=12_000 => Self::Sixteen,
            _ => Self::Many,
        }
    }

    /// The next finer division, if there is one.
    pub(in crate::jetstream) fn finer(self) -> Option<Self> {
        match self {
            Self::One => Some(Self::Sixteen),
            Self::Sixteen => Some(Self::Many),
            Self::Many => None,
        }
    }

    /// Returns the filters that together match every sharded key below `prefix`.
    pub(in crate::jetstream) fn filters(self, prefix: &str) -> Vec<String> {
        const DIGITS: &str = "0123456789abcdef";
        match self {
            Self::One => vec![format!("{prefix}.*.*.>")],
            Self::Sixteen => DIGITS.chars().map(|a| format!("{prefix}.{a}.*.>")).collect(),
            Self::Many => DIGITS
                .chars()
                .flat_map(|a| DIGITS.chars().map(move |b| format!("{prefix}.{a}.{b}.>")))
                .collect(),
        }
    }
}

/// `rooms`: a room's record.
pub(in crate::jetstream) fn room(room: &RoomId) -> String {
    token(room.as_str())
}

/// The common beginning of an incarnation's keys in `members` and in `room_keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::jetstream) struct Incarnation {
    room: String,
    id: String,
}

impl Incarnation {
    pub(in crate::jetstream) fn new(room: &RoomId, id: &str) -> Self {
        Self { room: token(room.as_str()), id: id.to_owned() }
    }

    /// A filter for every incarnation of a room.
    pub(in crate::jetstream) fn any(room: &RoomId) -> Self {
        Self::new(room, "*")
    }

    /// A filter for everything of the incarnation.
    pub(in crate::jetstream) fn everything(&self) -> String {
        format!("{}.{}.>", self.room, self.id)
    }

    /// A filter for everything of the incarnation in `members` but the head.
    pub(in crate::jetstream) fn all_but_the_head(&self) -> String {
        format!("{}.{}.*.>", self.room, self.id)
    }

    /// `members`: the head.
    pub(in crate::jetstream) fn head(&self) -> String {
        format!("{}.{}.=h", self.room, self.id)
    }

    /// `members`: the attempt that made an earlier epoch.
    pub(in crate::jetstream) fn epoch(&self, epoch: Epoch) -> String {
        format!("{}.{}.=e.{epoch}", self.room, self.id)
    }

    /// `members`: a ticket; `*` for all.
    pub(in crate::jetstream) fn ticket(&self, id: &str) -> String {
        format!("{}.{}.=g.{id}", self.room, self.id)
    }

    /// `members`: the roster of one generation; `*` for any.
    pub(in crate::jetstream) fn roster(&self, generation: &str) -> String {
        format!("{}.{}.{generation}", self.room, self.id)
    }

    /// `members`: a member in the roster of one generation; `*` for any.
    pub(in crate::jetstream) fn member(&self, generation: &str, endpoint: &EndpointId) -> String {
        let endpoint = token(endpoint.as_str());
        let (a, b) = shard(&endpoint);
        format!("{}.{}.{generation}.{a}.{b}.{endpoint}", self.room, self.id)
    }

    /// `room_keys`: the key an attempt made for one endpoint and epoch.
    pub(in crate::jetstream) fn sealed(
        &self,
        endpoint: &EndpointId,
        epoch: Epoch,
        attempt: &str,
    ) -> String {
        format!("{}.{}.{}.{epoch}.{attempt}", self.room, self.id, token(endpoint.as_str()))
    }

    /// `room_keys`: every key of one endpoint.
    pub(in crate::jetstream) fn sealed_to(&self, endpoint: &EndpointId) -> String {
        format!("{}.{}.{}.*.*", self.room, self.id, token(endpoint.as_str()))
    }

    /// `room_keys`: every key of one attempt to rekey.
    pub(in crate::jetstream) fn sealed_by(&self, epoch: Epoch, attempt: &str) -> String {
        format!("{}.{}.*.{epoch}.{attempt}", self.room, self.id)
    }

    /// `room_keys`: the record of an attempt to rekey; `*` for all.
    pub(in crate::jetstream) fn attempt(&self, attempt: &str) -> String {
        format!("{}.{}.=a.{attempt}", self.room, self.id)
    }

    /// `rooms_by_member`: the entry of one membership.
    pub(in crate::jetstream) fn index(&self, endpoint: &EndpointId, membership: &str) -> String {
        let (a, b) = shard(&self.room);
        let endpoint = token(endpoint.as_str());
        format!("{endpoint}.{a}.{b}.{}.{}.{membership}", self.room, self.id)
    }

    /// `rooms_by_member`: the entries of all memberships.
    pub(in crate::jetstream) fn index_of_all(&self) -> String {
        let (a, b) = shard(&self.room);
        format!("*.{a}.{b}.{}.{}.*", self.room, self.id)
    }
}

/// `rooms_by_member`: the beginning of all of an endpoint's entries.
pub(in crate::jetstream) fn index_prefix(endpoint: &EndpointId) -> String {
    token(endpoint.as_str())
}

/// `rooms_by_member`: the endpoint's counter.
pub(in crate::jetstream) fn index_count(endpoint: &EndpointId) -> String {
    format!("{}.=n", token(endpoint.as_str()))
}

/// `rooms_by_member`: the counter that changes before index entries of an endpoint are removed. Endpoints share 256 such
/// counters.
pub(in crate::jetstream) fn removals(endpoint: &EndpointId) -> String {
    let (a, b) = shard(&token(endpoint.as_str()));
    format!("{REMOVALS}.{a}.{b}")
}

/// An index entry's key, read.
pub(in crate::jetstream) struct IndexKey<'a> {
    pub(in crate::jetstream) room: RoomId,
    pub(in crate::jetstream) incarnation: &'a str,
    pub(in crate::jetstream) membership: &'a str,
}

/// Reads the key of an index entry; `None` for another key.
pub(in crate::jetstream) fn parse_index(key: &str) -> Option<IndexKey<'_>> {
    let mut tokens = key.split('.').skip(3);
    let (room, incarnation, membership) = (tokens.next()?, tokens.next()?, tokens.next()?);
    let room = RoomId::new(id(room)?).ok()?;
    tokens.next().is_none().then_some(IndexKey { room, incarnation, membership })
}

/// The endpoint of a membership's key; `None` for another key.
pub(in crate::jetstream) fn parse_member(key: &str) -> Option<EndpointId> {
    let mut tokens = key.split('.').skip(5);
    let endpoint = EndpointId::new(id(tokens.next()?)?).ok()?;
    tokens.next().is_none().then_some(endpoint)
}

/// The incarnation that a key in `members` or `room_keys` belongs to.
pub(in crate::jetstream) fn incarnation_of(key: &str) -> Option<&str> {
    key.split('.').nth(1)
}

/// The last token of a key.
pub(in crate::jetstream) fn last_token(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// `users`: a user.
pub(in crate::jetstream) fn user(user: &UserKey) -> String {
    user.to_string()
}

/// The user of a key in `users`; `None` for another key.
pub(in crate::jetstream) fn parse_user(key: &str) -> Option<UserKey> {
    let user: UserKey = key.parse().ok()?;
    (user.to_string() == key).then_some(user)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::jetstream::stored::random_id::fresh;

    #[rstest]
    #[case("ops", "ops")]
    #[case("a-b_c", "a-b_c")]
    #[case("a.b", "a=2Eb")]
    #[case("*", "=2A")]
    #[case("=2A", "=3D2A")]
    #[case("Ops", "Ops")]
    #[case(" ", "=20")]
    #[case("é", "=C3=A9")]
    #[case("e\u{301}", "e=CC=81")]
    #[case("🦀", "=F0=9F=A6=80")]
    #[case("=h", "=3Dh")]
    fn tokens(#[case] plain: &str, #[case] encoded: &str) {
        assert_eq!(token(plain), encoded);
        assert_eq!(id(encoded).as_deref(), Some(plain));
    }

    #[rstest]
    #[case::own_token("=h")]
    #[case::lower_case_hex("=2e")]
    #[case::cut("=2")]
    #[case::needless("=41")]
    #[case::raw("a.b")]
    #[case::not_utf8("=FF")]
    fn what_is_no_token(#[case] text: &str) {
        assert_eq!(id(text), None);
    }

    #[test]
    fn the_longest_key_is_far_below_the_servers_limit() {
        let long = "🦀".repeat(32);
        let (room, endpoint) = (RoomId::new(&long).unwrap(), EndpointId::new(&long).unwrap());
        let inc = Incarnation::new(&room, &fresh().unwrap());
        for key in [
            inc.sealed(&endpoint, Epoch::MAX, &fresh().unwrap()),
            inc.member(&fresh().unwrap(), &endpoint),
            inc.index(&endpoint, &fresh().unwrap()),
        ] {
            assert!(key.len() <= 850, "{} characters", key.len());
        }
    }

    #[test]
    fn keys_are_read_back() {
        let (room, endpoint) = (RoomId::new("a.b").unwrap(), EndpointId::new("*").unwrap());
        let inc = Incarnation::new(&room, "i1");
        let index = inc.index(&endpoint, "m1");
        let parsed = parse_index(&index).unwrap();
        assert_eq!((parsed.room, parsed.incarnation, parsed.membership), (room, "i1", "m1"));
        assert_eq!(parse_member(&inc.member("g1", &endpoint)), Some(endpoint));
        assert_eq!(incarnation_of(&inc.head()), Some("i1"));
        assert_eq!(last_token(&index), "m1");
    }

    /// Existing stores have these keys, so a change of them would lose data.
    #[test]
    fn keys_stay_as_they_are() {
        let (room, endpoint) = (RoomId::new("a.b").unwrap(), EndpointId::new("ann-1_x").unwrap());
        let inc = Incarnation::new(&room, "i1");
        let epoch = Epoch::FIRST;
        let keys = [
            (self::room(&room), "a=2Eb"),
            (inc.everything(), "a=2Eb.i1.>"),
            (inc.all_but_the_head(), "a=2Eb.i1.*.>"),
            (inc.head(), "a=2Eb.i1.=h"),
            (inc.epoch(epoch), "a=2Eb.i1.=e.1"),
            (inc.ticket("t1"), "a=2Eb.i1.=g.t1"),
            (inc.roster("g1"), "a=2Eb.i1.g1"),
            (inc.member("g1", &endpoint), "a=2Eb.i1.g1.3.5.ann-1_x"),
            (inc.sealed(&endpoint, epoch, "m1"), "a=2Eb.i1.ann-1_x.1.m1"),
            (inc.sealed_to(&endpoint), "a=2Eb.i1.ann-1_x.*.*"),
            (inc.sealed_by(epoch, "m1"), "a=2Eb.i1.*.1.m1"),
            (inc.attempt("m1"), "a=2Eb.i1.=a.m1"),
            (inc.index(&endpoint, "m1"), "ann-1_x.f.c.a=2Eb.i1.m1"),
            (inc.index_of_all(), "*.f.c.a=2Eb.i1.*"),
            (index_prefix(&endpoint), "ann-1_x"),
            (index_count(&endpoint), "ann-1_x.=n"),
            (removals(&endpoint), "=r.3.5"),
            (barrier("me", 3), "=barrier.me.3"),
            (barriers("me"), "=barrier.me.*"),
        ];
        for (key, expected) in keys {
            assert_eq!(key, expected);
        }
    }

    #[rstest]
    #[case("=barrier", true)]
    #[case("=barrier.0", true)]
    #[case("=barrier.63", true)]
    #[case("=barrier.me", true)]
    #[case("=barriers", false)]
    #[case("=format", false)]
    fn barriers_are_told_from_others(#[case] key: &str, #[case] expected: bool) {
        assert_eq!(is_barrier(key), expected);
    }

    #[rstest]
    #[case("=barrier.me.0", true)]
    #[case("=barrier.me.12", true)]
    #[case("=barrier.me", false)]
    #[case("=barrier.me2.0", false)]
    #[case("me.0", false)]
    fn a_clients_own_barriers_are_told_from_others(#[case] key: &str, #[case] expected: bool) {
        assert_eq!(is_barrier_of(key, "me"), expected);
    }

    #[rstest]
    #[case(1_010, Parts::One)]
    #[case(1_011, Parts::Sixteen)]
    #[case(12_000, Parts::Sixteen)]
    #[case(12_001, Parts::Many)]
    fn many_are_read_in_parts(#[case] count: u64, #[case] expected: Parts) {
        assert_eq!(Parts::for_count(count), expected);
    }

    #[test]
    fn parts_are_divided_as_far_as_they_can_be() {
        assert_eq!(Parts::One.finer(), Some(Parts::Sixteen));
        assert_eq!(Parts::Sixteen.finer(), Some(Parts::Many));
        assert_eq!(Parts::Many.finer(), None);
    }

    #[test]
    fn shards_are_even() {
        let mut counts = std::collections::HashMap::new();
        for n in 0..10_000 {
            *counts.entry(shard(&format!("endpoint-{n}")).0).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 16);
        assert!(counts.values().all(|n| (500..760).contains(n)), "{counts:?}");
    }
}
