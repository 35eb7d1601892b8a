//! Depth and size of a file with its aliases expanded, measured before its nodes are built.
//!
//! Nodes are built, copied and dropped by recursion, and an alias is a copy. So a short file can
//! describe values that are too deep for the stack (each anchor adds its own depth to that of the
//! alias in it) or too large for memory (a long string, and many aliases of it).

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, Span, SpannedEventReceiver};

use super::Error;

/// Maximum depth of values. JSON, which a topology becomes, is read to a depth of 128.
pub(super) const MAX_DEPTH: usize = 100;

/// Maximum size of all texts and nodes.
const MAX_BYTES: usize = 64 << 20;

/// Size of a node besides its text, about what it takes in memory.
const NODE_BYTES: usize = 64;

/// Checks that the values in `text` are neither too deep nor too large. An error in the syntax is
/// left to the caller, who reads the text again.
///
/// # Errors
/// The first value that is too deep, or that exceeds the size.
pub(super) fn check(text: &str) -> Result<(), Error> {
    let mut extent = Extent::default();
    // A syntax error is reported, with a better message, when the nodes are built.
    let _syntax_error = Parser::new_from_str(text).load(&mut extent, true);
    extent.fault.map_or(Ok(()), Err)
}

/// Depth and size of a value and all values in it.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    depth: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Extent {
    /// Lists and maps that are not closed, with their anchors.
    open: Vec<(usize, Size)>,
    anchors: HashMap<usize, Size>,
    bytes: usize,
    fault: Option<Error>,
}

impl Extent {
    /// Counts a complete value that begins at `span`.
    fn count(&mut self, anchor: usize, size: Size, span: Span) {
        self.bytes = self.bytes.saturating_add(size.bytes);
        self.limit(self.open.len() + size.depth, span);
        self.close(anchor, size);
    }

    /// Adds a complete value to the value around it.
    fn close(&mut self, anchor: usize, size: Size) {
        // Anchors are numbered from 1.
        if anchor > 0 {
            self.anchors.insert(anchor, size);
        }
        if let Some((_, outer)) = self.open.last_mut() {
            outer.depth = outer.depth.max(size.depth + 1);
            outer.bytes = outer.bytes.saturating_add(size.bytes);
        }
    }

    fn limit(&mut self, depth: usize, span: Span) {
        let what = if depth > MAX_DEPTH {
            format!("the values are nested more than {MAX_DEPTH} deep")
        } else if self.bytes > MAX_BYTES {
            format!("the values are larger than {} MiB", MAX_BYTES >> 20)
        } else {
            return;
        };
        self.fault.get_or_insert(Error { at: span.start.into(), what });
    }
}

impl SpannedEventReceiver<'_> for Extent {
    fn on_event(&mut self, event: Event<'_>, span: Span) {
        if self.fault.is_some() {
            return;
        }
        match event {
            Event::Scalar(text, _, anchor, _) => {
                self.count(anchor, Size { depth: 1, bytes: text.len() + NODE_BYTES }, span);
            }
            Event::Alias(anchor) => {
                // An alias within its own anchor has no size yet; it is rejected later.
                let size = self.anchors.get(&anchor).copied().unwrap_or_default();
                self.count(0, size, span);
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                self.bytes = self.bytes.saturating_add(NODE_BYTES);
                self.open.push((anchor, Size { depth: 1, bytes: NODE_BYTES }));
                self.limit(self.open.len(), span);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((anchor, size)) = self.open.pop() {
                    self.close(anchor, size);
                }
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::yaml::parse;

    fn fault(text: &str) -> String {
        parse(text).expect_err("rejected").to_string()
    }

    #[test]
    fn depth_counts_through_aliases() {
        let nested = |depth: usize, inner: &str| format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(99, "x")).is_ok());
        assert_eq!(fault(&nested(100, "x")), "1:101: the values are nested more than 100 deep");
        // Thirteen lines, each as deep as the parser reads and as deep again as the line before.
        let mut text = format!("- &a0 {}\n", nested(90, "x"));
        for n in 1..13 {
            text.push_str(&format!("- &a{n} {}\n", nested(90, &format!("*a{}", n - 1))));
        }
        assert_eq!(fault(&text), "2:97: the values are nested more than 100 deep");
    }

    #[test]
    fn aliases_of_a_long_text_are_rejected() {
        let text = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 20_000].join(", "));
        assert_eq!(fault(&text), "2:253: the values are larger than 64 MiB");
        let text = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 20].join(", "));
        assert!(parse(&text).is_ok());
    }
}
