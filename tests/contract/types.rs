//! Where the types can go: into tasks, onto other threads, behind a shared reference. As soon as this compiles it
//! holds; what runs is the check that no public type was forgotten.

use crate::support::{Upstream, request, secs};
use http::Request;
use std::{fs, path::Path};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_cooldown::*;

/// `Send + Sync + Unpin`, and `Debug`, as every public type has to be.
fn all<T: Send + Sync + Unpin + std::fmt::Debug>() {}

/// A future with a timer inside, which has to stay where it is.
fn pinned<T: Send + Sync + std::fmt::Debug>() {}

/// As [`all`], and it can be handed around.
fn cloned<T: Clone + Send + Sync + Unpin + std::fmt::Debug>() {}

type S = Upstream;
type Req = Request<()>;
type Classify = signal::HttpClassifier;
type Key = fn(&Req) -> String;

#[derive(Clone, Debug)]
struct Batches;

impl Service<Vec<u64>> for Batches {
    type Response = Vec<Result<u64, BoxError>>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        Ok(()).into()
    }

    fn call(&mut self, batch: Vec<u64>) -> Self::Future {
        std::future::ready(Ok(batch.into_iter().map(Ok).collect()))
    }
}

#[test]
fn layers_and_services() {
    cloned::<AdaptiveCooldownLayer>();
    cloned::<AdaptiveCooldown<S>>();
    cloned::<cooldown::keyed::KeyedCooldownLayer<Key>>();
    cloned::<cooldown::keyed::KeyedCooldown<S, Key>>();
    cloned::<MicroBatchLayer>();
    cloned::<MicroBatch<S>>();
    cloned::<CoalesceLayer<u64>>();
    cloned::<Coalesce<Batches, u64, u64>>();
    cloned::<FallbackLayer<S>>();
    cloned::<Fallback<S, S>>();
    cloned::<BodyHintsLayer>();
    cloned::<BodyHintsService<S>>();
    cloned::<retry::RetryPolicy>();
}

#[test]
fn futures() {
    all::<cooldown::ResponseFuture<S, Req, Classify, cooldown::NeverReject>>();
    all::<micro_batch::ResponseFuture<S, Req, Classify>>();
    all::<coalesce::ResponseFuture<u64, u64, BoxError>>();
    all::<fallback::ResponseFuture<S, S, Req, Classify, retry::ByClone>>();
    pinned::<body_hints::ResponseFuture<<S as Service<Req>>::Future, String>>();
}

#[test]
fn handles_settings_and_rules() {
    cloned::<Handle>();
    cloned::<cooldown::GateSnapshot>();
    cloned::<cooldown::keyed::KeyedHandle>();
    cloned::<cooldown::keyed::by::Authority>();
    cloned::<cooldown::keyed::by::Credential>();
    cloned::<cooldown::keyed::by::GrpcMethod>();
    cloned::<cooldown::keyed::by::Header>();
    cloned::<cooldown::keyed::by::PathPrefix>();
    cloned::<cooldown::GrpcStatus>();
    cloned::<cooldown::GrpcTimeout>();
    cloned::<cooldown::IntoError>();
    cloned::<cooldown::NoDeadline>();
    cloned::<cooldown::NeverReject>();
    cloned::<cooldown::TooManyRequests>();
    cloned::<coalesce::Handle>();
    cloned::<coalesce::Abandon>();
    cloned::<coalesce::Linger>();
    cloned::<coalesce::Overflow>();
    cloned::<coalesce::Oversize>();
    cloned::<coalesce::SplitWhen<fn()>>();
    cloned::<coalesce::Trigger>();
    cloned::<coalesce::Whole>();
    cloned::<cost::OneRequest>();
    cloned::<retry::ByClone>();
    cloned::<Cost>();
    cloned::<policy::Known>();
    cloned::<policy::Ladder>();
    cloned::<policy::Learned>();
    cloned::<policy::Quota>();
    cloned::<policy::Answer<'_>>();
    cloned::<policy::Closing>();
    cloned::<policy::Departure>();
    cloned::<policy::Passed>();
    cloned::<rollout::Everyone>();
    cloned::<rollout::KeyedRollout<Key>>();
    cloned::<Rollout>();
    cloned::<WaitReason>();
    // A policy may be one that is not `Sync`; the gate's lock is.
    fn sent<T: Send>() {}
    sent::<Box<dyn policy::Policy>>();
}

#[test]
fn signals_records_and_errors() {
    cloned::<signal::HttpClassifier>();
    cloned::<signal::WithRule<fn()>>();
    cloned::<signal::Bypassed>();
    cloned::<signal::BodyHints>();
    cloned::<signal::Hints>();
    cloned::<signal::Reading>();
    cloned::<signal::Readings>();
    cloned::<signal::Signal>();
    cloned::<signal::Unit>();
    cloned::<signal::Verdict>();
    cloned::<Rejected>();
    cloned::<record::Statistics>();
    cloned::<record::Usage>();
    cloned::<record::CallRecord>();
    cloned::<record::CallOutcome>();
    cloned::<record::Outcome>();
    cloned::<record::Arm>();
    cloned::<record::FallbackReason>();
    cloned::<record::Snapshot>();
    cloned::<record::Arms>();
    cloned::<record::ArmSummary>();
    cloned::<record::Attempts>();
    cloned::<record::Cooldowns>();
    cloned::<record::Recent>();
    cloned::<record::RecentAttempts>();
    cloned::<record::RecentCalls>();
    cloned::<record::RecordRing>();
    all::<record::RecordReader>();
    cloned::<record::Calls>();
    cloned::<record::FallbackCounts>();
    cloned::<record::Coalesced>();
    cloned::<record::TriggerCount>();
    cloned::<record::Times>();
    cloned::<record::Tokens>();
    cloned::<record::Wait>();
    cloned::<InvalidSetting>();
    all::<coalesce::BatchError<BoxError>>();
    all::<coalesce::NotDrained>();
    all::<fallback::FallbackError<BoxError, BoxError>>();
    all::<body_hints::PeekedBody<String>>();
}

