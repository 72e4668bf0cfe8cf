use crate::InvalidSetting;
use std::time::Duration;

/// A quota that the provider documents.
///
/// Without a [`burst`](Self::burst) it is a limit on every span of time: never more than `limit` calls in any
/// `window`, wherever the window begins. That is safe whether the provider counts in fixed windows or in
/// sliding ones. With a burst it is a token bucket, as AWS or Shopify describe theirs: it holds `burst` calls
/// and refills at `limit` per `window`.
///
/// ```
/// use std::time::Duration;
/// use tower_cooldown::{InvalidSetting, policy::Quota};
///
/// # fn main() -> Result<(), InvalidSetting> {
/// // Gemini's free tier: 15 calls a minute.
/// let gemini = Quota::new(15, Duration::from_secs(60))?;
/// // Shopify's REST API: 2 calls a second, 40 in store.
/// let shopify = Quota::new(2, Duration::from_secs(1))?.burst(40)?;
/// // The same rate without any burst: a call every 500 ms.
/// let even = Quota::new(2, Duration::from_secs(1))?.burst(1)?;
/// # let _ = (gemini, shopify, even);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub(super) limit: u32,
    pub(super) window: Duration,
    pub(super) burst: Option<u32>,
    pub(super) margin: Option<Duration>,
}

impl Quota {
    /// At most `limit` calls in any `window`.
    ///
    /// # Errors
    /// If `limit` or `window` is zero, or `window` is longer than a year.
    pub fn new(limit: u32, window: Duration) -> Result<Self, InvalidSetting> {
        const YEAR: Duration = Duration::from_secs(60 * 60 * 24 * 366);
        InvalidSetting::positive("limit", limit as usize)?;
        if window.is_zero() {
            return Err(InvalidSetting::new("window", "must be longer than zero"));
        }
        if window > YEAR {
            return Err(InvalidSetting::new(
                "window",
                format!("must not be longer than a year, is {window:?}"),
            ));
        }
        Ok(Self { limit, window, burst: None, margin: None })
    }

    /// Makes it a token bucket that holds `burst` calls. 1 spaces the calls evenly. Default: a window, of which all
    /// calls may leave at once.
    ///
    /// # Errors
    /// If `burst` is zero.
    pub fn burst(mut self, burst: u32) -> Result<Self, InvalidSetting> {
        InvalidSetting::positive("burst", burst as usize)?;
        self.burst = Some(burst);
        Ok(self)
    }

    /// How much longer than declared the window is taken to be. Default: a hundredth of the window.
    ///
    /// Two calls that leave one window apart do not arrive one window apart: the first may have had to
    /// connect, and the network is not even. Without a margin the first call of each window would often be
    /// refused. A token bucket has no edge, and takes no margin.
    #[must_use]
    pub const fn margin(mut self, margin: Duration) -> Self {
        self.margin = Some(margin);
        self
    }

    /// Calls a second, the margin kept.
    pub(crate) fn rate(&self) -> f64 {
        let margin = self.margin.unwrap_or(self.window / 100);
        f64::from(self.limit) / self.window.saturating_add(margin).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_that_make_no_sense_are_named() {
        let field = |quota: Result<Quota, InvalidSetting>| quota.unwrap_err().field();
        assert_eq!(field(Quota::new(0, Duration::from_secs(1))), "limit");
        assert_eq!(field(Quota::new(1, Duration::ZERO)), "window");
        assert_eq!(field(Quota::new(1, Duration::MAX)), "window");
        assert_eq!(field(Quota::new(1, Duration::from_secs(1)).unwrap().burst(0)), "burst");
    }
}
