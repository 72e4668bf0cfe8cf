use super::ReplayError;
use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// The most frames that are kept, so that a body of many small ones costs no more memory than one of a few.
const MAX_FRAMES: usize = 1024;

/// A body, and what has been read from it. Its copies have it in common.
pub(super) struct Shared<B> {
    rest: B,
    ended: bool,
    kept: Kept,
    /// Of what is kept, how much the copy that is read has had.
    position: usize,
    /// The copy that was read last; 0 before the first.
    reader: u64,
    /// It is still there.
    reading: bool,
    waker: Option<Waker>,
}

/// The first frames of a body, in order.
struct Kept {
    frames: VecDeque<Piece>,
    bytes: usize,
    max_bytes: usize,
    /// Nothing that was read is missing.
    whole: bool,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Piece {
    /// `None` for a kind of frame that is not known here.
    fn of(frame: &Frame<Bytes>) -> Option<Self> {
        let data = frame.data_ref().map(|data| Self::Data(data.clone()));
        data.or_else(|| frame.trailers_ref().map(|trailers| Self::Trailers(trailers.clone())))
    }

    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(trailers) => {
                trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
            }
        }
    }

    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

impl Kept {
    fn push(&mut self, piece: Option<Piece>) {
        let bytes = piece.as_ref().map_or(usize::MAX, |piece| self.bytes.saturating_add(piece.len()));
        match piece {
            Some(piece) if bytes <= self.max_bytes && self.frames.len() < MAX_FRAMES => {
                self.bytes = bytes;
                self.frames.push_back(piece);
            }
            _ => self.give_up(),
        }
    }

    fn give_up(&mut self) {
        self.whole = false;
        self.frames = VecDeque::new();
    }
}

impl<B> Shared<B> {
    /// Whether a copy that has not been read yet can be.
    pub(super) fn can_start(&self) -> bool {
        self.kept.whole || self.reader == 0
    }

    /// Whether there can be more than one copy.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.whole
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.frames.iter().map(Piece::len).sum()
    }

    /// Makes the copy `id` the one that is read, from the beginning if it is a new one. Returns whom to wake: the one
    /// that was read before, to learn that it is no longer.
    pub(super) fn read_by<E>(&mut self, id: &mut u64) -> Result<Option<Waker>, ReplayError<E>> {
        match *id {
            0 if !self.can_start() => Err(ReplayError::NotKept),
            0 => {
                self.reader += 1;
                *id = self.reader;
                (self.position, self.reading) = (0, true);
                Ok(self.waker.take())
            }
            id if id == self.reader => Ok(None),
            _ => Err(ReplayError::Superseded),
        }
    }

    /// The copy that is read waits. Returns a waker that is not needed any more.
    pub(super) fn wait(&mut self, waker: &Waker) -> Option<Waker> {
        match &self.waker {
            Some(present) if present.will_wake(waker) => None,
            _ => self.waker.replace(waker.clone()),
        }
    }

    /// There is no other copy than the one that is read: what it has had is not needed any more.
    pub(super) fn forget(&mut self) {
        self.kept.whole = false;
        self.kept.frames.drain(..mem::take(&mut self.position));
    }

    /// The copy `id` goes away, and leaves no more than one behind.
    pub(super) fn leave(&mut self, id: u64, one_left: bool) {
        if id == self.reader {
            self.reading = false;
        } else if one_left && self.reading {
            self.forget();
        }
    }

    fn position_of(&self, id: u64) -> usize {
        if id == self.reader { self.position } else { 0 }
    }
}

impl<B: Body + Unpin> Shared<B> {
    pub(super) fn new(body: B, max_bytes: usize) -> Self {
        let whole = body.size_hint().lower() <= max_bytes as u64;
        let kept = Kept { frames: VecDeque::new(), bytes: 0, max_bytes, whole };
        Self { rest: body, ended: false, kept, position: 0, reader: 0, reading: false, waker: None }
    }

    /// The next frame for the copy that is read.
    #[allow(clippy::type_complexity, reason = "what `poll_frame` returns")]
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplayError<B::Error>>>> {
        if let Some(piece) = self.kept.frames.get(self.position) {
            let frame = piece.clone().into_frame();
            self.position += 1;
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut self.rest).poll_frame(cx) else { return Poll::Pending };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                Some(Ok(self.had(frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))))
            }
            Some(Err(error)) => {
                (self.ended, self.position) = (true, 0);
                self.kept.give_up();
                Some(Err(ReplayError::Body(error)))
            }
            None => {
                self.ended = true;
                None
            }
        })
    }

    fn had(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if self.kept.whole {
            self.kept.push(Piece::of(&frame));
            self.position = self.kept.frames.len();
        }
        frame
    }

    pub(super) fn is_end_stream(&self, id: u64) -> bool {
        let at_end = self.position_of(id) >= self.kept.frames.len();
        at_end && (self.ended || self.rest.is_end_stream())
    }

    pub(super) fn size_hint(&self, id: u64) -> SizeHint {
        let data = |piece: &Piece| if let Piece::Data(data) = piece { data.len() as u64 } else { 0 };
        let kept: u64 = self.kept.frames.iter().skip(self.position_of(id)).map(data).sum();
        let rest = if self.ended { SizeHint::with_exact(0) } else { self.rest.size_hint() };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
            hint.set_upper(upper);
        }
        hint
    }
}
