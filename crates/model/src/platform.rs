//! Platforms: what a host has, and what a program needs of its host.

use std::{convert::Infallible, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Processor and C library: of a host, or as a program needs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Architecture of the processor by Rust's name, such as `x86_64`.
    pub arch: String,
    /// C library.
    pub libc: Libc,
}

/// C library of a host, or the one that a program needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Libc {
    /// The GNU C library: the version of a host, or the oldest with which a program runs.
    Gnu {
        /// Major version.
        major: u32,
        /// Minor version.
        minor: u32,
    },
    /// None: a program that is linked statically.
    None,
    /// Another one, by its name.
    Other(String),
}

/// The author's program that is the worker of a topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Version of Stormkeeper with which it was built.
    pub version: String,
    /// Formats that it reads and writes.
    pub formats: Formats,
    /// Hosts on which it runs.
    pub needs: Platform,
}

/// Formats in which a worker talks to a supervisor and to the tree. All workers of a topology are one
/// program, so what they say to each other is not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formats {
    /// Newest format of the launch specification that it reads.
    pub launch: u32,
    /// Version of the layout of the tree.
    pub tree: u32,
}

/// Reason why a program cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The program is for another processor.
    #[error("it is built for {needed} and the host is {has}; build it for {has}")]
    Arch {
        /// Architecture of the program.
        needed: String,
        /// Architecture of the host.
        has: String,
    },
    /// The host's C library is another one, or too old.
    #[error(
        "it needs {needed} and the host has {has}; build it on a system that is as old as the oldest host, or link it \
         statically (target {arch}-unknown-linux-musl)"
    )]
    Libc {
        /// C library of the program.
        needed: Libc,
        /// C library of the host.
        has: Libc,
        /// Architecture of both.
        arch: String,
    },
    /// The program is older or newer than the daemons, by more than one format.
    #[error(
        "it is built with Stormkeeper {version}, whose {what} has version {has}, and the cluster has version {needed}; \
         build it with the version of the cluster"
    )]
    Formats {
        /// Version with which the program was built.
        version: String,
        /// Name of the format.
        what: &'static str,
        /// Version of the program's format.
        has: u32,
        /// Version of the cluster's.
        needed: u32,
    },
}

impl Platform {
    /// Checks that a program which needs `needed` runs on this host.
    ///
    /// # Errors
    /// [`Unfit::Arch`] and [`Unfit::Libc`].
    pub fn check(&self, needed: &Self) -> Result<(), Unfit> {
        if self.arch != needed.arch {
            return Err(Unfit::Arch { needed: needed.arch.clone(), has: self.arch.clone() });
        }
        let is_there = match (&self.libc, &needed.libc) {
            (_, Libc::None) => true,
            (Libc::Gnu { major, minor }, Libc::Gnu { major: least, minor: least_minor }) => {
                (major, minor) >= (least, least_minor)
            }
            (has, needs) => has == needs,
        };
        match is_there {
            true => Ok(()),
            false => Err(Unfit::Libc {
                needed: needed.libc.clone(),
                has: self.libc.clone(),
                arch: self.arch.clone(),
            }),
        }
    }
}

impl Program {
    /// Checks that the program speaks the formats of a cluster.
    ///
    /// # Errors
    /// [`Unfit::Formats`].
    pub fn check_formats(&self, cluster: Formats) -> Result<(), Unfit> {
        let Formats { launch, tree } = self.formats;
        // A worker reads the specification of an older supervisor; the tree has one layout.
        let formats = [
            ("launch specification", launch, cluster.launch, launch >= cluster.launch),
            ("layout of the tree", tree, cluster.tree, tree == cluster.tree),
        ];
        match formats.into_iter().find(|(.., fits)| !fits) {
            None => Ok(()),
            Some((what, has, needed, _)) => {
                Err(Unfit::Formats { version: self.version.clone(), what, has, needed })
            }
        }
    }
}

impl fmt::Display for Libc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gnu { major, minor } => write!(f, "gnu-{major}.{minor}"),
            Self::None => f.write_str("none"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl FromStr for Libc {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let gnu = || {
            let (major, minor) = text.strip_prefix("gnu-")?.split_once('.')?;
            Some(Self::Gnu { major: major.parse().ok()?, minor: minor.parse().ok()? })
        };
        Ok(match text {
            "none" => Self::None,
            _ => gnu().unwrap_or_else(|| Self::Other(text.to_owned())),
        })
    }
}

impl Serialize for Libc {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Libc {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Ok(libc) = String::deserialize(from)?.parse();
        Ok(libc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(arch: &str, libc: &str) -> Platform {
        let Ok(libc) = libc.parse();
        Platform { arch: arch.to_owned(), libc }
    }

    #[test]
    fn program_runs_with_its_c_library_or_a_newer_one() {
        let host = platform("x86_64", "gnu-2.36");
        for fits in ["gnu-2.36", "gnu-2.34", "gnu-1.99", "none"] {
            assert_eq!(host.check(&platform("x86_64", fits)), Ok(()), "{fits}");
        }
        for unfit in ["gnu-2.37", "gnu-3.0", "musl"] {
            let error = host.check(&platform("x86_64", unfit)).expect_err(unfit).to_string();
            assert!(error.starts_with(&format!("it needs {unfit} and the host has gnu-2.36")), "{error}");
        }
        let error = host.check(&platform("aarch64", "none")).expect_err("another processor").to_string();
        assert!(error.contains("built for aarch64 and the host is x86_64"), "{error}");
        assert_eq!(platform("x86_64", "musl").check(&platform("x86_64", "musl")), Ok(()));
    }

    #[test]
    fn c_library_survives_as_text() {
        for text in ["gnu-2.36", "none", "musl", "gnu-x"] {
            let Ok(libc) = text.parse::<Libc>();
            assert_eq!(libc.to_string(), text);
            let json = serde_json::to_string(&libc).expect("written");
            assert_eq!(serde_json::from_str::<Libc>(&json).expect("read"), libc);
        }
    }

    #[test]
    fn program_of_other_formats_is_unfit_by_name() {
        let ours = Formats { launch: 2, tree: 1 };
        let program =
            |formats| Program { version: "0.1.0".to_owned(), formats, needs: platform("x86_64", "none") };
        assert_eq!(program(ours).check_formats(ours), Ok(()));
        assert_eq!(program(Formats { launch: 3, ..ours }).check_formats(ours), Ok(()));
        for (formats, what) in [
            (Formats { launch: 1, ..ours }, "launch specification has version 1"),
            (Formats { tree: 2, ..ours }, "layout of the tree has version 2"),
        ] {
            let error = program(formats).check_formats(ours).expect_err(what).to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
