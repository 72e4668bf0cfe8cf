//! Any text in the rollout's variable: what is no switch and no whole percentage is an error that names it, in few words;
//! what is one goes on being it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_cooldown::Rollout;

/// By the documentation alone.
fn expected(text: &str) -> Option<u8> {
    let text = text.trim();
    match &*text.to_ascii_lowercase() {
        "on" | "true" => return Some(100),
        "off" | "false" => return Some(0),
        _ => {}
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    let number = digits.bytes().take(4).fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0'));
    u8::try_from(number).ok().filter(|percent| *percent <= 100)
}

fuzz_target!(|variable: &[u8]| {
    let text = String::from_utf8_lossy(variable);
    let rollout = match (text.parse::<Rollout>(), expected(&text)) {
        (Ok(rollout), Some(percent)) => {
            assert_eq!(rollout.get(), percent, "{text:?}");
            rollout
        }
        (Err(error), None) => {
            assert_eq!(error.field(), "rollout");
            let says = error.to_string();
            assert!(says.len() < 600 && !says.contains(char::is_control), "{says:?}");
            return;
        }
        (parsed, expected) => panic!("{text:?} is {parsed:?} in place of {expected:?}"),
    };
    let percent = rollout.get();
    let again: Rollout = percent.to_string().parse().unwrap();
    assert_eq!(again.get(), percent);
    let inside = (0..100).filter(|_| rollout.admits()).count();
    assert!(inside.abs_diff(percent.into()) <= 3, "{inside} of 100 at {percent} percent");
    // A key sticks, and a raise moves it inside only.
    let inside = rollout.admits_key(variable);
    assert_eq!(again.admits_key(variable), inside);
    for more in percent..=100 {
        rollout.set(more).unwrap();
        assert!(rollout.admits_key(variable) || !inside);
    }
    assert!(rollout.admits_key(variable));
    assert!(rollout.set(101).is_err());
});
