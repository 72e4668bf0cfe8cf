use std::{error::Error, fmt};

/// Why a [`Fleet`](super::Fleet) cannot be used. Told by [`Fleet::check`](super::Fleet::check); after the start it is a
/// warning, and the process is [alone](super::Mode::Alone) until it is over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FleetError {
    /// Redis cannot be reached, or does not answer. The text is that of the `redis` crate.
    Unreachable(String),
    /// Redis answered, and refused: no permission for a command, a key or a channel; no memory left; a replica.
    Refused(String),
    /// The key belongs to something else.
    ForeignKey(String),
    /// The key was written by another version of this crate, with another layout: the layout that was found there.
    Layout(String),
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(text) => write!(f, "Redis does not answer: {text}"),
            Self::Refused(text) => write!(f, "Redis refuses: {text}"),
            Self::ForeignKey(key) => write!(f, "the key `{key}` in Redis is not a fleet's"),
            Self::Layout(found) => write!(
                f,
                "the fleet in Redis has layout {found}, and this version of tower-cooldown works with {}: \
                 give one of them another name",
                super::redis::LAYOUT
            ),
        }
    }
}

impl Error for FleetError {}
