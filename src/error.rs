use std::{error::Error, fmt, num::NonZeroUsize};

/// A setting that cannot be used. Returned when a layer is built, so that nothing fails later.
///
/// ```
/// use tower_cooldown::MicroBatchLayer;
///
/// let error = MicroBatchLayer::new(0).unwrap_err();
/// assert_eq!(error.to_string(), "invalid setting `size`: must be at least 1, is 0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    field: &'static str,
    problem: String,
}

impl InvalidSetting {
    pub(crate) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }

    /// `value`, if it is at least 1.
    pub(crate) fn positive(field: &'static str, value: usize) -> Result<NonZeroUsize, Self> {
        NonZeroUsize::new(value).ok_or_else(|| Self::new(field, "must be at least 1, is 0"))
    }

    /// The name of the setting.
    pub const fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid setting `{}`: {}", self.field, self.problem)
    }
}

impl Error for InvalidSetting {}
