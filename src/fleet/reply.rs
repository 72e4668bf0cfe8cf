//! What Redis says, as numbers. It may have been written by anybody: what no ledger would say is not believed.

use super::turn::{Grant, Known};

/// The largest number that is believed: up to it whole numbers are exact, and as microseconds it is 285 years.
const MOST: f64 = 9_007_199_254_740_992.0;
/// The most departures of one turn: a lease at the highest pace.
const MOST_SLOTS: f64 = 1e5;

/// What the script answers.
pub(super) fn grant(answer: &[f64]) -> Option<Grant> {
    let (first_ones, [places, lack, short, to, input, output]) = answer.split_last_chunk()?;
    let [epoch, closed, pace, measured, members, count, first, gap, seq, hold, accepted, refused, news] =
        *first_ones
    else {
        return None;
    };
    let sane = answer.iter().all(|number| (0.0..=MOST).contains(number));
    (sane && pace > 0.0 && count <= MOST_SLOTS).then_some(Grant {
        known: Known { epoch, closed, pace },
        measured: measured == 1.0,
        members,
        count,
        first,
        gap,
        seq,
        input: *input,
        output: *output,
        places: *places,
        lack: *lack,
        short: *short == 1.0,
        to: *to,
        hold,
        accepted,
        refused,
        news: news == 1.0,
    })
}

/// What is published: epoch, closing, pace, whether that was measured, how many take part, whether somebody waits for a
/// place, and who has one.
pub(super) fn said(text: &str) -> Option<Grant> {
    let numbers: Vec<f64> = text.split(' ').take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let [epoch, closed, pace, measured, members, short, to] = *numbers else { return None };
    let rest = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, short, to, 0.0, 0.0];
    grant(&[[epoch, closed, pace, measured, members].as_slice(), &rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SANE: [f64; 19] = [
        1.0, 0.0, 4.0, 0.0, 2.0, 1.0, 0.0, 250_000.0, 7.0, 0.0, 6.0, 1.0, 0.0, 3.0, 1.0, 0.0, 0.0, 50.0, 20.0,
    ];

    #[test]
    fn what_no_ledger_would_say_is_not_believed() {
        let with = |place: usize, number: f64| {
            let mut answer = SANE;
            answer[place] = number;
            grant(&answer)
        };
        assert!(grant(&SANE).is_some());
        assert_eq!(grant(&SANE[1..]), None);
        for place in 0..SANE.len() {
            for number in [-1.0, f64::NAN, f64::INFINITY, 1e16] {
                assert_eq!(with(place, number), None, "{number} at {place}");
            }
        }
        assert_eq!(with(2, 0.0), None, "no pace at all");
        assert!(with(5, 1e5).is_some());
        assert_eq!(with(5, 1e5 + 1.0), None, "more than a lease");
    }

    #[test]
    fn news_are_seven_numbers() {
        let news = said("2 1000000 18.5 1 3 1 77").unwrap();
        assert_eq!(news.known, Known { epoch: 2.0, closed: 1e6, pace: 18.5 });
        assert_eq!((news.measured, news.members, news.count, news.news), (true, 3.0, 0.0, true));
        assert_eq!((news.short, news.to), (true, 77.0));
        for text in [
            "",
            "2 1000000 18.5 1 3 1",
            "2 1000000 18.5 1 3 1 77 4",
            "2  1000000 18.5 1 3 1 77",
            "2 x 18.5 1 3 1 77",
        ] {
            assert_eq!(said(text), None, "{text}");
        }
    }
}
