//! The stored form of an answer, and of what is known about a key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::policy::LifetimeSource;
use super::purge::Epoch;
use super::vary::Variant;
use crate::base::clock::WallTime;

/// A stored answer without its body.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The key's text ([`super::key::Key::text`]).
    pub key: Arc<[u8]>,
    /// The status.
    pub status: StatusCode,
    /// The fields to send, hop-by-hop and refused ones already removed; Age is not among them.
    pub fields: HeaderMap,
    /// When the answer was received: the moment from which it resides here.
    pub received: WallTime,
    /// Its age at `received`: corrected_initial_age of RFC 9111 §4.2.3.
    pub initial_age: Duration,
    /// The freshness lifetime, from the moment its age was zero.
    pub lifetime: Duration,
    /// Where the lifetime comes from.
    pub source: LifetimeSource,
    /// What must happen before reuse.
    pub reuse: ReuseRule,
    /// Serve stale while fetching anew, for this long past freshness.
    pub stale_while_revalidate: Duration,
    /// Serve stale when the origin fails, for this long past freshness.
    pub stale_if_error: Duration,
    /// How long past freshness the entry is worth keeping at all.
    pub keep: Duration,
    /// The varying request fields; empty when the answer serves all.
    pub vary: Vec<HeaderName>,
    /// The values of those fields in the request that fetched it.
    pub variant: Variant,
}

/// What must happen before a stored answer is reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReuseRule {
    /// Validate before every reuse (`no-cache`).
    pub always_validate: bool,
    /// Never serve stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
    pub never_stale: bool,
    /// The answer to an authorised request may be reused for others (RFC 9111 §3.5); it would not have been stored otherwise.
    pub authorised: bool,
}

/// What is kept under a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// An answer, the last purge known when its making began, and its body.
    Answer(Record, Epoch, Bytes),
    /// The same with a body that was compressed.
    Packed(Record, Epoch, Packed),
    /// The same with a body that lies apart, in pieces.
    Apart(Record, Epoch, Apart),
    /// The answers under this key vary: the fields that choose, and the generation whose variants count.
    Variants(Variants),
}

/// The fields that choose among the answers under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variants {
    /// The key's text.
    pub key: Arc<[u8]>,
    /// The varying request fields.
    pub names: Vec<HeaderName>,
    /// Part of every variant's name: a new one leaves all old variants unreachable at once.
    pub generation: u64,
}

/// How stored bytes were compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Not at all.
    Plain,
    /// Zstandard (RFC 8878).
    Zstd,
    /// The LZ4 block format.
    Lz4,
}

/// Bytes as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// How they were compressed.
    pub coding: Coding,
    /// What they were before, in bytes.
    pub length: u64,
    /// What they are now.
    pub bytes: Bytes,
}

/// Where a body lies that is too large for one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apart {
    /// Part of the name and of the checksum of every piece, and never used twice: pieces of two answers cannot be taken for one another's.
    pub generation: u64,
    /// The body's length in bytes.
    pub length: u64,
    /// The length of every piece but the last, in bytes; at least 1.
    pub piece: u32,
}

impl Apart {
    /// The number of pieces.
    pub fn count(&self) -> u64 {
        self.length.div_ceil(u64::from(self.piece.max(1)))
    }

    /// The length of one piece; 0 past the last.
    pub fn length_of(&self, index: u64) -> u64 {
        let piece = u64::from(self.piece);
        self.length.saturating_sub(index.saturating_mul(piece)).min(piece)
    }
}

/// Why stored bytes cannot be used: they count as a miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not ours, or of another version.
    #[error("unknown format")]
    Format,
    /// Shorter or longer than it says.
    #[error("wrong length")]
    Length,
    /// The checksum over key, head and body differs.
    #[error("checksum mismatch")]
    Checksum,
    /// A part does not read.
    #[error("malformed content")]
    Content,
}

impl Record {
    /// Its age now (RFC 9111 §4.2.3).
    pub fn age(&self, now: WallTime) -> Duration {
        self.initial_age.saturating_add(now.since(self.received))
    }

    /// How long it stays fresh; zero when it is stale.
    pub fn ttl(&self, now: WallTime) -> Duration {
        self.lifetime.saturating_sub(self.age(now))
    }

