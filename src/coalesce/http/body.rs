use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};
use tower::BoxError;

pin_project! {
    /// The body of a response: split from a larger one, or the inner service's own.
    #[derive(Debug)]
    pub struct HttpBody<B> {
        #[pin]
        source: Source<B>,
    }
}

pin_project! {
    #[project = Project]
    #[derive(Debug)]
    enum Source<B> {
        // In memory; `None` once it has been read.
        Split { bytes: Option<Bytes> },
        Through { #[pin] body: B },
    }
}

impl<B> HttpBody<B> {
    pub(super) const fn split(bytes: Bytes) -> Self {
        Self { source: Source::Split { bytes: Some(bytes) } }
    }

    pub(super) const fn through(body: B) -> Self {
        Self { source: Source::Through { body } }
    }
}

impl<B: Body<Data = Bytes>> Body for HttpBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.project().source.project() {
            Project::Split { bytes } => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Project::Through { body } => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Split { bytes } => bytes.as_ref().is_none_or(Bytes::is_empty),
            Source::Through { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Split { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Through { body } => body.size_hint(),
        }
    }
}

/// A body could not be read to its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// It is larger than may be.
    TooLarge {
        /// The bound, in bytes.
        max: usize,
    },
    /// Reading it failed.
    Broken(BoxError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { max } => write!(f, "the body is larger than {max} bytes"),
            Self::Broken(error) => write!(f, "the body could not be read: {error}"),
        }
    }
}

impl Error for ReadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooLarge { .. } => None,
            Self::Broken(error) => Some(&**error),
        }
    }
}

/// Reads a body to its end, trailers left out.
pub(super) async fn read<B>(body: B, max: usize) -> Result<Bytes, ReadError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(body);
    let mut first = Bytes::new();
    let mut more = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(data) = frame.map_err(|error| ReadError::Broken(error.into()))?.into_data() else { continue };
        if first.len() + more.len() + data.len() > max {
            return Err(ReadError::TooLarge { max });
        }
        if first.is_empty() && more.is_empty() {
            first = data; // most bodies are one piece
        } else {
            if more.is_empty() {
                more = std::mem::take(&mut first).to_vec();
            }
            more.extend_from_slice(&data);
        }
    }
    Ok(if more.is_empty() { first } else { more.into() })
}
