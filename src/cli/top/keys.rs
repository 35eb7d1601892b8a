//! Keys, from the bytes that a terminal sends. Pure.

/// Key that has a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Back,
    Reverse,
    Quit,
}

/// Sequences of several bytes, as terminals and `vi` users know them.
const SEQUENCES: &[(&[u8], Key)] = &[
    (b"\x1b[A", Key::Up),
    (b"\x1bOA", Key::Up),
    (b"\x1b[B", Key::Down),
    (b"\x1bOB", Key::Down),
    (b"\x1b[C", Key::Right),
    (b"\x1bOC", Key::Right),
    (b"\x1b[D", Key::Left),
    (b"\x1bOD", Key::Left),
    (b"\x1b[5~", Key::PageUp),
    (b"\x1b[6~", Key::PageDown),
    (b"\x1b[H", Key::Home),
    (b"\x1b[1~", Key::Home),
    (b"\x1b[F", Key::End),
    (b"\x1b[4~", Key::End),
];

/// Reads the keys of one chunk of input. Bytes without a meaning are left out.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        if let Some((sequence, key)) = SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence)) {
            keys.push(*key);
            bytes = &bytes[sequence.len()..];
            continue;
        }
        bytes = rest;
        keys.extend(match first {
            b'k' => Some(Key::Up),
            b'j' => Some(Key::Down),
            b'h' | b'<' => Some(Key::Left),
            b'l' | b'>' | b's' => Some(Key::Right),
            b'g' => Some(Key::Home),
            b'G' => Some(Key::End),
            b'r' => Some(Key::Reverse),
            b'\r' | b'\n' => Some(Key::Enter),
            // Ctrl-C and Ctrl-D are bytes, as the terminal is raw.
            b'q' | 3 | 4 => Some(Key::Quit),
            // Backspace, and Esc alone.
            8 | 127 => Some(Key::Back),
            0x1b if !rest.starts_with(b"[") && !rest.starts_with(b"O") => Some(Key::Back),
            0x1b => {
                bytes = after_unknown(rest);
                None
            }
            _ => None,
        });
    }
    keys
}

/// Skips an unknown sequence up to its last byte, so that its letters are no keys.
fn after_unknown(rest: &[u8]) -> &[u8] {
    let end = rest.iter().skip(1).position(|byte| (0x40..=0x7e).contains(byte));
    end.map_or(&[], |end| &rest[end + 2..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_unknown_sequences_are_skipped_whole() {
        assert_eq!(parse(b"\x1b[A\x1b[B\x1bOCj"), [Key::Up, Key::Down, Key::Right, Key::Down]);
        assert_eq!(parse(b"\x1b"), [Key::Back]);
        assert_eq!(parse(b"\x1b[5~\x1b[1;5Cq"), [Key::PageUp, Key::Quit], "Ctrl and an arrow");
        assert_eq!(parse(b"\x1b[15~\x03"), [Key::Quit], "F5, Ctrl-C");
        assert_eq!(parse("xyz\u{e4}\r".as_bytes()), [Key::Enter]);
        assert_eq!(parse(b"\x1b[0q\x1b[1;2r"), [], "their letters are no keys");
        assert_eq!(parse(b"\x1b["), []);
    }
}
