//! The platform that a Linux executable needs: processor, and version of the C library.

use std::io;

use object::{
    Endianness,
    elf::{EM_AARCH64, EM_X86_64, FileHeader64},
    read::{
        StringTable,
        elf::{FileHeader, ProgramHeader as _},
    },
};

use stormkeeper_model::platform::{Libc, Platform};

type Elf = FileHeader64<Endianness>;

/// Beginning of every executable of Linux.
pub const MAGIC: &[u8; 4] = b"\x7fELF";

/// Beginning of the name of a version of the GNU C library.
const GLIBC: &[u8] = b"GLIBC_";

/// Reason why a file is not a program for a worker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is no executable of 64 bits.
    #[error("it is not an executable of 64 bits for Linux")]
    NotElf(#[source] object::Error),
    /// The processor is unknown here.
    #[error("it is built for a processor (ELF machine {0}) that is neither x86_64 nor aarch64")]
    Machine(u16),
}

/// Returns what the executable `bytes` needs of its host.
///
/// # Errors
/// [`Error`].
pub fn needs(bytes: &[u8]) -> Result<Platform, Error> {
    let header = Elf::parse(bytes).map_err(Error::NotElf)?;
    let endian = header.endian().map_err(Error::NotElf)?;
    let arch = match header.e_machine(endian) {
        EM_X86_64 => "x86_64",
        EM_AARCH64 => "aarch64",
        other => return Err(Error::Machine(other.0)),
    };
    let libc = libc_needed(header, endian, bytes).map_err(Error::NotElf)?;
    Ok(Platform { arch: arch.to_owned(), libc })
}

fn libc_needed(header: &Elf, endian: Endianness, bytes: &[u8]) -> object::Result<Libc> {
    let mut interpreter = None;
    for segment in header.program_headers(endian, bytes)? {
        interpreter = interpreter.or(segment.interpreter(endian, bytes)?);
    }
    let Some(interpreter) = interpreter else { return Ok(Libc::None) };
    let interpreter = String::from_utf8_lossy(interpreter);
    if interpreter.contains("ld-musl") {
        return Ok(Libc::Other("musl".to_owned()));
    }
    let sections = header.sections(endian, bytes)?;
    let mut newest = (0, 0);
    if let Some((mut needs, strings)) = sections.gnu_verneed(endian, bytes)? {
        let strings = sections.strings(endian, bytes, strings)?;
        while let Some((_, mut versions)) = needs.next()? {
            while let Some(version) = versions.next()? {
                newest = newest.max(glibc_version(version.name(endian, strings)?).unwrap_or_default());
            }
        }
    }
    match newest {
        (0, 0) => Ok(Libc::Other(interpreter.into_owned())),
        (major, minor) => Ok(Libc::Gnu { major, minor }),
    }
}

/// Returns the newest version that the GNU C library `bytes` defines; `None` if it is another library.
///
/// # Errors
/// [`Error::NotElf`].
pub fn glibc_defined(bytes: &[u8]) -> Result<Option<(u32, u32)>, Error> {
    newest_defined(bytes).map_err(Error::NotElf)
}

fn newest_defined(bytes: &[u8]) -> object::Result<Option<(u32, u32)>> {
    let header = Elf::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let Some((mut defined, strings)) = sections.gnu_verdef(endian, bytes)? else { return Ok(None) };
    let strings: StringTable<'_> = sections.strings(endian, bytes, strings)?;
    let mut newest = None;
    while let Some((_, mut names)) = defined.next()? {
        while let Some(name) = names.next()? {
            newest = newest.max(glibc_version(name.name(endian, strings)?));
        }
    }
    Ok(newest)
}

/// Parses `GLIBC_2.36`; a third number does not count.
fn glibc_version(name: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(name.strip_prefix(GLIBC)?).ok()?;
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Returns the platform of this host, as this process sees it. Blocks.
///
/// # Errors
/// If the mappings of this process, or its C library, cannot be read.
pub fn of_this_host() -> io::Result<Platform> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let path = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..])).find(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name == "libc.so.6" || name.starts_with("libc-2.")
    });
    let version = match path {
        None => None,
        Some(path) => glibc_defined(&std::fs::read(path)?).map_err(io::Error::other)?,
    };
    let libc = match version {
        Some((major, minor)) => Libc::Gnu { major, minor },
        None if maps.contains("/ld-musl-") => Libc::Other("musl".to_owned()),
        None => Libc::None,
    };
    Ok(Platform { arch: std::env::consts::ARCH.to_owned(), libc })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_program_runs_on_this_host() {
        let own = std::fs::read(std::env::current_exe().expect("a path")).expect("readable");
        let (needs, host) = (needs(&own).expect("an executable"), of_this_host().expect("readable"));
        assert!(matches!(needs.libc, Libc::Gnu { major: 2, .. }), "{needs:?}");
        assert!(matches!(host.libc, Libc::Gnu { major: 2, .. }), "{host:?}");
        host.check(&needs).expect("it runs");
    }

    #[test]
    fn other_files_are_refused_by_what_they_are() {
        for (bytes, reason) in [
            (&b"#!/bin/sh\n"[..], "not an executable of 64 bits for Linux"),
            (b"", "not an executable of 64 bits for Linux"),
            (MAGIC, "not an executable of 64 bits for Linux"),
        ] {
            let error = needs(bytes).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
        let mut own = std::fs::read(std::env::current_exe().expect("a path")).expect("readable");
        own[18..20].copy_from_slice(&3u16.to_le_bytes());
        let error = needs(&own).expect_err("of another processor").to_string();
        assert!(error.contains("ELF machine 3"), "{error}");
        own.truncate(1000);
        assert!(needs(&own).is_err(), "cut");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(glibc_version(b"GLIBC_2.2.5"), Some((2, 2)));
        assert!(glibc_version(b"GLIBC_2.36") > glibc_version(b"GLIBC_2.4"));
        assert_eq!(glibc_version(b"GLIBC_PRIVATE"), None);
        assert_eq!(glibc_version(b"GCC_3.0"), None);
    }
}
