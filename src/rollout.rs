//! On, off, or a percentage, changeable while the program runs.

use crate::InvalidSetting;
use std::{
    env, fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};

/// The environment variable that [`Rollout::from_env`] reads.
pub const ROLLOUT_VARIABLE: &str = "TOWER_COOLDOWN_ROLLOUT";

/// A switch that decides which calls a layer works on. Its clones are one switch.
///
/// A call outside the rollout goes straight through, as if the layer were not there, and is recorded as such
/// ([`Arm::Control`](crate::record::Arm::Control)), so that the two sides can be compared in one snapshot.
///
/// ```
/// use tower_cooldown::{AdaptiveCooldownLayer, InvalidSetting, Rollout};
///
/// # fn main() -> Result<(), InvalidSetting> {
/// let rollout = Rollout::percent(10)?;
/// let layer = AdaptiveCooldownLayer::new().rollout(rollout.clone());
/// // later, from an admin endpoint or a signal handler
/// rollout.set(50)?;
/// assert!(rollout.set(101).is_err());
/// assert_eq!(rollout.get(), 50);
/// # let _ = layer;
/// # Ok(())
/// # }
/// ```
///
/// [`AdaptiveCooldownLayer`](crate::AdaptiveCooldownLayer::rollout) and
/// [`MicroBatchLayer`](crate::MicroBatchLayer::rollout) take one. A fallback serves both sides, and a call
/// outside is [not retried](crate::retry), because there was no gate before it.
///
/// A change counts for calls that come after it. To let go at once those that wait already, call
/// [`Handle::reset`](crate::Handle::reset) as well.
///
/// # Sticky by key
///
/// Without a key every attempt is decided on its own, evenly spread: of any hundred, as many are inside as the
/// percentage says. With a key (a tenant, a user) all calls of that key are on the same side, in every
/// process, and a raise of the percentage only ever moves keys inside. What counts is how the key hashes, so use
/// one type for it everywhere: a `String` and a `HeaderValue` of the same text are two keys. `None` is a key, too:
/// all requests without the header are on the same side. Give a key also where more than one
/// layer of a stack, or a retry, should decide alike; see [`by`](Self::by).
#[derive(Clone)]
pub struct Rollout {
    switch: Arc<Switch>,
}

struct Switch {
    percent: AtomicU8,
    calls: AtomicU64,
}

impl Rollout {
    /// All calls.
    pub fn on() -> Self {
        Self::new(100)
    }

    /// No call.
    pub fn off() -> Self {
        Self::new(0)
    }

    /// This share of the calls, 0 to 100.
    ///
    /// # Errors
    /// If `percent` is above 100.
    pub fn percent(percent: u8) -> Result<Self, InvalidSetting> {
        Ok(Self::new(checked(percent)?))
    }

    /// What the environment variable `TOWER_COOLDOWN_ROLLOUT` says: `off`, `on`, `true`, `false`, or a number
    /// from `0` to `100`. On where it is not set.
    ///
    /// # Errors
    /// If it holds anything else.
    pub fn from_env() -> Result<Self, InvalidSetting> {
        match env::var_os(ROLLOUT_VARIABLE) {
            Some(value) => value.to_string_lossy().parse(),
            None => Ok(Self::on()),
        }
    }

    fn new(percent: u8) -> Self {
        Self { switch: Arc::new(Switch { percent: AtomicU8::new(percent), calls: AtomicU64::new(0) }) }
    }

    /// Changes the percentage, for all clones, from the next call on.
    ///
    /// # Errors
    /// If `percent` is above 100; nothing changes then.
    pub fn set(&self, percent: u8) -> Result<(), InvalidSetting> {
        self.switch.percent.store(checked(percent)?, Relaxed);
        Ok(())
    }

    /// The present percentage.
    pub fn get(&self) -> u8 {
        self.switch.percent.load(Relaxed)
    }

    /// Whether the next call is inside.
    pub fn admits(&self) -> bool {
        match self.get() {
            0 => false,
            100 => true,
            percent => {
                // Multiples of the golden ratio spread evenly over the unit interval (Weyl's theorem).
                const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
                position(self.switch.calls.fetch_add(1, Relaxed).wrapping_mul(GOLDEN)) < percent
            }
        }
    }

    /// Whether calls with this key are inside.
    pub fn admits_key<K: Hash + ?Sized>(&self, key: &K) -> bool {
        match self.get() {
            0 => false,
            100 => true,
            percent => {
                let mut hasher = StableHasher::default();
                key.hash(&mut hasher);
                position(hasher.finish()) < percent
            }
        }
    }

    /// The same switch, sticky by the key that `key` finds in a request.
    ///
    /// ```
    /// use http::Request;
    /// use tower_cooldown::{AdaptiveCooldownLayer, Rollout};
    ///
    /// let rollout = Rollout::off();
    /// let layer = AdaptiveCooldownLayer::new()
    ///     .rollout(rollout.by(|request: &Request<String>| request.headers().get("x-tenant").cloned()));
    /// # let _ = layer;
    /// ```
    pub fn by<F, Req, Key>(&self, key: F) -> KeyedRollout<F>
    where
        F: Fn(&Req) -> Key,
        Key: Hash,
    {
        KeyedRollout { rollout: self.clone(), key }
    }
}

/// Decides which requests a layer works on.
///
/// Implemented by [`Everyone`] (a layer without a rollout), [`Rollout`] (call by call) and [`KeyedRollout`]
/// (sticky by key).
pub trait Admit<Req> {
    /// Whether the layer works on this request. Asked once per attempt.
    fn admits_request(&self, request: &Req) -> bool;

