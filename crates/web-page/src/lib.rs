//! Files of the web page in `ui/`, which are a part of the binary.
//!
//! The index names the version of all files, so that a browser may keep each of the others as long
//! as it likes.

mod files;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _, sync::LazyLock};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use files::FILES;

/// Name of the file that the address of the page leads to.
const INDEX: &str = "index.html";

/// Hexadecimal digits of a version.
const VERSION_CHARS: usize = 16;

/// File of the page.
#[derive(Debug)]
pub struct File {
    /// Media type.
    pub media_type: &'static str,
    /// Content.
    pub content: Vec<u8>,
    /// Content in the format gzip.
    pub compressed: Vec<u8>,
}

impl File {
    fn new(path: &str, content: Vec<u8>) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&content).expect("memory takes everything");
        let compressed = encoder.finish().expect("memory takes everything");
        Self { media_type: media_type(path), content, compressed }
    }
}

/// Page of this build.
#[derive(Debug)]
pub struct WebPage {
    /// Version of all files, in the paths of those that the index names.
    pub version: String,
    /// Document of the page.
    pub index: File,
    files: BTreeMap<&'static str, File>,
}

impl WebPage {
    /// Returns the page, which the first call makes.
    pub fn get() -> &'static Self {
        static PAGE: LazyLock<WebPage> = LazyLock::new(|| WebPage::of(FILES));
        &PAGE
    }

    fn of(files: &[(&'static str, &'static [u8])]) -> Self {
        let version = version(files);
        let index = files.iter().find(|(path, _)| *path == INDEX).map_or(&[][..], |(_, content)| content);
        let index = filled(&String::from_utf8_lossy(index), &version, files);
        let parts = files.iter().filter(|(path, _)| *path != INDEX);
        Self {
            index: File::new(INDEX, index.into_bytes()),
            files: parts.map(|(path, content)| (*path, File::new(path, content.to_vec()))).collect(),
            version,
        }
    }

    /// Returns the file at a path, other than the index.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }
}

/// Returns the digest of all files with their paths.
fn version(files: &[(&str, &[u8])]) -> String {
    let mut hasher = Sha256::new();
    for (path, content) in files {
        for part in [path.as_bytes(), content] {
            hasher.update(part.len().to_le_bytes());
            hasher.update(part);
        }
    }
    let mut text = String::new();
    for byte in hasher.finalize() {
        write!(text, "{byte:02x}").expect("a text takes everything");
    }
    text.truncate(VERSION_CHARS);
    text
}

/// Returns the index with the version in its paths, and with all modules named, so that a browser asks for
/// them at once and not one after the other.
fn filled(index: &str, version: &str, files: &[(&str, &[u8])]) -> String {
    let modules = files.iter().map(|(path, _)| path).filter(|path| path.ends_with(".js"));
    let preload: Vec<String> =
        modules.map(|path| format!("<link rel=\"modulepreload\" href=\"{version}/{path}\">")).collect();
    index.replace("{{preload}}", &preload.join("\n    ")).replace("{{version}}", version)
}

/// Returns the media type of a file by its name.
fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}
