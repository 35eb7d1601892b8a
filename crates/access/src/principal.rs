//! Sender of a request.

use std::{fmt, str::FromStr};

use stormkeeper_model::TopologyId;

/// Role of a token. Each role may do what the roles before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Reader,
    /// Submits and changes topologies, and drains hosts.
    Operator,
    /// Recovers a tree, and reads packages.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Operator, Self::Admin];

    /// Name in files and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Error of a text that is no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `reader`, `operator` or `admin`")]
pub struct InvalidRole;

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(InvalidRole)
    }
}

/// Person or program with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Name of the token.
    pub name: String,
    /// Role of the token.
    pub role: Role,
    /// Owner to whose topologies the token is limited.
    pub owner: Option<String>,
}

/// Sender of a request, as far as it has proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Sender without a proof, where none is required.
    Anyone,
    /// Person or program with a token.
    Person(Person),
    /// Nimbus or supervisor with the cluster secret; the name is its own statement.
    Daemon(String),
    /// Worker with the key of its topology.
    Worker(TopologyId),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Person(Person { name, role, owner: None }) => write!(f, "{name} ({role})"),
            Self::Person(Person { name, role, owner: Some(owner) }) => {
                write!(f, "{name} ({role}, topologies of {owner})")
            }
            Self::Daemon(name) => write!(f, "the daemon {name}"),
            Self::Worker(topology) => write!(f, "a worker of {topology}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_and_survive_formatting() {
        assert!(Role::Reader < Role::Operator && Role::Operator < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("Reader".parse::<Role>(), Err(InvalidRole));
    }
}
