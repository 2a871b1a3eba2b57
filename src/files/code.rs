//! Coding content piece by piece.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::GzEncoder;

use crate::forward::coding::Coding;

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effort {
    /// As much as a client may be kept waiting for.
    Quick,
    /// As much as can be had, for what is kept.
    Best,
}

/// Content on its way into a coding.
pub struct Encoder(Inner);

enum Inner {
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

/// A window of 256 KiB: a larger one costs memory for as long as the content takes to come.
const WINDOW: u32 = 18;
/// A window of 4 MiB, for what is coded once at its best.
const LARGE_WINDOW: u32 = 22;
const BUFFER: usize = 4096;

impl Encoder {
    /// Begins a coding; `None` for identity.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(coding: Coding, effort: Effort) -> io::Result<Option<Self>> {
        let best = effort == Effort::Best;
        let out = Vec::new();
        Ok(Some(Self(match coding {
            Coding::Identity => return Ok(None),
            Coding::Brotli => {
                let (level, window) = if best { (11, LARGE_WINDOW) } else { (5, WINDOW) };
                Inner::Brotli(Box::new(brotli::CompressorWriter::new(out, BUFFER, level, window)))
            }
            Coding::Zstd => Inner::Zstd(zstd::stream::write::Encoder::new(out, if best { 19 } else { 3 })?),
            Coding::Gzip => {
                Inner::Gzip(GzEncoder::new(out, flate2::Compression::new(if best { 9 } else { 6 })))
            }
        })))
    }

    /// Takes a piece; answers with what is coded so far, which may be nothing. With `flush` all that was taken can be read from what was answered: a stream is not held back.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn write(&mut self, piece: &[u8], flush: bool) -> io::Result<Bytes> {
        let writer: &mut dyn Write = match &mut self.0 {
            Inner::Brotli(writer) => writer,
            Inner::Zstd(writer) => writer,
            Inner::Gzip(writer) => writer,
        };
        writer.write_all(piece)?;
        if flush {
            writer.flush()?;
        }
        let out = match &mut self.0 {
            Inner::Brotli(writer) => writer.get_mut(),
            Inner::Zstd(writer) => writer.get_mut(),
            Inner::Gzip(writer) => writer.get_mut(),
        };
        Ok(Bytes::from(std::mem::take(out)))
    }

    /// Ends the coding; answers with what is left of it.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn finish(self) -> io::Result<Bytes> {
        Ok(Bytes::from(match self.0 {
            Inner::Brotli(writer) => writer.into_inner(),
            Inner::Zstd(writer) => writer.finish()?,
            Inner::Gzip(writer) => writer.finish()?,
        }))
    }
}

/// Codes the whole of some content.
///
/// # Errors
/// When there is no memory for it.
pub fn whole(content: &[u8], coding: Coding, effort: Effort) -> io::Result<Bytes> {
    let Some(mut encoder) = Encoder::new(coding, effort)? else { return Ok(Bytes::copy_from_slice(content)) };
    let head = encoder.write(content, false)?;
    let tail = encoder.finish()?;
    Ok(if tail.is_empty() { head } else { [head, tail].concat().into() })
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read;

    use super::*;

    /// What a client makes of coded content, as far as it has come.
    pub fn decoded(coded: &[u8], coding: Coding) -> Vec<u8> {
        let mut out = Vec::new();
        // A stream that has not ended yet gives an error after its last byte.
        let _ = match coding {
            Coding::Brotli => brotli::Decompressor::new(coded, 4096).read_to_end(&mut out),
            Coding::Zstd => zstd::stream::read::Decoder::new(coded).expect("zstd").read_to_end(&mut out),
            Coding::Gzip => flate2::read::GzDecoder::new(coded).read_to_end(&mut out),
            Coding::Identity => (&mut &*coded).read_to_end(&mut out),
        };
        out
    }

    #[test]
    fn what_is_coded_reads_the_same_however_it_comes() {
        let text = "the quick brown fox jumps over the lazy dog\n".repeat(4000);
        for coding in Coding::ALL {
            for effort in [Effort::Quick, Effort::Best] {
                let coded = whole(text.as_bytes(), coding, effort).expect("memory");
                assert!(coded.len() < text.len() / 20, "{coding:?} {effort:?}: {}", coded.len());
                assert_eq!(decoded(&coded, coding), text.as_bytes());
            }
            let mut encoder = Encoder::new(coding, Effort::Quick).expect("memory").expect("a coding");
            let mut coded = Vec::new();
            for piece in text.as_bytes().chunks(777) {
                coded.extend_from_slice(&encoder.write(piece, false).expect("memory"));
            }
            coded.extend_from_slice(&encoder.finish().expect("memory"));
            assert_eq!(decoded(&coded, coding), text.as_bytes(), "{coding:?}");
            assert_eq!(decoded(&whole(b"", coding, Effort::Quick).expect("memory"), coding), b"");
        }
    }

    #[test]
    fn a_flushed_stream_can_be_read_as_far_as_it_was_written() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding, Effort::Quick).expect("memory").expect("a coding");
            let mut coded = Vec::new();
            for (event, sofar) in [("data: 1\n\n", "data: 1\n\n"), ("data: 2\n\n", "data: 1\n\ndata: 2\n\n")]
            {
                coded.extend_from_slice(&encoder.write(event.as_bytes(), true).expect("memory"));
                assert_eq!(decoded(&coded, coding), sofar.as_bytes(), "{coding:?}");
            }
        }
    }
}