    /// How long past freshness it is; zero when it is fresh.
    pub fn staleness(&self, now: WallTime) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// How long from now it is worth keeping: freshness and the longest of the windows in which stale has a use.
    pub fn worth(&self, now: WallTime) -> Duration {
        let past = self.keep.max(self.stale_if_error).max(self.stale_while_revalidate);
        self.lifetime.saturating_add(past).saturating_sub(self.age(now))
    }
}

/// What every stored form begins with: a magic word and the version of the layout.
const PREAMBLE: [u8; 5] = *b"VNNE\x01";
/// Where the content begins: after the preamble and its checksum.
const HEAD: usize = PREAMBLE.len() + 8;

const ANSWER: u8 = 1;
const VARIANTS: u8 = 2;
const PACKED: u8 = 3;
const APART: u8 = 4;
const PIECE: u8 = 5;

/// The bytes of a stored [`Variants`] that stand before its checksum, and where its content begins: two forms with the same
/// bytes in `..VARIANTS_SUM.start` and in `VARIANTS_SUM.end..len - 8` name the same fields under the same key, whatever their generations.
pub const VARIANTS_SUM: std::ops::Range<usize> = PREAMBLE.len()..HEAD;

/// Writes the stored form: magic, version, checksum over everything that follows, then the content.
pub fn encode(stored: &Stored) -> Vec<u8> {
    match stored {
        Stored::Answer(record, epoch, body) => encode_answer(record, *epoch, std::slice::from_ref(body)),
        Stored::Packed(record, epoch, packed) => encode_packed(record, *epoch, packed),
        Stored::Apart(record, epoch, apart) => encode_apart(record, *epoch, apart),
        Stored::Variants(variants) => encode_variants(variants),
    }
}

/// Writes the stored form of an answer whose content lies in pieces, copying each once. Like [`encode`] of the whole.
pub fn encode_answer(record: &Record, epoch: Epoch, body: &[Bytes]) -> Vec<u8> {
    let length = body.iter().map(Bytes::len).sum();
    let mut out = Writer::begin(ANSWER, length);
    out.head(record, epoch);
    out.number(length as u64);
    for piece in body {
        out.raw(piece);
    }
    out.finish()
}

fn encode_packed(record: &Record, epoch: Epoch, packed: &Packed) -> Vec<u8> {
    let mut out = Writer::begin(PACKED, packed.bytes.len());
    out.head(record, epoch);
    out.packed(packed);
    out.finish()
}

/// The place comes first, so that who only removes need not read the rest ([`apart_at_front`]).
pub fn encode_apart(record: &Record, epoch: Epoch, apart: &Apart) -> Vec<u8> {
    let mut out = Writer::begin(APART, 0);
    out.apart(apart);
    out.head(record, epoch);
    out.finish()
}

/// Writes one piece of a body that lies apart.
pub fn encode_piece(generation: u64, index: u64, packed: &Packed) -> Vec<u8> {
    let mut out = Writer::begin(PIECE, packed.bytes.len());
    out.number(generation);
    out.number(index);
    out.packed(packed);
    out.finish()
}

/// Reads one piece; it must be this one. Never panics, whatever the bytes; what is read shares them.
///
/// # Errors
/// When the bytes are not what [`encode_piece`] wrote for this generation and index.
pub fn decode_piece(bytes: Bytes, generation: u64, index: u64) -> Result<Packed, Damage> {
    let mut reader = unsealed(bytes)?;
    if reader.byte()? != PIECE || reader.number()? != generation || reader.number()? != index {
        return Err(Damage::Content);
    }
    reader.packed()
}

/// How many bytes of a stored form [`apart_at_front`] needs.
pub const APART_FRONT: usize = HEAD + 1 + 8 + 8 + 4;

/// Where the body lies, from the first [`APART_FRONT`] bytes of a stored form; `None`: not apart. The checksum is not looked at, since it is
/// over the rest as well: only good for removing.
pub fn apart_at_front(front: &[u8]) -> Option<Apart> {
    if front.len() < APART_FRONT || !front.starts_with(&PREAMBLE) || front[HEAD] != APART {
        return None;
    }
    Reader { bytes: Bytes::copy_from_slice(&front[HEAD + 1..]) }.apart().ok()
}

