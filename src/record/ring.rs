use super::{Arm, CallRecord, Outcome};
use crate::{InvalidSetting, WaitReason};
use http::StatusCode;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
            fence,
        },
    },
    time::Duration,
};
use tokio::time::Instant;

/// The last records, for those who want each one: a ring of fixed size, in which the newest overwrites the oldest.
///
/// Writing neither blocks nor allocates; readers take what is there when they like, and learn how many they missed.
///
/// ```
/// use tower_cooldown::{
///     InvalidSetting,
///     record::{CallRecord, Outcome, RecordRing, Statistics},
/// };
///
/// # fn main() -> Result<(), InvalidSetting> {
/// let ring = RecordRing::new(4096)?;
/// let statistics = Statistics::with_ring(&ring); // for the layers
/// let mut reader = ring.reader();
///
/// statistics.record(&CallRecord::new(Outcome::Accepted, tokio::time::Instant::now()));
/// for record in &mut reader {
///     println!("{record:?}");
/// }
/// assert_eq!(reader.missed(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RecordRing {
    ring: Arc<Ring>,
}

struct Ring {
    start: Instant,
    /// The number of the next record.
    next: AtomicU64,
    missed: AtomicU64,
    slots: Box<[Slot]>,
}

/// A sequence lock. `state` is `2n + 1` while record `n` is written, `2n + 2` when it is there. (H.-J. Boehm, "Can
/// seqlocks get along with programming language memory models?", MSPC 2012, of which this is the form with fences.)
#[derive(Default)]
struct Slot {
    state: AtomicU64,
    words: [AtomicU64; 4],
}

impl RecordRing {
    /// A ring that keeps at least `capacity` records: the next power of two. Each takes 40 bytes.
    ///
    /// # Errors
    /// If `capacity` is zero or above 2^20.
    pub fn new(capacity: usize) -> Result<Self, InvalidSetting> {
        const MOST: usize = 1 << 20;
        InvalidSetting::positive("capacity", capacity)?;
        if capacity > MOST {
            return Err(InvalidSetting::new("capacity", format!("must be at most {MOST}, is {capacity}")));
        }
        let slots = (0..capacity.next_power_of_two()).map(|_| Slot::default()).collect();
        let ring = Ring { start: Instant::now(), next: AtomicU64::new(0), missed: AtomicU64::new(0), slots };
        Ok(Self { ring: Arc::new(ring) })
    }

    /// How many records it keeps.
    pub fn capacity(&self) -> usize {
        self.ring.slots.len()
    }

    /// Writes a record. A [`Statistics`](super::Statistics) that was [made for it](super::Statistics::with_ring) does
    /// that by itself.
    #[inline]
    pub fn push(&self, record: &CallRecord) {
        let ring = &*self.ring;
        let number = ring.next.fetch_add(1, Relaxed);
        let slot = ring.slot(number);
        let state = slot.state.load(Relaxed);
        let writing = 2 * number + 1;
        // Somebody who began to write here a whole round ago has not finished: rather this record is lost.
        if state % 2 == 1 || state > writing {
            return;
        }
        if slot.state.compare_exchange(state, writing, Relaxed, Relaxed).is_err() {
            return;
        }
        fence(Release);
        for (word, value) in slot.words.iter().zip(ring.encode(record)) {
            word.store(value, Relaxed);
        }
        slot.state.store(writing + 1, Release);
    }

    /// A reader of what is written from now on. Each reader sees every record.
    pub fn reader(&self) -> RecordReader {
        let next = self.ring.next.load(Acquire);
        RecordReader { ring: Arc::clone(&self.ring), next, missed: 0 }
    }

    /// How many records were overwritten before a reader saw them; all readers together.
    pub fn missed(&self) -> u64 {
        self.ring.missed.load(Relaxed)
    }
}

/// Takes records from a [`RecordRing`], oldest first. The iterator ends when there is none at present; ask again later.
pub struct RecordReader {
    ring: Arc<Ring>,
    next: u64,
    missed: u64,
}

impl RecordReader {
    /// How many records were overwritten before this reader saw them.
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    fn skip(&mut self, records: u64) {
        self.next += records;
        self.missed += records;
        self.ring.missed.fetch_add(records, Relaxed);
    }
}

impl Iterator for RecordReader {
    type Item = CallRecord;

    fn next(&mut self) -> Option<CallRecord> {
        loop {
            let capacity = self.ring.slots.len() as u64;
            let behind = self.ring.next.load(Acquire).saturating_sub(self.next);
            if behind == 0 {
                return None;
            }
            if behind > capacity {
                self.skip(behind - capacity);
            }
            if let Some(record) = self.ring.read(self.next) {
                self.next += 1;
                return Some(record);
            }
            // It is being written, or never will be, because somebody took too long.
            if behind <= capacity / 2 {
                return None;
            }
            self.skip(1);
        }
    }
}

