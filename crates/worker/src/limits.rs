//! Limits of what a worker receives and sends, in one place, because they depend on one another: what
//! one part of a worker accepts, the next one can carry.
//!
//! ```text
//!  component ─ MESSAGE ─▶ task ─ TUPLE ─▶ inbox, or a frame of FRAME ─▶ task ─ UNREAD ─▶ component
//! ```
//!
//! Authors find them in docs/multilang.md, which a test compares with this file.

use std::time::Duration;

/// Longest message of a component, in JSON. A component that never ends its message must not fill
/// memory.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Deepest nesting of lists and maps within a tuple; the limit of the JSON reader, less the message and
/// its list of values.
pub const VALUE_DEPTH_MAX: usize = 125;

/// Longest frame between workers. Workers of the previous release accept no longer one.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// Maximum number of tuples in a frame, counted once per receiving task.
pub const BATCH_TUPLES_MAX: usize = 1024;

/// Room in a frame for everything but the values of one tuple: markers, the names of its origin, its
/// receiving tasks at five bytes each, stamp and sequence.
const FRAME_ROOM: usize = 8 << 10;

/// Largest values of a tuple, in the encoding between workers. Larger ones are refused when they are
/// emitted, whichever worker they are for.
pub const TUPLE_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_ROOM;

/// Limit of the trees of one tuple: their anchors take at most three megabytes between workers.
pub const TREES_MAX: usize = 100_000;

/// Most bytes of an anchor between workers: three numbers.
const ANCHOR_BYTES: usize = 3 * 9;

/// Number of anchors for which [`FRAME_ROOM`] is enough.
const TREES_WITH_ROOM: usize = 64;

/// Largest values of a tuple that belongs to `n_trees`, at most [`TREES_MAX`].
pub const fn tuple_bytes_max(n_trees: usize) -> usize {
    TUPLE_BYTES_MAX - n_trees.saturating_sub(TREES_WITH_ROOM) * ANCHOR_BYTES
}

/// Deepest nesting in a frame: that of the values, and a few levels of the batch.
pub const FRAME_DEPTH_MAX: usize = VALUE_DEPTH_MAX + 35;

/// Factor by which the JSON of a value is at most longer than its encoding between workers: six
/// bytes for a control character, which takes one.
pub const JSON_GROWTH_MAX: usize = 6;

/// Longest text of one line in the log that comes from a component, in bytes. What is longer is cut.
pub const LOGGED_BYTES_MAX: usize = 16 << 10;

/// Limit of bytes queued for a component that does not read its stdin, which is ended then. The
/// largest tuple fits behind what is written ahead.
pub const UNREAD_BYTES_MAX: usize = JSON_GROWTH_MAX * TUPLE_BYTES_MAX + (4 << 20);

/// Longest frame that counts as small. Senders close a frame at 128 KiB; only a frame with a large
/// tuple is longer.
pub const SMALL_FRAME_BYTES: usize = 256 << 10;

/// Default limit of the bytes of all unfinished frames of a worker.
pub const UNFINISHED_BYTES: usize = 64 << 20;

/// Time for a frame that has begun, and the rate at which a long one must arrive beyond it.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a frame that must arrive in each second beyond [`FRAME_DEADLINE`].
pub const FRAME_BYTES_MIN_PER_SEC: usize = 1 << 20;

/// Time after which a sender closes a connection on which it has sent nothing.
pub const SENDER_IDLE_MAX: Duration = Duration::from_secs(120);

/// Time after which a receiver closes a connection on which nothing has arrived. Longer than that of
/// the sender, so that no frame is on its way when the connection is closed.
pub const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(300);

/// Maximum number of senders whose frames are remembered: as many as there may be connections.
pub const SENDERS_REMEMBERED: usize = 16 << 10;

/// Maximum number of runs of frames that are remembered of one sender: a sender of an earlier release
/// has one for each connection that lost frames.
pub const RUNS_REMEMBERED: usize = 16;

// Each limit admits what the one before admits.
const _: () = {
    assert!(TUPLE_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(FRAME_ROOM > 5 * BATCH_TUPLES_MAX + 2 * 256 + TREES_WITH_ROOM * ANCHOR_BYTES);
    assert!(tuple_bytes_max(TREES_MAX) > 0);
    assert!(FRAME_DEPTH_MAX > VALUE_DEPTH_MAX + 4);
    assert!(UNREAD_BYTES_MAX >= JSON_GROWTH_MAX * TUPLE_BYTES_MAX);
    assert!(IDLE_CONNECTION_MAX.as_secs() > 2 * SENDER_IDLE_MAX.as_secs());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_for_authors_name_the_limits() {
        let doc = include_str!("../../../docs/multilang.md");
        let mebibytes = |bytes: usize| format!("{} MiB", bytes >> 20);
        for (what, limit) in [
            ("a message of a component", mebibytes(MESSAGE_BYTES_MAX)),
            ("the values of a tuple", format!("{} less 8 KiB", mebibytes(FRAME_BYTES_MAX))),
            ("lists and maps within a tuple", format!("nested at most {VALUE_DEPTH_MAX} deep")),
            ("text of `log` and `error` in a line of the log", format!("{} KiB", LOGGED_BYTES_MAX >> 10)),
            ("unread stdin of a component", mebibytes(UNREAD_BYTES_MAX)),
            (
                "trees of a tuple, one for each spout tuple behind its anchors",
                format!("{},000", TREES_MAX / 1000),
            ),
        ] {
            let row = format!("| {what} | {limit}");
            assert!(doc.contains(&row), "docs/multilang.md has no row {row:?}");
        }
    }
}
