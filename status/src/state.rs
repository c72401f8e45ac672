//! States of a tunnel and of a path.

use std::fmt;

use privsep::ipc::PathHealth;
use serde::{Deserialize, Serialize};

/// An enum of states, each with its word in the JSON and in messages. A state of another version is read as `Unknown`.
macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$meta:meta])* $state:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$meta])* #[serde(rename = $word)] $state,)*
            /// State of a version with more states than this one.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl $name {
            /// All states of this version.
            pub const ALL: &[Self] = &[$(Self::$state),*];

            /// Word of the state.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$state => $word,)*
                    Self::Unknown => "unknown",
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

states! {
    /// State of a tunnel.
    State {
        /// No worker has started yet.
        #[default]
        Starting = "starting",
        /// The peer has not answered yet.
        Connecting = "connecting",
        /// The tunnel forwards.
        Up = "up",
        /// The two ends do not agree.
        Mismatch = "mismatch",
        /// The peer does not answer any more.
        Down = "down",
        /// The local side does not work.
        LocalDown = "local-down",
        /// A loop was detected, and no frame is forwarded.
        Blocked = "blocked",
        /// The helper has ended.
        Degraded = "degraded",
    }
}

states! {
    /// State of a path.
    PathState {
        /// The peer has not answered yet.
        #[default]
        Connecting = "connecting",
        /// The peer answers.
        Up = "up",
        /// The peer does not answer any more.
        Down = "down",
        /// The two ends do not agree.
        Mismatch = "mismatch",
        /// The running tunnel does not have this path of its file.
        Absent = "absent",
    }
}

impl From<PathHealth> for PathState {
    fn from(health: PathHealth) -> Self {
        match health {
            PathHealth::Connecting => Self::Connecting,
            PathHealth::Up => Self::Up,
            PathHealth::Down => Self::Down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_travel_as_their_words() {
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
            assert_eq!(serde_json::from_value::<State>(state.word().into()).unwrap(), *state);
        }
        for state in PathState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
        }
        assert_eq!(serde_json::from_str::<State>("\"of-tomorrow\"").unwrap(), State::Unknown);
    }
}
