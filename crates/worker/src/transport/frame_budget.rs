//! Limits on frames that have begun and are not complete: bytes of all of them together, and the time
//! of each.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::wire::{ReadError, compressed::COMPRESSED, read_content};
use crate::limits::{FRAME_BYTES_MIN_PER_SEC, FRAME_DEADLINE, IDLE_CONNECTION_MAX, SMALL_FRAME_BYTES};

/// Bytes that unfinished frames of all connections may hold. One half is for small frames, so that
/// large ones, which take longer, do not delay them. A frame gets its bytes before it is read, in the
/// order of arrival; until then its connection is not read, and its sender waits.
#[derive(Debug, Clone)]
pub(crate) struct FrameBudget {
    shared: Arc<Halves>,
}

#[derive(Debug)]
struct Halves {
    small: Semaphore,
    large: Semaphore,
    half: usize,
}

impl FrameBudget {
    /// A budget of `bytes` in all.
    pub(crate) fn new(bytes: usize) -> Self {
        let half = (bytes / 2).clamp(SMALL_FRAME_BYTES, Semaphore::MAX_PERMITS);
        Self { shared: Arc::new(Halves { small: Semaphore::new(half), large: Semaphore::new(half), half }) }
    }

    /// Takes the bytes of a frame. A frame that is longer than the half takes all of it.
    async fn take(&self, length: usize) -> Option<SemaphorePermit<'_>> {
        let half = match length <= SMALL_FRAME_BYTES {
            true => &self.shared.small,
            false => &self.shared.large,
        };
        let n = u32::try_from(length.min(self.shared.half)).unwrap_or(u32::MAX);
        // Fails only if the semaphore is closed, which never happens.
        half.acquire_many(n).await.ok()
    }

    /// Reads the content of the next frame into `content`, as [`read_frame`](super::wire::read_frame)
    /// does, within the limits.
    ///
    /// # Errors
    /// Also [`ReadError::Idle`] if no frame begins, and [`ReadError::Slow`] if a frame is not complete
    /// in time.
    pub(crate) async fn read_frame(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        limit: usize,
        content: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        self.read(reader, limit, content, false).await.map(|_is_compressed| ())
    }

    /// Reads the content of the next frame, which may be compressed, into `content` as it is. Returns
    /// whether it is compressed.
    ///
    /// # Errors
    /// As [`read_frame`](Self::read_frame).
    pub(super) async fn read_compressed_frame(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        limit: usize,
        content: &mut Vec<u8>,
    ) -> Result<bool, ReadError> {
        self.read(reader, limit, content, true).await
    }

    async fn read(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        limit: usize,
        content: &mut Vec<u8>,
        may_be_compressed: bool,
    ) -> Result<bool, ReadError> {
        if content.capacity() > SMALL_FRAME_BYTES {
            // The memory of a large frame is not kept for the life of its connection.
            *content = Vec::new();
        }
        let mut length = [0; size_of::<u32>()];
        timeout(IDLE_CONNECTION_MAX, reader.read_exact(&mut length[..1]))
            .await
            .map_err(|_elapsed| ReadError::Idle)?
            .map_err(ReadError::Io)?;
        timeout(FRAME_DEADLINE, reader.read_exact(&mut length[1..]))
            .await
            .map_err(|_elapsed| ReadError::Slow { length: None })?
            .map_err(ReadError::Io)?;
        let length = u32::from_be_bytes(length);
        let is_compressed = may_be_compressed && length & COMPRESSED != 0;
        let length = if is_compressed { length & !COMPRESSED } else { length } as usize;
        if length > limit {
            return Err(ReadError::Oversized { length, limit });
        }
        let _taken = self.take(length).await;
        timeout(deadline(length), read_content(reader, length, content))
            .await
            .map_err(|_elapsed| ReadError::Slow { length: Some(length) })??;
        Ok(is_compressed)
    }

    /// Returns the bytes that are free, of small and of large frames.
    #[cfg(test)]
    pub(super) fn free(&self) -> (usize, usize) {
        (self.shared.small.available_permits(), self.shared.large.available_permits())
    }
}

/// Time for the content of a frame.
fn deadline(length: usize) -> Duration {
    FRAME_DEADLINE + Duration::from_secs((length / FRAME_BYTES_MIN_PER_SEC) as u64)
}
