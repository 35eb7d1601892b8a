//! Compressed frames, on connections whose sender announced them in its greeting.
//!
//! ```text
//! frame = (COMPRESSED | length):u32 raw_length:u32 block[length - 4]
//! ```
//!
//! The block is one of LZ4, and its content is that of a frame of `raw_length` bytes. No frame is as long as
//! the bit, so a frame without it is not compressed: small frames, and those that hardly shrink, go as they
//! are.

use super::{LENGTH_BYTES, ReadError};
use crate::limits::SMALL_FRAME_BYTES;

/// Bit of the length of a compressed frame.
pub(in crate::transport) const COMPRESSED: u32 = 1 << 31;

/// Shortest frame that is compressed.
const COMPRESSED_BYTES_MIN: usize = 256;

/// Number of frames that are sent as they are after one that did not shrink.
const PAUSE: u32 = 15;

/// Most bytes that a byte of a block stands for; the format allows no more. It bounds the memory that a frame
/// takes by what was received of it.
const GROWTH_MAX: usize = 255;

/// Compression of the frames of one connection.
#[derive(Debug, Default)]
pub(in crate::transport) struct Compressor {
    frame: Vec<u8>,
    // Frames that are still sent as they are.
    n_skipped: u32,
}

impl Compressor {
    /// Returns the bytes to send for `frame`: shorter by an eighth at least, or as they are.
    pub(in crate::transport) fn shortest<'a>(&'a mut self, frame: &'a [u8]) -> &'a [u8] {
        let content = frame.get(LENGTH_BYTES..).unwrap_or_default();
        if content.len() < COMPRESSED_BYTES_MIN {
            return frame;
        }
        if self.n_skipped > 0 {
            self.n_skipped -= 1;
            return frame;
        }
        const HEAD: usize = 2 * LENGTH_BYTES;
        if self.frame.capacity() > SMALL_FRAME_BYTES {
            // The memory of a large frame is not kept.
            self.frame = Vec::new();
        }
        self.frame.resize(HEAD + lz4_flex::block::get_maximum_output_size(content.len()), 0);
        let block = lz4_flex::block::compress_into(content, &mut self.frame[HEAD..]);
        let n = block.expect("a block of the greatest size fits");
        if n + LENGTH_BYTES > content.len() - content.len() / 8 {
            self.n_skipped = PAUSE;
            return frame;
        }
        let number = |n: usize| u32::try_from(n).expect("a frame has at most 16 MiB");
        let length = COMPRESSED | number(LENGTH_BYTES + n);
        self.frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        self.frame[LENGTH_BYTES..HEAD].copy_from_slice(&number(content.len()).to_be_bytes());
        &self.frame[..HEAD + n]
    }
}

