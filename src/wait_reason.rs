/// Why a call waited before it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WaitReason {
    /// It did not.
    Normal,
    /// For its turn: calls that left before it have used the pace or the quota.
    Preflight,
    /// A refusal was recent, or the server said how long to wait.
    RateLimit,
    /// The gate was closed for a time that the policy chose after refusals.
    Adaptive,
    /// For its group in [`MicroBatch`](crate::MicroBatch).
    Batch,
}

impl WaitReason {
    /// All reasons, in the order of the tables.
    pub const ALL: [Self; 5] = [Self::Normal, Self::Preflight, Self::RateLimit, Self::Adaptive, Self::Batch];

    /// The name in logs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Preflight => "preflight",
            Self::RateLimit => "rate_limit",
            Self::Adaptive => "adaptive",
            Self::Batch => "batch",
        }
    }
}