    /// Whether it works on all requests at present. Only then does a closed gate show in `poll_ready`, where
    /// there is no request yet to decide by.
    fn admits_all(&self) -> bool;
}

/// All requests: what a layer does that was given no rollout.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everyone;

impl<Req> Admit<Req> for Everyone {
    fn admits_request(&self, _: &Req) -> bool {
        true
    }

    fn admits_all(&self) -> bool {
        true
    }
}

impl<Req> Admit<Req> for Rollout {
    fn admits_request(&self, _: &Req) -> bool {
        self.admits()
    }

    fn admits_all(&self) -> bool {
        self.get() == 100
    }
}

/// A [`Rollout`] that is sticky by a key. Made by [`Rollout::by`].
#[derive(Clone)]
pub struct KeyedRollout<F> {
    rollout: Rollout,
    key: F,
}

impl<F, Req, Key> Admit<Req> for KeyedRollout<F>
where
    F: Fn(&Req) -> Key,
    Key: Hash,
{
    fn admits_request(&self, request: &Req) -> bool {
        self.rollout.admits_key(&(self.key)(request))
    }

    fn admits_all(&self) -> bool {
        self.rollout.get() == 100
    }
}

impl<F> fmt::Debug for KeyedRollout<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRollout").field("rollout", &self.rollout).finish_non_exhaustive()
    }
}

fn checked(percent: u8) -> Result<u8, InvalidSetting> {
    if percent > 100 {
        return Err(InvalidSetting::new("rollout", format!("must be from 0 to 100 percent, is {percent}")));
    }
    Ok(percent)
}

/// Maps 64 evenly spread bits to 0..100.
fn position(bits: u64) -> u8 {
    ((u128::from(bits) * 100) >> 64) as u8
}

/// [FNV-1a][fnv] with the finalizer of SplitMix64: the same in every process and every release, which the
/// standard library's hashers do not promise. Keys of integers hash by their bytes in native order.
///
/// [fnv]: http://www.isthe.com/chongo/tech/comp/fnv/
struct StableHasher(u64);

impl Default for StableHasher {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    fn finish(&self) -> u64 {
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }
}

impl Default for Rollout {
    fn default() -> Self {
        Self::on()
    }
}

impl fmt::Debug for Rollout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rollout").field("percent", &self.get()).finish()
    }
}

impl FromStr for Rollout {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, InvalidSetting> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("on") || text.eq_ignore_ascii_case("true") {
            return Ok(Self::on());
        }
        if text.eq_ignore_ascii_case("off") || text.eq_ignore_ascii_case("false") {
            return Ok(Self::off());
        }
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse::<u8>() {
            Ok(percent) if digits && percent <= 100 => Ok(Self::new(percent)),
            _ => Err(InvalidSetting::new(
                "rollout",
                format!(
                    "must be off, on, true, false, or a number from 0 to 100, is {:?}",
                    text.chars().take(40).collect::<String>()
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers() {
        for (text, percent) in [
            ("on", 100),
            ("true", 100),
            ("ON", 100),
            ("off", 0),
            ("False", 0),
            ("0", 0),
            ("1", 1),
            (" 50 ", 50),
            ("100", 100),
        ] {
            assert_eq!(text.parse::<Rollout>().unwrap().get(), percent, "{text}");
        }
        for text in ["", "101", "256", "-1", "+5", "1.5", "yes", "50%", "10 20", &"9".repeat(1000)] {
            assert_eq!(text.parse::<Rollout>().unwrap_err().field(), "rollout", "{text}");
        }
    }

    #[test]
    fn out_of_range_changes_nothing() {
        assert_eq!(Rollout::percent(101).unwrap_err().field(), "rollout");
        let rollout = Rollout::percent(30).unwrap();
        assert!(rollout.set(101).is_err());
        assert_eq!(rollout.get(), 30);
    }

    #[test]
    fn every_hundred_calls_hold_the_percentage() {
        for percent in 0..=100 {
            let rollout = Rollout::percent(percent).unwrap();
            for _ in 0..20 {
                let inside = (0..100).filter(|_| rollout.admits()).count();
                assert!(inside.abs_diff(percent.into()) <= 3, "{inside} of 100 at {percent} percent");
            }
        }
    }

    #[test]
    fn clones_are_one_switch() {
        let rollout = Rollout::off();
        let clone = rollout.clone();
        rollout.set(100).unwrap();
        assert!(clone.admits());
    }

    #[test]
    fn keys_stick_and_only_move_inside() {
        let rollout = Rollout::off();
        let keys: Vec<String> = (0..10_000).map(|n| format!("tenant-{n}")).collect();
        let mut inside = vec![false; keys.len()];
        for percent in [10, 50, 100] {
            rollout.set(percent).unwrap();
            for (was, key) in inside.iter_mut().zip(&keys) {
                let is = rollout.admits_key(key);
                assert!(is || !*was, "{key} moved out at {percent} percent");
                assert_eq!(is, rollout.admits_key(key));
                *was = is;
            }
            let share = inside.iter().filter(|is| **is).count() as f64 / keys.len() as f64;
            assert!((share * 100.0 - f64::from(percent)).abs() < 1.5, "{share} at {percent} percent");
        }
    }

    #[test]
    fn the_hash_is_stable() {
        // A change here would move every user's keys between the arms.
        let mut hasher = StableHasher::default();
        hasher.write(b"tenant-1");
        assert_eq!(hasher.finish(), 9_419_643_239_926_764_749);
    }
}
