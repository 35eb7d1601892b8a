//! Terminal: raw, on its second screen, and as it was at any end.

use std::{
    io::{self, Read as _, Write as _},
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::view::{Line, Style};

/// Second screen, without the cursor and without wrapping.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";

/// First screen, as it was.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Longest chunk of input that is read at once.
const CHUNK: usize = 256;

/// Size of a terminal that does not tell its own.
const DEFAULT_SIZE: Size = Size { columns: 80, rows: 24 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// The terminal. Dropping it, and a panic, bring back what was there.
pub(super) struct Screen {
    before: Termios,
    is_open: Arc<AtomicBool>,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        let screen = Self { before, is_open: Arc::new(AtomicBool::new(true)) };
        let (before, is_open, hook) =
            (screen.before.clone(), Arc::clone(&screen.is_open), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            restore(&before, &is_open);
            hook(info);
        }));
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        write(ENTER)?;
        Ok(screen)
    }

    pub(super) fn size(&self) -> Size {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
            }
            _ => DEFAULT_SIZE,
        }
    }

    /// Draws all lines in one write, so that nothing flickers.
    pub(super) fn draw(&self, lines: &[Line]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (i, Line { text: shown, style }) in lines.iter().enumerate() {
            let on = match style {
                Style::Plain => "",
                Style::Bold => "\x1b[1m",
                Style::Reverse => "\x1b[7m",
            };
            let gap = if i == 0 { "" } else { "\r\n" };
            text.push_str(&format!("{gap}{on}{shown}\x1b[0m\x1b[K"));
        }
        text.push_str("\x1b[J");
        write(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore(&self.before, &self.is_open);
    }
}

/// Brings back what was there, once: a second time would put the cursor on the message of a panic.
fn restore(before: &Termios, is_open: &AtomicBool) {
    if !is_open.swap(false, Ordering::Relaxed) {
        return;
    }
    // A terminal that is gone needs nothing.
    let _gone = write(LEAVE);
    let _gone = tcsetattr(io::stdin(), OptionalActions::Now, before);
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Reads what was typed; nothing at the end of the input. Blocks.
pub(super) fn read() -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; CHUNK];
    let n = io::stdin().lock().read(&mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}