impl Ring {
    fn slot(&self, number: u64) -> &Slot {
        &self.slots[(number % self.slots.len() as u64) as usize]
    }

    fn read(&self, number: u64) -> Option<CallRecord> {
        let slot = self.slot(number);
        let there = 2 * number + 2;
        if slot.state.load(Acquire) != there {
            return None;
        }
        let words = slot.words.each_ref().map(|word| word.load(Relaxed));
        fence(Acquire);
        (slot.state.load(Relaxed) == there).then(|| self.decode(words))
    }

    fn encode(&self, record: &CallRecord) -> [u64; 4] {
        let status = record.status.map_or(0, |status| u64::from(status.as_u16()));
        let kind = [record.outcome as u64, record.wait_reason as u64, record.arm as u64];
        [
            status << 24 | kind[0] << 16 | kind[1] << 8 | kind[2],
            nanos(record.waited),
            nanos(record.service),
            nanos(record.finished.saturating_duration_since(self.start)),
        ]
    }

    fn decode(&self, [kind, waited, service, finished]: [u64; 4]) -> CallRecord {
        let byte = |shift: u32| (kind >> shift) as u8 as usize;
        let mut record = CallRecord::new(Outcome::ALL[byte(16)], self.start + Duration::from_nanos(finished));
        record.status = StatusCode::from_u16((kind >> 24) as u16).ok();
        record.wait_reason = WaitReason::ALL[byte(8)];
        record.arm = Arm::ALL[byte(0)];
        record.waited = Duration::from_nanos(waited);
        record.service = Duration::from_nanos(service);
        record
    }
}

/// Up to 584 years.
fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

impl fmt::Debug for RecordRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordRing").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl fmt::Debug for RecordReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordReader").field("missed", &self.missed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::atomic::AtomicBool, thread};

    fn record(number: u64) -> CallRecord {
        let mut record = CallRecord::new(Outcome::Throttled, Instant::now());
        record.status = Some(StatusCode::TOO_MANY_REQUESTS);
        (record.waited, record.service) = (Duration::from_nanos(number), Duration::from_nanos(!number));
        (record.wait_reason, record.arm) = (WaitReason::Batch, Arm::Control);
        record
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let ring = RecordRing::new(3).unwrap();
        assert_eq!(ring.capacity(), 4);
        let mut reader = ring.reader();
        let records: Vec<_> = (0..4).map(record).collect();
        records.iter().for_each(|record| ring.push(record));
        assert_eq!(reader.by_ref().collect::<Vec<_>>(), records);
        assert_eq!((reader.next(), reader.missed()), (None, 0));
        let late = ring.reader();
        assert_eq!(late.count(), 0, "a reader begins where it is made");
    }

    #[test]
    fn overwritten_records_are_counted() {
        let ring = RecordRing::new(8).unwrap();
        let (mut reader, mut other) = (ring.reader(), ring.reader());
        (0..20).for_each(|number| ring.push(&record(number)));
        let seen: Vec<_> = reader.by_ref().map(|record| record.waited.as_nanos()).collect();
        assert_eq!(seen, (12..20).collect::<Vec<_>>());
        assert_eq!((reader.missed(), ring.missed()), (12, 12));
        assert_eq!((other.by_ref().count(), ring.missed()), (8, 24));
    }

    #[test]
    fn a_ring_has_a_size() {
        assert_eq!(RecordRing::new(0).unwrap_err().field(), "capacity");
        assert_eq!(RecordRing::new((1 << 20) + 1).unwrap_err().field(), "capacity");
    }

    /// Threads write as fast as they can, and lap one another; no record is ever half of one and half of another.
    #[test]
    fn nothing_is_torn() {
        const RECORDS: u64 = 50_000;
        let (ring, done) = (RecordRing::new(16).unwrap(), AtomicBool::new(false));
        thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| (0..RECORDS).for_each(|number| ring.push(&record(number)))))
                .collect();
            let reading = scope.spawn(|| {
                let (mut reader, mut seen) = (ring.reader(), 0);
                loop {
                    let last = done.load(Acquire);
                    for record in &mut reader {
                        seen += 1;
                        assert_eq!(nanos(record.waited), !nanos(record.service));
                        assert_eq!(record.wait_reason, WaitReason::Batch);
                    }
                    if last {
                        return (seen, reader.missed());
                    }
                }
            });
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            done.store(true, Release);
            let (seen, missed) = reading.join().unwrap();
            assert!(seen > 0 && seen + missed <= 3 * RECORDS);
        });
    }
}
