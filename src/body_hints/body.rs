use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use std::{
    collections::VecDeque,
    fmt,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// A body of which the first frames may have been read already. It yields them again, and then the rest.
///
/// The frames are the ones that the inner body made, data and trailers, in its order and sizes. An error that came
/// while reading comes in its place. Of a body that was not read, nothing was polled.
pub struct PeekedBody<B: Body> {
    read: VecDeque<Frame<B::Data>>,
    error: Option<B::Error>,
    ended: bool,
    rest: B,
}

/// The most frames that are kept, so that a body of many small ones costs no more memory than one of a few.
const MAX_FRAMES: usize = 1024;

/// The most pieces of one frame that are looked at. Nearly every frame is in one piece.
const MAX_PIECES: usize = 16;

impl<B: Body + Unpin> PeekedBody<B> {
    /// Reads on until there are `limit` bytes in `text`, or the body ends, fails, or turns out not to be readable.
    pub(super) fn poll_peek(&mut self, cx: &mut Context<'_>, text: &mut Vec<u8>, limit: usize) -> Poll<()> {
        while text.len() < limit && self.read.len() < MAX_FRAMES && !self.is_done() {
            match ready!(Pin::new(&mut self.rest).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let whole = frame.data_ref().is_none_or(|data| copy(data, text, limit));
                    self.read.push_back(frame);
                    if !whole {
                        break;
                    }
                }
                Some(Err(error)) => self.error = Some(error),
                None => self.ended = true,
            }
        }
        Poll::Ready(())
    }

    fn is_done(&self) -> bool {
        self.ended || self.error.is_some() || self.rest.is_end_stream()
    }
}

/// Copies what still fits, without taking it out of `data`. False where that is not all that there is to come.
fn copy(data: &impl Buf, text: &mut Vec<u8>, limit: usize) -> bool {
    let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
    let count = data.chunks_vectored(&mut pieces);
    let mut seen = 0;
    for piece in pieces.iter().take(count) {
        let fits = piece.len().min(limit - text.len());
        text.extend_from_slice(&piece[..fits]);
        seen += fits;
    }
    seen == data.remaining()
}

impl<B: Body> From<B> for PeekedBody<B> {
    /// A body that has not been read.
    fn from(body: B) -> Self {
        Self { read: VecDeque::new(), error: None, ended: false, rest: body }
    }
}

impl<B: Body + Default> Default for PeekedBody<B> {
    fn default() -> Self {
        Self::from(B::default())
    }
}

/// Nothing in it is pinned: frames are moved out, and the rest is `Unpin` itself.
impl<B: Body + Unpin> Unpin for PeekedBody<B> {}

impl<B: Body + Unpin> Body for PeekedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.error.is_none() && (self.ended || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let read: u64 =
            self.read.iter().filter_map(Frame::data_ref).map(|data| data.remaining() as u64).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B: Body + fmt::Debug> fmt::Debug for PeekedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeekedBody")
            .field("frames_read", &self.read.len())
            .field("failed", &self.error.is_some())
            .field("ended", &self.ended)
            .field("rest", &self.rest)
            .finish()
    }
}