/// Reads the stored form. Never panics, whatever the bytes; the body shares them.
///
/// # Errors
/// When the bytes are not exactly what [`encode`] wrote.
pub fn decode(bytes: Bytes) -> Result<Stored, Damage> {
    let mut reader = unsealed(bytes)?;
    match reader.byte()? {
        ANSWER => reader.answer(),
        VARIANTS => reader.variants(),
        PACKED => {
            let (record, epoch) = reader.head()?;
            Ok(Stored::Packed(record, epoch, reader.packed()?))
        }
        APART => {
            let apart = reader.apart()?;
            let (record, epoch) = reader.head()?;
            if reader.bytes.is_empty() {
                Ok(Stored::Apart(record, epoch, apart))
            } else {
                Err(Damage::Length)
            }
        }
        _ => Err(Damage::Content),
    }
}

/// What stands behind the magic word, the version and the checksum.
fn unsealed(bytes: Bytes) -> Result<Reader, Damage> {
    if bytes.len() < HEAD {
        return Err(if bytes.starts_with(&PREAMBLE) { Damage::Length } else { Damage::Format });
    }
    if !bytes.starts_with(&PREAMBLE) {
        return Err(Damage::Format);
    }
    let mut reader = Reader { bytes: bytes.slice(PREAMBLE.len()..) };
    let sum = reader.number()?;
    // The checksum comes first: whatever damage did to the content is told as damage, never read as something else.
    if sum != xxhash_rust::xxh3::xxh3_64(&reader.bytes) {
        return Err(Damage::Checksum);
    }
    Ok(reader)
}

/// The generation stands last and has a fixed length, so that forms which differ only in it can be compared without reading them
/// ([`VARIANTS_SUM`]).
fn encode_variants(variants: &Variants) -> Vec<u8> {
    let mut out = Writer::begin(VARIANTS, 0);
    out.bytes(&variants.key);
    out.names(&variants.names);
    out.number(variants.generation);
    out.finish()
}

struct Writer(Vec<u8>);

impl Writer {
    fn begin(kind: u8, body: usize) -> Self {
        let mut out = Vec::with_capacity(body.saturating_add(1024));
        out.extend_from_slice(&PREAMBLE);
        out.extend_from_slice(&[0; 8]);
        out.push(kind);
        Self(out)
    }

    fn finish(mut self) -> Vec<u8> {
        let sum = xxhash_rust::xxh3::xxh3_64(&self.0[HEAD..]);
        self.0[PREAMBLE.len()..HEAD].copy_from_slice(&sum.to_le_bytes());
        self.0
    }

    fn head(&mut self, record: &Record, epoch: Epoch) {
        self.number(epoch);
        self.bytes(&record.key);
        self.raw(&record.status.as_u16().to_le_bytes());
        self.number(record.received.as_millis());
        for time in [
            record.initial_age,
            record.lifetime,
            record.stale_while_revalidate,
            record.stale_if_error,
            record.keep,
        ] {
            self.duration(time);
        }
        self.raw(&[source_code(record.source), reuse_bits(record.reuse)]);
        self.names(&record.vary);
        self.variant(&record.variant);
        self.length(record.fields.len());
        for (name, value) in &record.fields {
            self.bytes(name.as_str().as_bytes());
            self.bytes(value.as_bytes());
        }
    }

    fn packed(&mut self, packed: &Packed) {
        self.raw(&[coding_code(packed.coding)]);
        self.number(packed.length);
        self.raw(&packed.bytes);
    }

    fn apart(&mut self, apart: &Apart) {
        self.number(apart.generation);
        self.number(apart.length);
        self.raw(&apart.piece.to_le_bytes());
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, number: u64) {
        self.raw(&number.to_le_bytes());
    }

    /// Lengths of parts other than the body. A head of 4 GiB does not exist: the listener and the origin's parser refuse it long
    /// before; one that did would be cut here and refused as damage on reading.
    fn length(&mut self, length: usize) {
        self.raw(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.raw(bytes);
    }

    fn duration(&mut self, time: Duration) {
        self.number(time.as_secs());
        self.raw(&time.subsec_nanos().to_le_bytes());
    }

    fn names(&mut self, names: &[HeaderName]) {
        self.length(names.len());
        for name in names {
            self.bytes(name.as_str().as_bytes());
        }
    }

    fn variant(&mut self, variant: &Variant) {
        self.length(variant.0.len());
        for value in &variant.0 {
            match value {
                None => self.raw(&[0]),
                Some(value) => {
                    self.raw(&[1]);
                    self.bytes(value);
                }
            }
        }
    }
}

/// Takes parts off the front; every length is checked against what is left before anything is taken or allocated.
struct Reader {
    bytes: Bytes,
}

impl Reader {
    fn answer(mut self) -> Result<Stored, Damage> {
        let (record, epoch) = self.head()?;
        let length = usize::try_from(self.number()?).map_err(|_| Damage::Length)?;
        if length != self.bytes.len() {
            return Err(Damage::Length);
        }
        Ok(Stored::Answer(record, epoch, self.bytes))
    }

