//! The calls that may be in flight at a time, shared out among the processes. `turn.lua` does the same.
//!
//! A process has *places*, and no more calls in flight than those. A place is its own until it gives it up itself, so all
//! together stay within the bound whoever hears of what and when. Who has too few has a ticket. A free place goes to the
//! one of those who has the fewest, and of those to the one who has waited longest.

use super::turn::{Grant, Turn};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    holders: BTreeMap<u64, Holder>,
    /// Given out so far.
    tickets: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Holder {
    places: f64,
    /// 0 if it has all that it needs.
    ticket: f64,
}

/// Who has no place asks again after that, in microseconds, if it is not called before.
const HOLD: f64 = 5e6;

impl Places {
    /// What a process does not have any more that was not heard of for too long.
    pub(super) fn retain(&mut self, is_alive: impl Fn(u64) -> bool) {
        self.holders.retain(|id, _| is_alive(*id));
    }

    /// Shares out `most` places. Whether the process may have departures.
    pub(super) fn turn(&mut self, turn: &Turn, most: f64, grant: &mut Grant) -> bool {
        if most == 0.0 {
            return true;
        }
        let somebody_waited = self.holders.values().any(|holder| holder.ticket > 0.0);
        let mut own = self.holders.remove(&turn.id).unwrap_or_default();
        if !turn.leaves {
            // Calls in flight are there, whatever is known of them: the store may have been emptied.
            let kept = if turn.anew { 0.0 } else { own.places - turn.drops };
            own.places = kept.max(turn.flying);
            if turn.need <= own.places {
                own.ticket = 0.0;
            } else if own.ticket == 0.0 || turn.drops > 0.0 {
                self.tickets += 1.0;
                own.ticket = self.tickets;
            }
            self.holders.insert(turn.id, own);
        }
        let mut free = most - self.holders.values().map(|holder| holder.places).sum::<f64>();
        while free >= 1.0 {
            let waiting = self.holders.iter_mut().filter(|(_, holder)| holder.ticket > 0.0);
            let next = waiting
                .min_by(|(_, a), (_, b)| a.places.total_cmp(&b.places).then(a.ticket.total_cmp(&b.ticket)));
            match next {
                Some((id, holder)) if *id == turn.id => {
                    holder.places += 1.0;
                    if holder.places >= turn.need {
                        holder.ticket = 0.0;
                    }
                }
                // It is called, and says then whether it needs another one.
                Some((id, holder)) if grant.to == 0.0 => {
                    holder.places += 1.0;
                    holder.ticket = 0.0;
                    grant.to = *id as f64;
                }
                _ => break,
            }
            free -= 1.0;
        }
        let own = self.holders.get(&turn.id).copied().unwrap_or_default();
        let others = self.holders.iter().filter(|(id, holder)| **id != turn.id && holder.ticket > 0.0);
        let least = others.map(|(_, holder)| holder.places).reduce(f64::min);
        grant.lack = least.map_or(0.0, |least| (own.places - least).max(0.0));
        grant.places = own.places;
        grant.short = least.is_some() || own.ticket > 0.0;
        grant.news |= grant.to != 0.0 || (grant.short && !somebody_waited);
        self.holders.retain(|_, holder| holder.places > 0.0 || holder.ticket > 0.0);
        if own.places == 0.0 && turn.need > 0.0 && !turn.leaves {
            grant.hold = HOLD;
        }
        own.places > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(id: u64, flying: f64, need: f64, drops: f64) -> Turn {
        Turn { id, flying, need, drops, ..Turn::default() }
    }

    fn ask(places: &mut Places, turn: Turn) -> Grant {
        let mut grant = Grant::default();
        assert_eq!(places.turn(&turn, 4.0, &mut grant), grant.places > 0.0);
        assert!(places.holders.values().map(|holder| holder.places).sum::<f64>() <= 4.0, "{places:?}");
        grant
    }

    #[test]
    fn who_has_more_gives_way_to_who_has_less() {
        let mut places = Places::default();
        assert_eq!(ask(&mut places, turn(1, 0.0, 9.0, 0.0)).places, 4.0, "nobody else is there");
        let other = ask(&mut places, turn(2, 0.0, 2.0, 0.0));
        assert_eq!((other.places, other.hold), (0.0, HOLD));
        assert!(!other.news, "the first one waits for more, too, so all know that there are too few");
        let first = ask(&mut places, turn(1, 4.0, 9.0, 0.0));
        assert_eq!((first.places, first.lack, first.short), (4.0, 4.0, true));
        // A call of it ended: the place is the other's, who is called, although the first one wants more.
        let first = ask(&mut places, turn(1, 3.0, 9.0, 1.0));
        assert_eq!((first.places, first.to, first.news), (3.0, 2.0, true));
        let other = ask(&mut places, turn(2, 0.0, 2.0, 0.0));
        assert_eq!((other.places, other.lack), (1.0, 0.0));
        let first = ask(&mut places, turn(1, 2.0, 9.0, 1.0));
        assert_eq!((first.places, first.to, first.lack), (2.0, 2.0, 0.0), "both have the same");
        assert!(!ask(&mut places, turn(2, 2.0, 2.0, 0.0)).news);
    }

    #[test]
    fn whoever_has_waited_longest_is_next() {
        let mut places = Places::default();
        for id in 1..=6 {
            assert_eq!(ask(&mut places, turn(id, 0.0, 1.0, 0.0)).places, f64::from(u8::from(id <= 4)));
        }
        // It gives its place up, and waits for another one behind those who wait.
        let back = ask(&mut places, turn(1, 0.0, 1.0, 1.0));
        assert_eq!((back.places, back.to), (0.0, 5.0));
        assert_eq!(ask(&mut places, turn(2, 0.0, 0.0, 1.0)).to, 6.0);
        assert_eq!(ask(&mut places, turn(3, 0.0, 0.0, 1.0)).to, 1.0);
        assert_eq!(ask(&mut places, turn(1, 0.0, 1.0, 0.0)).places, 1.0, "it has heard");
    }

    #[test]
    fn the_places_of_the_dead_are_free() {
        let mut places = Places::default();
        ask(&mut places, turn(1, 4.0, 4.0, 0.0));
        assert!(ask(&mut places, turn(2, 0.0, 1.0, 0.0)).news, "it is the first one who waits");
        places.retain(|id| id != 1);
        assert_eq!(ask(&mut places, turn(2, 0.0, 1.0, 0.0)).places, 1.0);
        // One that takes its leave has none either.
        let leaves = Turn { leaves: true, ..turn(2, 0.0, 0.0, 0.0) };
        assert_eq!(ask(&mut places, leaves).places, 0.0);
        assert!(places.holders.is_empty());
    }

    #[test]
    fn calls_in_flight_have_places_though_all_was_forgotten() {
        let mut places = Places::default();
        assert_eq!(ask(&mut places, turn(1, 3.0, 3.0, 0.0)).places, 3.0);
        assert_eq!(ask(&mut places, turn(2, 0.0, 3.0, 0.0)).places, 1.0);
        // It was alone for a while, and has one in flight of all that it had.
        let anew = Turn { anew: true, ..turn(1, 1.0, 1.0, 0.0) };
        assert_eq!(ask(&mut places, anew).places, 1.0);
    }

    #[test]
    fn without_a_bound_there_are_no_places() {
        let (mut places, mut grant) = (Places::default(), Grant::default());
        assert!(places.turn(&turn(1, 9.0, 9.0, 0.0), 0.0, &mut grant));
        assert_eq!((grant, places.holders.len()), (Grant::default(), 0));
    }
}
