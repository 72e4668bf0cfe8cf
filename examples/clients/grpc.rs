//! A small gRPC service, written by hand in the form in which `tonic-build` generates it, so that no `protoc` is
//! needed:
//!
//! ```text
//! package tags;
//! service Tagger {
//!     rpc Tag(Text) returns (Word);
//!     rpc TagAll(Text) returns (stream Word);
//! }
//! message Text { string text = 1; }
//! message Word { string word = 1; }
//! ```

use futures::{future::BoxFuture, stream};
use http::uri::PathAndQuery;
use http_body::Body as HttpBody;
use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    IntoRequest, Request, Response, Status, Streaming,
    body::Body,
    client::{Grpc, GrpcService},
    codegen::StdError,
    server::{self, NamedService},
    service::Routes,
    transport::server::TcpIncoming,
};
use tonic_prost::ProstCodec;
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Layer, Service, service_fn};

const TAG: &str = "/tags.Tagger/Tag";
const TAG_ALL: &str = "/tags.Tagger/TagAll";

/// What is to be tagged.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Text {
    /// Words with blanks between.
    #[prost(string, tag = "1")]
    pub text: String,
}

impl Text {
    /// This text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

/// A tag.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Word {
    /// One word.
    #[prost(string, tag = "1")]
    pub word: String,
}

/// The client, over any stack of layers on a channel.
#[derive(Clone, Debug)]
pub struct TaggerClient<T> {
    inner: Grpc<T>,
}

impl<T> TaggerClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// A client over this service.
    pub fn new(inner: T) -> Self {
        Self { inner: Grpc::new(inner) }
    }

    /// The first word.
    ///
    /// # Errors
    /// The server's, and the stack's.
    pub async fn tag(&mut self, request: impl IntoRequest<Text>) -> Result<Response<Word>, Status> {
        self.ready().await?;
        let codec = ProstCodec::default();
        self.inner.unary(request.into_request(), PathAndQuery::from_static(TAG), codec).await
    }

    /// All words.
    ///
    /// # Errors
    /// The server's, and the stack's.
    pub async fn tag_all(
        &mut self,
        request: impl IntoRequest<Text>,
    ) -> Result<Response<Streaming<Word>>, Status> {
        self.ready().await?;
        let codec = ProstCodec::default();
        self.inner.server_streaming(request.into_request(), PathAndQuery::from_static(TAG_ALL), codec).await
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.inner.ready().await.map_err(|error| Status::from_error(error.into()))
    }
}

/// The server. It refuses its first calls with RESOURCE_EXHAUSTED and a `RetryInfo`.
#[derive(Clone, Debug)]
pub struct Tagger {
    refusals: usize,
    calls: Arc<AtomicUsize>,
}

impl Tagger {
    /// How long it asks to wait.
    pub const DELAY: Duration = Duration::from_millis(400);

    /// One that refuses so many calls.
    pub fn new(refusals: usize) -> Self {
        Self { refusals, calls: Arc::default() }
    }

    /// How many calls have come.
    pub fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }

    fn words(&self, request: Request<Text>) -> Result<Vec<Word>, Status> {
        if self.calls.fetch_add(1, SeqCst) < self.refusals {
            let details = ErrorDetails::with_retry_info(Some(Self::DELAY));
            return Err(Status::with_error_details(tonic::Code::ResourceExhausted, "slow down", details));
        }
        let text = request.into_inner().text;
        Ok(text.split_whitespace().map(|word| Word { word: word.to_owned() }).collect())
    }
}

impl NamedService for Tagger {
    const NAME: &'static str = "tags.Tagger";
}

impl<B> Service<http::Request<B>> for Tagger
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let tagger = self.clone();
        Box::pin(async move {
            let mut grpc = server::Grpc::new(ProstCodec::default());
            Ok(match request.uri().path() {
                TAG => {
                    let tag = service_fn(|request| async {
                        let word = tagger.words(request)?.into_iter().next();
                        word.map(Response::new).ok_or_else(|| Status::invalid_argument("an empty text"))
                    });
                    grpc.unary(tag, request).await
                }
                TAG_ALL => {
                    let tag_all = service_fn(|request| async {
                        let words = tagger.words(request)?;
                        Ok::<_, Status>(Response::new(stream::iter(words.into_iter().map(Ok))))
                    });
                    grpc.server_streaming(tag_all, request).await
                }
                path => Status::unimplemented(path).into_http(),
            })
        })
    }
}

/// A gRPC server that serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    uri: String,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves with this layer around the whole, on a port that is free.
    ///
    /// # Errors
    /// If there is none.
    pub async fn start<L, S>(tagger: Tagger, layer: L) -> io::Result<Self>
    where
        L: Layer<Routes, Service = S> + Clone + Send + 'static,
        S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
        S::Error: Into<StdError> + Send,
        S::Future: Send,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let uri = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().layer(layer).add_service(tagger);
            if let Err(error) = server.serve_with_incoming(TcpIncoming::from(listener)).await {
                eprintln!("the server ended: {error}");
            }
        });
        Ok(Self { uri, task })
    }

    /// Where it is.
    pub fn uri(&self) -> &str {
        &self.uri
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