    fn head(&mut self) -> Result<(Record, Epoch), Damage> {
        let epoch = self.number()?;
        let record = Record {
            key: Arc::from(&self.bytes()?[..]),
            status: StatusCode::from_u16(u16::from_le_bytes(self.array()?)).map_err(|_| Damage::Content)?,
            received: WallTime::from_millis(self.number()?),
            initial_age: self.duration()?,
            lifetime: self.duration()?,
            stale_while_revalidate: self.duration()?,
            stale_if_error: self.duration()?,
            keep: self.duration()?,
            source: source_of(self.byte()?)?,
            reuse: reuse_of(self.byte()?)?,
            vary: self.names()?,
            variant: self.variant()?,
            fields: self.fields()?,
        };
        Ok((record, epoch))
    }

    /// All that is left.
    fn packed(mut self) -> Result<Packed, Damage> {
        let coding = coding_of(self.byte()?)?;
        let length = self.number()?;
        if coding == Coding::Plain && length != self.bytes.len() as u64 {
            return Err(Damage::Length);
        }
        Ok(Packed { coding, length, bytes: self.bytes })
    }

    fn apart(&mut self) -> Result<Apart, Damage> {
        let (generation, length) = (self.number()?, self.number()?);
        let piece = u32::from_le_bytes(self.array()?);
        if piece == 0 { Err(Damage::Content) } else { Ok(Apart { generation, length, piece }) }
    }

