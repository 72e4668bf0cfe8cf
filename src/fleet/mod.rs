//! One quota for many processes: a gate whose state is shared through Redis or Valkey.
//!
//! ```no_run
//! use tower_cooldown::{AdaptiveCooldownLayer, fleet::Fleet};
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let client = redis::Client::open("redis://cooldown:secret@cache.internal/")?;
//! let fleet = Fleet::redis(client, "openai")?; // the same name in each process
//! fleet.check().await?; // not needed, but a wrong address or permission is known now
//! let layer = AdaptiveCooldownLayer::shared(fleet);
//! # let _ = layer;
//! # Ok(())
//! # }
//! ```
//!
//! # What is shared
//!
//! Until when the upstream is closed, the epoch, the pace and what it was learned from, the server's own counters of
//! requests and tokens, the one call that finds out whether it is open again, how many processes take part, and how many calls
//! were granted and refused; and, if it was [declared](Fleet::max_in_flight), the bound on calls in flight. It is a small
//! hash and a sorted set, whose names are `tower-cooldown:{name}` and `tower-cooldown:{name}:members`, and with a bound
//! another hash, `tower-cooldown:{name}:places`: one hash tag, so all lie in one slot of a cluster. They expire a day after
//! their last use. They hold numbers, and no address, credential or request.
//!
//! # The protocol
//!
//! Whatever a process wants goes into one *turn*: one short script, one round trip. It tells what was accepted and
//! refused since the last one, gives back what was not used, and asks for departures. The script does the rules of the
//! [ledger](#the-ledger), and answers with departures, the pace, the epoch and the closing. Redis has the only clock:
//! times go over the wire as durations from the script's "now", so it does not matter what time a process thinks it is.
//!
//! **A lease** is a block of departures at the pace of the fleet, each with a time: about a tenth of a second of the
//! pace for all processes together, at least one for each. Leases follow one another, so the calls of all processes
//! leave as evenly as those of one, and processes take turns in the order in which they asked. While the lease lasts
//! a call needs no Redis. What is not used a tenth of a second after its time is void, and given back in the next turn.
//!
//! **A refusal** is told at once. The first one of an epoch closes the fleet, makes a new epoch, lowers the pace, and is
//! published to all; all leases of older epochs are void. Others of the same flight change nothing, unless the server says
//! that it takes longer. Where the news cannot be subscribed to, no call leaves on knowledge that is older than a tenth
//! of a second.
//!
//! **Counters** that the server tells are places on the ledger's own count of departures, or of the tokens for which those
//! are booked. No lease goes beyond the one that ends first. What calls took in truth is put right in the next turn.
//!
//! **Calls in flight**, where there is a bound: a process has *places*, and no more calls in flight than those. They are
//! its own until it gives them up, so that the sum is right whoever hears of what and when. A call that ends leaves its
//! place to the next call of its process, which costs nothing, unless another process that needs one has fewer: that one
//! is called, by a publication that it answers with its turn. Places of a process that died are free after 20 seconds.
//!
//! **The gate stays as it is**: local, synchronous, without I/O. It goes by a [policy](crate::policy) that holds the
//! lease. A task does the talking. It is there while there is something to do, and ends four seconds after.
//!
//! # The ledger
//!
//! The rules are [`Learned`](crate::policy::Learned)'s in a form that fits a script, because there has to be one who
//! decides, and Redis is there anyway: no process is elected, and none is missed when it dies. Even pace; measured from
//! opening to opening; slow growth near the rate that was refused last and fast growth away from it, as in CUBIC
//! (RFC 9438); one call finds out after two refusals in a row; refusals are paid for. What `Learned` does beyond that
//! (it learns bounds on calls in flight, its zeal) is not done for a fleet. The same rules in Rust serve a process that
//! is alone.
//!
//! # Without Redis
//!
//! A call that has waited 50 ms for Redis ([`patience`](Fleet::patience)) leaves without. From then on the process is
//! *alone*, and says so: one warning, and [`FleetSnapshot::mode`]. It has a ledger of its own, which starts with the
//! last known closing and epoch, and with its share of the last known pace, less 5 %. Every fifth of a second it asks
//! again. An answer in time ends it: the later epoch and the longer closing win, and a Redis that is empty takes over
//! what the processes know. Errors are the same as silence: no permission, no memory, a key that is not ours, the layout
//! of a newer version of this crate. Nothing is overwritten then.
//!
//! What all that costs, and how it scales: [`fleet_costs`](crate::fleet_costs).

mod counters;
mod error;
mod hook;
mod learn;
mod lease;
mod ledger;
mod member;
mod places;
mod policy;
mod process;
mod redis;
mod reply;
mod settings;
mod snapshot;
mod store;
mod turn;

pub use self::{
    error::FleetError,
    settings::Fleet,
    snapshot::{FleetSnapshot, Mode},
    store::SimulatedStore,
};

pub(crate) use self::hook::{Front, Hook};