#[cfg(feature = "embeddings")]
#[test]
fn http_coalescing() {
    use bytes::Bytes;
    use coalesce::http::*;
    use http_body_util::Full;
    type Joins = HttpCoalesceLayer<OpenAiEmbeddings, Full<Bytes>>;
    cloned::<Joins>();
    cloned::<HttpCoalesce<HttpService, Full<Bytes>, OpenAiEmbeddings>>();
    cloned::<Exchange<HttpService, OpenAiEmbeddings, Full<Bytes>>>();
    cloned::<GeminiEmbeddings>();
    cloned::<SplitRefused>();
    all::<Joinable>();
    all::<Answers<BoxError>>();
    all::<HttpBody<Full<Bytes>>>();
    all::<HttpError<BoxError>>();
    all::<CodecError>();
    all::<ReadError>();
    all::<Part>();
    all::<Share>();
    all::<SplitFrom>();
    type HttpService =
        tower::util::BoxCloneSyncService<Request<Full<Bytes>>, http::Response<Full<Bytes>>, BoxError>;
}

#[test]
fn exporters() {
    cloned::<export::Source>();
    cloned::<export::Sources>();
    cloned::<export::Instrument>();
    cloned::<export::Kind>();
    cloned::<export::Label>();
    cloned::<export::Point<'_>>();
    cloned::<export::Value<'_>>();
    cloned::<export::Buckets<'_>>();
    #[cfg(feature = "prometheus")]
    cloned::<export::prometheus::Exporter>();
    #[cfg(feature = "metrics")]
    all::<export::metrics::Exporter>();
}

#[cfg(feature = "redis")]
#[test]
fn fleets() {
    cloned::<fleet::Fleet>();
    cloned::<fleet::FleetSnapshot>();
    cloned::<fleet::Mode>();
    cloned::<fleet::SimulatedStore>();
    all::<fleet::FleetError>();
}

#[cfg(feature = "replay")]
#[test]
fn replayed_bodies() {
    cloned::<retry::replay::ByReplay>();
    cloned::<retry::replay::Replay<S>>();
    cloned::<retry::replay::ReplayLayer>();
    all::<retry::replay::ReplayBody<String>>();
    all::<retry::replay::ReplayError<BoxError>>();
}

#[cfg(feature = "testing")]
#[test]
fn simulated_upstreams() {
    cloned::<testing::Upstream>();
    pinned::<testing::Answering>();
    cloned::<testing::Counts>();
    cloned::<testing::Decision>();
    cloned::<testing::HintStyle>();
    cloned::<testing::Limit>();
    cloned::<testing::Limiter>();
    cloned::<testing::Neighbour>();
    cloned::<testing::Reading>();
    cloned::<testing::Unit>();
}

/// `tests/types.rs` has those that need no feature.
#[tokio::test(start_paused = true)]
async fn what_is_printed_says_something() {
    let key: Key = |request| request.uri().path().to_owned();
    let keyed = AdaptiveCooldownLayer::new().name("gemini").keyed(key);
    let batches = CoalesceLayer::<u64>::new(7).unwrap();
    let mut coalesce = batches.layer(Batches);
    let mut body = BodyHintsLayer::new().layer(Upstream::ok());
    body.ready().await.unwrap();
    let rejected = Rejected::new(secs(3));
    for (printed, part) in [
        (format!("{keyed:?}"), "keys: 0"),
        (format!("{:?}", keyed.handle()), "KeyedHandle"),
        (format!("{:?}", keyed.layer(Upstream::ok())), "Upstream"),
        (format!("{:?}", keyed.layer(Upstream::ok()).call(request(1))), "stage"),
        (format!("{batches:?}"), "7"),
        (format!("{coalesce:?}"), "held: 0"),
        (format!("{:?}", coalesce.handle()), "Handle"),
        (format!("{:?}", coalesce.call(1)), "waiting"),
        (format!("{body:?}"), "Upstream"),
        (format!("{:?}", body.call(request(1))), "calling"),
        (format!("{:?}", body.oneshot(request(1)).await.unwrap().body()), "PeekedBody"),
        (format!("{rejected}"), "3s"),
        (format!("{}", coalesce::BatchError::<BoxError>::Closed), "given up"),
    ] {
        assert!(printed.contains(part), "no {part} in {printed}");
    }
}

/// The files of the crate, with their text.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// What is `pub` can be reached from outside: the lint `unreachable_pub` sees to that.
#[test]
fn no_public_type_is_missing_here() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let name = |line: &str| {
        let rest = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "))?;
        rest.split(|c: char| !c.is_alphanumeric()).next().map(str::to_owned)
    };
    let mut names: Vec<_> =
        files.iter().flat_map(|file| file.lines()).filter_map(|l| name(l.trim())).collect();
    names.sort();
    assert!(names.len() > 90, "{names:?}");
    let here = include_str!("types.rs");
    let words: Vec<_> = here.split(|c: char| !c.is_alphanumeric()).collect();
    for same in names.chunk_by(|a, b| a == b) {
        let listed = words.iter().filter(|word| **word == same[0]).count();
        assert!(listed >= same.len(), "{} is listed {listed} times, and there are {}", same[0], same.len());
    }
}