    fn variants(mut self) -> Result<Stored, Damage> {
        let variants =
            Variants { key: Arc::from(&self.bytes()?[..]), names: self.names()?, generation: self.number()? };
        if self.bytes.is_empty() { Ok(Stored::Variants(variants)) } else { Err(Damage::Length) }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, Damage> {
        if length > self.bytes.len() {
            return Err(Damage::Length);
        }
        Ok(self.bytes.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let mut out = [0; N];
        out.copy_from_slice(&self.take(N)?);
        Ok(out)
    }

    fn byte(&mut self) -> Result<u8, Damage> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn length(&mut self) -> Result<usize, Damage> {
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| Damage::Length)
    }

    /// A count of parts of at least `least` bytes each: more than could follow is damage, so that a count never makes us allocate
    /// more than was received.
    fn count(&mut self, least: usize) -> Result<usize, Damage> {
        let count = self.length()?;
        if count > self.bytes.len() / least { Err(Damage::Length) } else { Ok(count) }
    }

    fn bytes(&mut self) -> Result<Bytes, Damage> {
        let length = self.length()?;
        self.take(length)
    }

    fn duration(&mut self) -> Result<Duration, Damage> {
        let (secs, nanos) = (self.number()?, u32::from_le_bytes(self.array()?));
        // `Duration::new` carries whole seconds over and panics when they overflow.
        if nanos < 1_000_000_000 { Ok(Duration::new(secs, nanos)) } else { Err(Damage::Content) }
    }

    fn name(&mut self) -> Result<HeaderName, Damage> {
        HeaderName::from_lowercase(&self.bytes()?).map_err(|_| Damage::Content)
    }

    fn names(&mut self) -> Result<Vec<HeaderName>, Damage> {
        let count = self.count(4)?;
        (0..count).map(|_| self.name()).collect()
    }

    fn variant(&mut self) -> Result<Variant, Damage> {
        let count = self.count(1)?;
        let values = (0..count).map(|_| match self.byte()? {
            0 => Ok(None),
            1 => Ok(Some(Box::from(&self.bytes()?[..]))),
            _ => Err(Damage::Content),
        });
        values.collect::<Result<_, _>>().map(Variant)
    }

    fn fields(&mut self) -> Result<HeaderMap, Damage> {
        let count = self.count(8)?;
        let mut fields = HeaderMap::new();
        for _ in 0..count {
            let name = self.name()?;
            let value = HeaderValue::from_maybe_shared(self.bytes()?).map_err(|_| Damage::Content)?;
            // `append` panics at the map's own limit of lines.
            fields.try_append(name, value).map_err(|_| Damage::Content)?;
        }
        Ok(fields)
    }
}

const SOURCES: [LifetimeSource; 8] = [
    LifetimeSource::None,
    LifetimeSource::SMaxAge,
    LifetimeSource::MaxAge,
    LifetimeSource::Expires,
    LifetimeSource::Targeted,
    LifetimeSource::Heuristic,
    LifetimeSource::Operator,
    LifetimeSource::Header,
];

fn coding_code(coding: Coding) -> u8 {
    match coding {
        Coding::Plain => 0,
        Coding::Zstd => 1,
        Coding::Lz4 => 2,
    }
}

fn coding_of(code: u8) -> Result<Coding, Damage> {
    match code {
        0 => Ok(Coding::Plain),
        1 => Ok(Coding::Zstd),
        2 => Ok(Coding::Lz4),
        _ => Err(Damage::Content),
    }
}

fn source_code(source: LifetimeSource) -> u8 {
    match source {
        LifetimeSource::None => 0,
        LifetimeSource::SMaxAge => 1,
        LifetimeSource::MaxAge => 2,
        LifetimeSource::Expires => 3,
        LifetimeSource::Targeted => 4,
        LifetimeSource::Heuristic => 5,
        LifetimeSource::Operator => 6,
        LifetimeSource::Header => 7,
    }
}

fn source_of(code: u8) -> Result<LifetimeSource, Damage> {
    SOURCES.get(usize::from(code)).copied().ok_or(Damage::Content)
}

fn reuse_bits(rule: ReuseRule) -> u8 {
    u8::from(rule.always_validate) | u8::from(rule.never_stale) << 1 | u8::from(rule.authorised) << 2
}

fn reuse_of(bits: u8) -> Result<ReuseRule, Damage> {
    // A bit this version does not know may forbid what it would allow.
    if bits > 0b111 {
        return Err(Damage::Content);
    }
    Ok(ReuseRule { always_validate: bits & 1 != 0, never_stale: bits & 2 != 0, authorised: bits & 4 != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn record() -> Record {
        let mut fields = HeaderMap::new();
        fields.append("x-a", HeaderValue::from_static("1"));
        fields.append("etag", HeaderValue::from_static("\"v1\""));
        fields.append("x-a", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        Record {
            key: Arc::from(&b"https example.com /"[..]),
            status: StatusCode::OK,
            fields,
            received: WallTime::from_millis(1_700_000_000_123),
            initial_age: Duration::from_millis(1500),
            lifetime: Duration::from_secs(60),
            source: LifetimeSource::MaxAge,
            reuse: ReuseRule { always_validate: false, never_stale: true, authorised: false },
            stale_while_revalidate: Duration::from_secs(5),
            stale_if_error: Duration::ZERO,
            keep: Duration::from_nanos(1),
            vary: vec![HeaderName::from_static("accept-encoding")],
            variant: Variant(vec![Some(Box::from(&b"gzip"[..])), None, Some(Box::default())]),
        }
    }

    fn answer() -> Stored {
        Stored::Answer(record(), 7, Bytes::from_static(b"content"))
    }

    fn variants(generation: u64) -> Variants {
        Variants { key: Arc::from(&b"key"[..]), names: record().vary, generation }
    }

    fn packed(coding: Coding) -> Packed {
        let length = if coding == Coding::Plain { 5 } else { 400 };
        Packed { coding, length, bytes: Bytes::from_static(b"bytes") }
    }

    const APART: Apart = Apart { generation: 9, length: 1_000_001, piece: 1000 };

    fn every_kind() -> Vec<Stored> {
        let mut kinds =
            vec![answer(), Stored::Variants(variants(u64::MAX)), Stored::Apart(record(), 7, APART)];
        kinds.extend(
            [Coding::Plain, Coding::Zstd, Coding::Lz4]
                .map(|coding| Stored::Packed(record(), 7, packed(coding))),
        );
        kinds
    }

    /// The stored form of this content, with a checksum that is right: what only a forger or another version would write.
    fn sealed(content: &[u8]) -> Bytes {
        let mut out = PREAMBLE.to_vec();
        out.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(content).to_le_bytes());
        out.extend_from_slice(content);
        out.into()
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for stored in every_kind() {
            assert_eq!(decode(encode(&stored).into()), Ok(stored));
        }
    }

    #[test]
    fn a_piece_reads_back_as_itself_and_as_no_other() {
        for coding in [Coding::Plain, Coding::Zstd, Coding::Lz4] {
            let form = Bytes::from(encode_piece(9, 3, &packed(coding)));
            assert_eq!(decode_piece(form.clone(), 9, 3), Ok(packed(coding)));
            assert_eq!(decode_piece(form.clone(), 9, 4), Err(Damage::Content));
            assert_eq!(decode_piece(form.clone(), 8, 3), Err(Damage::Content));
            assert!(decode(form.clone()).is_err(), "a piece is no answer");
            for at in 0..form.len() {
                let mut bytes = form.to_vec();
                bytes[at] ^= 1;
                assert!(decode_piece(bytes.into(), 9, 3).is_err(), "byte {at}");
                assert!(decode_piece(form.slice(..at), 9, 3).is_err(), "cut at {at}");
            }
        }
        assert!(decode_piece(encode(&answer()).into(), 9, 3).is_err(), "an answer is no piece");
    }

    #[test]
    fn where_a_body_lies_is_told_by_the_front_alone() {
        let form = encode(&Stored::Apart(record(), 7, APART));
        assert_eq!(apart_at_front(&form[..APART_FRONT]), Some(APART));
        assert_eq!(apart_at_front(&form[..APART_FRONT - 1]), None);
        assert_eq!(apart_at_front(&encode(&answer())[..APART_FRONT]), None);
    }

    #[test]
    fn all_pieces_but_the_last_have_one_length() {
        for (length, lengths) in [(0, &[][..]), (1, &[1]), (10, &[10]), (11, &[10, 1]), (30, &[10, 10, 10])] {
            let apart = Apart { generation: 0, length, piece: 10 };
            let found: Vec<u64> = (0..apart.count()).map(|index| apart.length_of(index)).collect();
            assert_eq!(found, lengths);
            assert_eq!(apart.length_of(apart.count()), 0);
        }
    }

    #[test]
    fn lines_keep_their_order_and_repeats() {
        let Ok(Stored::Answer(read, ..)) = decode(encode(&answer()).into()) else { panic!() };
        let values: Vec<_> = read.fields.get_all("x-a").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(values, [&b"1"[..], b"caf\xe9"]);
    }

    #[test]
    fn every_source_and_rule_reads_back() {
        for (code, source) in SOURCES.into_iter().enumerate() {
            assert_eq!(usize::from(source_code(source)), code);
        }
        assert_eq!(source_of(8), Err(Damage::Content));
        for bits in 0..8 {
            assert_eq!(reuse_of(bits).map(reuse_bits), Ok(bits));
        }
        assert_eq!(reuse_of(8), Err(Damage::Content));
    }

    #[test]
    fn the_body_is_not_copied() {
        let bytes = Bytes::from(encode(&answer()));
        let Ok(Stored::Answer(.., body)) = decode(bytes.clone()) else { panic!() };
        assert_eq!(body.as_ptr(), bytes[bytes.len() - body.len()..].as_ptr());
    }

    #[test]
    fn pieces_are_stored_like_their_whole() {
        let pieces = [Bytes::from_static(b"con"), Bytes::new(), Bytes::from_static(b"tent")];
        assert_eq!(encode_answer(&record(), 7, &pieces), encode(&answer()));
    }

    #[test]
    fn markers_of_other_generations_differ_only_in_checksum_and_last_eight_bytes() {
        let (one, two) = (encode(&Stored::Variants(variants(1))), encode(&Stored::Variants(variants(2))));
        assert_eq!(one.len(), two.len());
        assert_eq!(one[..VARIANTS_SUM.start], two[..VARIANTS_SUM.start]);
        assert_eq!(one[VARIANTS_SUM.end..one.len() - 8], two[VARIANTS_SUM.end..two.len() - 8]);
        let other = Variants { names: vec![HeaderName::from_static("accept-language")], ..variants(1) };
        let other = encode(&Stored::Variants(other));
        assert_eq!(one.len(), other.len());
        assert_ne!(one[VARIANTS_SUM.end..one.len() - 8], other[VARIANTS_SUM.end..one.len() - 8]);
    }

    #[test]
    fn each_kind_of_damage_is_told_apart() {
        let good = encode(&answer());
        let mut version = good.clone();
        version[4] = 2;
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for (bytes, damage) in [
            (Vec::new(), Damage::Format),
            (b"VNN".to_vec(), Damage::Format),
            (b"a value somebody else wrote".to_vec(), Damage::Format),
            (version, Damage::Format),
            (good[..9].to_vec(), Damage::Length),
            (flipped, Damage::Checksum),
            (good[..good.len() - 1].to_vec(), Damage::Checksum),
            ([&good[..], b"x"].concat(), Damage::Checksum),
            (sealed(b"").to_vec(), Damage::Length),
            (sealed(b"\x09").to_vec(), Damage::Content),
            (sealed(b"\x02\xff\xff\xff\xff").to_vec(), Damage::Length),
            (sealed(b"\x02\0\0\0\0\xff\xff\xff\xff").to_vec(), Damage::Length),
        ] {
            assert_eq!(decode(bytes.clone().into()), Err(damage), "{bytes:?}");
        }
    }

    #[test]
    fn more_lines_than_a_map_can_hold_are_damage_not_a_panic() {
        let mut out = Writer::begin(ANSWER, 0);
        let plain = encode_answer(&Record { fields: HeaderMap::new(), ..record() }, 7, &[]);
        out.raw(&plain[HEAD + 1..plain.len() - 12]);
        out.length(40_000);
        for line in 0..40_000 {
            out.bytes(format!("x-{line}").as_bytes());
            out.bytes(b"");
        }
        out.number(0);
        assert_eq!(decode(out.finish().into()), Err(Damage::Content));
    }

    proptest! {
        #[test]
        fn any_record_reads_back_the_same(
            epoch in any::<u64>(),
            key in vec(any::<u8>(), 0..50),
            status in 100u16..1000,
            received in any::<u64>(),
            times in any::<[(u64, u32); 5]>(),
            source in 0usize..7,
            bits in 0u8..8,
            values in vec(proptest::option::of(vec(any::<u8>(), 0..9)), 0..5),
            lines in vec(("[a-z][a-z0-9-]{0,9}", "[\t -~\u{80}-\u{ff}]{0,20}"), 0..20),
            body in vec(any::<u8>(), 0..300),
        ) {
            let time = |i: usize| Duration::new(times[i].0, times[i].1 % 1_000_000_000);
            let mut fields = HeaderMap::new();
            for (name, value) in &lines {
                fields.append(
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_bytes(value.as_bytes()).unwrap(),
                );
            }
            let record = Record {
                key: key.into(),
                status: StatusCode::from_u16(status).unwrap(),
                fields,
                received: WallTime::from_millis(received),
                initial_age: time(0),
                lifetime: time(1),
                source: SOURCES[source],
                reuse: reuse_of(bits).unwrap(),
                stale_while_revalidate: time(2),
                stale_if_error: time(3),
                keep: time(4),
                vary: lines.iter().map(|(n, _)| HeaderName::from_bytes(n.as_bytes()).unwrap()).collect(),
                variant: Variant(values.into_iter().map(|v| v.map(Vec::into_boxed_slice)).collect()),
            };
            let stored = Stored::Answer(record, epoch, body.into());
            prop_assert_eq!(decode(encode(&stored).into()), Ok(stored));
        }

        #[test]
        fn arbitrary_bytes_never_read(bytes in vec(any::<u8>(), 0..400)) {
            prop_assert!(decode(bytes.into()).is_err());
        }

        #[test]
        fn arbitrary_content_under_a_right_checksum_never_panics(content in vec(any::<u8>(), 0..400)) {
            let _ = decode(sealed(&content));
        }

        #[test]
        fn changed_content_under_a_right_checksum_never_panics(at in 0usize..150, to in any::<u8>(), kind in 0usize..6) {
            let stored = every_kind().swap_remove(kind);
            let mut content = encode(&stored).split_off(HEAD);
            let at = at % content.len();
            content[at] = to;
            let _ = decode(sealed(&content));
        }

        #[test]
        fn a_flipped_bit_anywhere_is_damage(at in any::<prop::sample::Index>(), bit in 0u8..8, kind in 0usize..6) {
            let stored = every_kind().swap_remove(kind);
            let mut bytes = encode(&stored);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(bytes.into()).is_err());
        }

        #[test]
        fn a_cut_anywhere_is_damage(at in any::<prop::sample::Index>(), kind in 0usize..6) {
            let stored = every_kind().swap_remove(kind);
            let bytes = Bytes::from(encode(&stored));
            prop_assert!(decode(bytes.slice(..at.index(bytes.len()))).is_err());
        }
    }
}