/// Writes the content of a compressed frame into `raw`.
///
/// # Errors
/// [`ReadError::Oversized`] if it has more than `limit` bytes, and [`ReadError::Damaged`].
pub(in crate::transport) fn decompress(
    content: &[u8],
    limit: usize,
    raw: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let (length, block) = content.split_first_chunk::<LENGTH_BYTES>().ok_or(ReadError::Damaged)?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > limit {
        return Err(ReadError::Oversized { length, limit });
    }
    if length > block.len().saturating_mul(GROWTH_MAX) {
        return Err(ReadError::Damaged);
    }
    if raw.capacity() > SMALL_FRAME_BYTES {
        *raw = Vec::new();
    }
    raw.resize(length, 0);
    match lz4_flex::block::decompress_into(block, raw) {
        Ok(n) if n == length => Ok(()),
        Ok(_) | Err(_) => Err(ReadError::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::FRAME_BYTES_MAX;

    fn frame_of(content: &[u8]) -> Vec<u8> {
        [&u32::try_from(content.len()).expect("small").to_be_bytes()[..], content].concat()
    }

    /// The content of a frame as it was sent, and whether it is compressed.
    fn parts(sent: &[u8]) -> (&[u8], bool) {
        let (length, content) = sent.split_first_chunk::<4>().expect("a length");
        let length = u32::from_be_bytes(*length);
        assert_eq!((length & !COMPRESSED) as usize, content.len());
        (content, length & COMPRESSED != 0)
    }

    fn words(n: usize) -> Vec<u8> {
        (0..n).flat_map(|n| format!("word {} of the sentence, ", n % 50).into_bytes()).collect()
    }

    #[test]
    fn frame_of_words_shrinks_to_less_than_a_quarter_and_is_read_as_it_was() {
        let content = words(1000);
        let (mut compressor, mut raw) = (Compressor::default(), Vec::new());
        let frame = frame_of(&content);
        let sent = compressor.shortest(&frame);
        assert!(sent.len() * 4 < frame.len(), "{} of {}", sent.len(), frame.len());
        let (compressed, is_compressed) = parts(sent);
        assert!(is_compressed);
        decompress(compressed, FRAME_BYTES_MAX, &mut raw).expect("valid");
        assert_eq!(raw, content);
    }

    #[test]
    fn frame_that_does_not_shrink_is_sent_as_it_is_and_so_are_some_after_it() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(10_000).collect();
        let (noise, words, mut compressor) =
            (frame_of(&noise), frame_of(&words(1000)), Compressor::default());
        assert_eq!(compressor.shortest(&noise), noise);
        for _ in 0..PAUSE {
            assert_eq!(compressor.shortest(&words), words);
        }
        assert!(compressor.shortest(&words).len() < words.len());
        let small = frame_of(&[7; COMPRESSED_BYTES_MIN - 1]);
        assert_eq!(compressor.shortest(&small), small);
    }

    #[test]
    fn oversized_and_damaged_frames_are_refused_before_their_memory_is_taken() {
        let frame = frame_of(&words(1000));
        let sent = Compressor::default().shortest(&frame).to_vec();
        let (content, _) = parts(&sent);
        let mut raw = Vec::new();
        let limit = frame.len() - LENGTH_BYTES - 1;
        assert!(matches!(decompress(content, limit, &mut raw), Err(ReadError::Oversized { .. })));
        assert_eq!(raw.capacity(), 0);
        let bomb = [&16_000_000_u32.to_be_bytes()[..], &content[4..]].concat();
        assert!(matches!(decompress(&bomb, FRAME_BYTES_MAX, &mut raw), Err(ReadError::Damaged)));
        assert_eq!(raw.capacity(), 0);
        for cut in [0, 3, 4, 10, content.len() - 1] {
            assert!(decompress(&content[..cut], FRAME_BYTES_MAX, &mut raw).is_err(), "{cut} bytes");
        }
        let mut short = content.to_vec();
        short[3] = short[3].wrapping_sub(1);
        assert!(
            decompress(&short, FRAME_BYTES_MAX, &mut raw).is_err(),
            "a length that is not that of the block"
        );
    }

    proptest! {
        #[test]
        fn any_content_is_read_as_it_was(n in 0..3000_usize, seed: u64, letters in 1..40_u8) {
            let mut random = fastrand::Rng::with_seed(seed);
            let content: Vec<u8> = std::iter::repeat_with(|| random.u8(..letters)).take(n).collect();
            let frame = frame_of(&content);
            let mut compressor = Compressor::default();
            let (sent, is_compressed) = parts(compressor.shortest(&frame));
            let mut raw = Vec::new();
            match is_compressed {
                true => decompress(sent, FRAME_BYTES_MAX, &mut raw).expect("valid"),
                false => raw = sent.to_vec(),
            }
            prop_assert_eq!(raw, content);
        }

        #[test]
        fn any_bytes_are_refused_or_read_within_the_limit(
            content in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut raw = Vec::new();
            if decompress(&content, 1000, &mut raw).is_ok() {
                prop_assert!(raw.len() <= 1000);
            }
        }
    }
}
