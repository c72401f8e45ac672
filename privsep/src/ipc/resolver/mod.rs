//! Messages between supervisor and resolver, and from a process that asks one question to the resolver.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Address, Identity, MAX_PATHS, Message};

/// Most names of a tunnel: one for each end of a path.
pub const MAX_NAMES: usize = 2 * MAX_PATHS;
/// Longest name in bytes (RFC 1035).
pub const MAX_NAME: usize = 253;
/// Most addresses of a name that are used.
pub const MAX_ADDRESSES: usize = 8;
/// Most questions that are asked at once. The memory limit of the unit has room for their processes.
pub const MAX_QUESTIONS: usize = 2;
/// Memory limit of the process of a question in bytes.
pub const QUESTION_MEMORY: u64 = 32 << 20;
/// Longest time for a question. The C library tries each name server for 10 s by default (resolv.conf(5)).
pub const LONGEST_QUESTION: Duration = Duration::from_secs(30);
/// Longest reason for which a name has no address, in characters.
pub const MAX_REASON: usize = 100;

/// Supervisor to resolver.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToResolver {
    /// First message.
    Start {
        /// [`crate::PROTOCOL`] of the supervisor.
        protocol: u32,
        /// User to become; `None` if the program was started without root.
        become_user: Option<Identity>,
        /// Whether the resolver must not ask if the kernel lacks a means of confinement.
        required: bool,
        /// All names of the tunnel; at most [`MAX_NAMES`] of at most [`MAX_NAME`] bytes.
        names: Vec<String>,
    },
    /// Asks for the addresses of the name with this number.
    Ask(u8),
}

impl Message for ToResolver {
    const MAX: usize = MAX_NAMES * (MAX_NAME + 2) + 32;
}

/// Answer to a question: at most [`MAX_ADDRESSES`] addresses with port 0, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer(pub Result<Vec<Address>, String>);

impl Message for Answer {
    /// An address takes at most 26 bytes, a character 4.
    const MAX: usize = 32 * MAX_ADDRESSES + 4 * MAX_REASON;
}

/// Resolver to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromResolver {
    /// Number of a name, and the answer.
    Answer(u8, Answer),
    /// The kernel lacks these means of confinement, which are required. No answer follows.
    Lacks(String),
    /// Reason why no answer follows, of at most [`MAX_REASON`] characters.
    Failed(String),
}

impl Message for FromResolver {
    const MAX: usize = Answer::MAX + 3;
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddrV6};

    use super::*;
    use crate::PROTOCOL;

    #[test]
    fn greatest_messages_fit() {
        let fits = |length: usize, most: usize| assert!(length <= most, "{length} of {most}");
        let identity = Identity { uid: u32::MAX, gid: u32::MAX };
        let names = vec!["x".repeat(MAX_NAME); MAX_NAMES];
        let start = ToResolver::Start { protocol: PROTOCOL, become_user: Some(identity), required: true, names };
        fits(postcard::to_allocvec(&start).unwrap().len(), ToResolver::MAX);
        let address = SocketAddrV6::new(Ipv6Addr::from(u128::MAX), u16::MAX, 0, u32::MAX);
        for answer in [Ok(vec![Address(address.into()); MAX_ADDRESSES]), Err("\u{10ffff}".repeat(MAX_REASON))] {
            fits(postcard::to_allocvec(&Answer(answer.clone())).unwrap().len(), Answer::MAX);
            fits(
                postcard::to_allocvec(&FromResolver::Answer(u8::MAX, Answer(answer))).unwrap().len(),
                FromResolver::MAX,
            );
        }
    }
}
