//! HTTP requests that are joined, and those that are not.

use crate::support::{ms, settle};
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_cooldown::{
    CoalesceLayer,
    coalesce::{
        BatchError,
        http::{
            Codec, CodecError, GeminiEmbeddings, HttpBody, HttpCoalesceLayer, HttpError, OpenAiEmbeddings,
            Part, ReadError, Share, SplitFrom,
        },
    },
};

type Req = Request<Full<Bytes>>;
type Res = Response<Full<Bytes>>;

/// What came, and how it is answered.
#[derive(Clone)]
struct Server {
    seen: Arc<Mutex<Vec<Request<Value>>>>,
    answer: Arc<Respond>,
}

type Respond = dyn Fn(&Request<Value>) -> Res + Send + Sync;

impl Server {
    fn new(answer: impl Fn(&Request<Value>) -> Res + Send + Sync + 'static) -> Self {
        Self { seen: Arc::default(), answer: Arc::new(answer) }
    }

    /// The bodies that came.
    fn bodies(&self) -> Vec<Value> {
        self.seen.lock().unwrap().iter().map(|request| request.body().clone()).collect()
    }

    fn service(
        &self,
    ) -> impl Service<Req, Response = Res, Error = BoxError, Future: Send> + Clone + Send + 'static {
        let server = self.clone();
        service_fn(move |request: Req| {
            let server = server.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let request = Request::from_parts(head, body);
                let response = (server.answer)(&request);
                server.seen.lock().unwrap().push(request);
                tokio::time::sleep(ms(10)).await;
                Ok::<_, BoxError>(response)
            }
        })
    }
}

fn ok(body: &Value) -> Res {
    Response::builder()
        .header("content-type", "application/json")
        .header("x-limit", "9")
        .body(body.to_string().into())
        .unwrap()
}

fn status(status: u16, body: &'static str) -> Res {
    Response::builder().status(status).body(body.into()).unwrap()
}

/// Answers as OpenAI does, in an order of its own: a text's embedding is its length.
fn openai(request: &Request<Value>) -> Res {
    let input = &request.body()["input"];
    let texts: Vec<Value> = match input {
        Value::Array(array) if !array[0].is_number() => array.clone(),
        one => vec![one.clone()],
    };
    let mut data: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| json!({ "object": "embedding", "index": index, "embedding": [embedding(text)] }))
        .collect();
    data.reverse();
    let usage = json!({ "prompt_tokens": 10 * texts.len(), "total_tokens": 10 * texts.len() });
    ok(&json!({ "object": "list", "data": data, "model": request.body()["model"], "usage": usage }))
}

fn embedding(text: &Value) -> usize {
    text.to_string().len()
}

fn post(path: &str, body: &Value) -> Req {
    Request::post(format!("https://api.example{path}"))
        .header("content-type", "application/json")
        .header("authorization", "Bearer one")
        .body(body.to_string().into())
        .unwrap()
}

fn embed(input: impl Into<Value>) -> Req {
    post("/v1/embeddings", &json!({ "model": "small", "input": input.into() }))
}

fn layer<C: Codec>(codec: C) -> HttpCoalesceLayer<C, Full<Bytes>> {
    CoalesceLayer::new(64).unwrap().http(codec)
}

type Answered = Result<Response<Bytes>, BatchError<HttpError<BoxError>>>;

/// Sends all at once.
async fn send_all<S, B>(service: &S, requests: impl IntoIterator<Item = Req>) -> Vec<Answered>
where
    S: Service<Req, Response = Response<HttpBody<B>>, Error = BatchError<HttpError<BoxError>>> + Clone,
    B: Body<Data = Bytes, Error = Infallible>,
{
    let calls = requests.into_iter().map(|request| async {
        let (head, body) = service.clone().oneshot(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await.unwrap().to_bytes()))
    });
    join_all(calls).await
}

fn json_of(answered: &Answered) -> Value {
    serde_json::from_slice(answered.as_ref().unwrap().body()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn many_embeddings_are_one_call_and_each_gets_its_own() {
    let server = Server::new(openai);
    let service = layer(OpenAiEmbeddings).layer(server.service());
    let texts = ["a", "bbb", "cc", "a \"quoted\" one"];
    let answers = send_all(&service, texts.map(embed)).await;
    assert_eq!(server.bodies(), [json!({ "model": "small", "input": texts })]);
    for (n, (text, answer)) in texts.iter().zip(&answers).enumerate() {
        let body = json_of(answer);
        let data = json!([{ "object": "embedding", "index": 0, "embedding": [embedding(&json!(text))] }]);
        assert_eq!(
            (&body["data"], &body["model"], &body["object"]),
            (&data, &json!("small"), &json!("list"))
        );
        let response = answer.as_ref().unwrap();
        assert_eq!(response.headers()["x-limit"], "9");
        let from = response.extensions().get::<SplitFrom>().unwrap();
        assert_eq!((from.requests, from.position), (4, n));
        assert_eq!(body["usage"]["prompt_tokens"].as_u64(), from.estimated_tokens);
        assert_eq!(body["usage"]["estimated"], true);
    }
    let tokens: u64 =
        answers.iter().map(|answer| json_of(answer)["usage"]["total_tokens"].as_u64().unwrap()).sum();
    assert_eq!(tokens, 40, "the shares add up");
}

#[tokio::test(start_paused = true)]
async fn a_request_alone_goes_and_comes_as_it_is() {
    let server = Server::new(openai);
    let service = layer(OpenAiEmbeddings).layer(server.service());
    let answers = send_all(&service, [embed("alone")]).await;
    assert_eq!(server.bodies(), [json!({ "model": "small", "input": "alone" })]);
    let body = json_of(&answers[0]);
    assert_eq!(body["usage"], json!({ "prompt_tokens": 10, "total_tokens": 10 }), "not an estimate");
    assert!(answers[0].as_ref().unwrap().extensions().get::<SplitFrom>().is_none());
}

#[tokio::test(start_paused = true)]
async fn arrays_and_tokens_are_joined_among_their_kind() {
    let server = Server::new(openai);
    let service = layer(OpenAiEmbeddings).layer(server.service());
    let requests = [json!(["a", "bb"]), json!("ccc"), json!([1, 2, 3]), json!([[4], [5, 6]])];
    let answers = send_all(&service, requests.map(embed)).await;
    let inputs: BTreeSet<String> = server.bodies().iter().map(|body| body["input"].to_string()).collect();
    assert_eq!(inputs, BTreeSet::from([r#"["a","bb","ccc"]"#.into(), "[[1,2,3],[4],[5,6]]".into()]));
    let data = json_of(&answers[0])["data"].clone();
    assert_eq!(data.as_array().unwrap().len(), 2);
    assert_eq!((&data[1]["index"], &data[1]["embedding"][0]), (&json!(1), &json!(4)));
    assert_eq!(json_of(&answers[3])["data"][1]["embedding"][0], 5, "[5,6]");
}

#[tokio::test(start_paused = true)]
async fn what_differs_in_credentials_tenant_or_model_never_shares_a_call() {
    let server = Server::new(openai);
    let service = layer(OpenAiEmbeddings).layer(server.service());
    let with = |name: &'static str, value: &'static str| {
        let mut request = embed("x");
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let requests = [
        embed("x"),
        with("authorization", "Bearer two"),
        with("x-api-key", "key"),
        with("cookie", "session=1"),
        with("openai-organization", "org"),
        with("x-tenant", "t"),
        with("idempotency-key", "once"),
        post("/v1/embeddings", &json!({ "model": "large", "input": "x" })),
        post("/v1/embeddings", &json!({ "model": "small", "input": "x", "dimensions": 3 })),
        post("/v1/embeddings", &json!({ "model": "small", "input": "x", "user": "u" })),
        post("/other/embeddings", &json!({ "model": "small", "input": "x" })),
    ];
    let count = requests.len();
    let answers = send_all(&service, requests).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(server.bodies().len(), count);
}

#[tokio::test(start_paused = true)]
async fn traces_and_the_order_of_fields_do_not_keep_requests_apart() {
    let server = Server::new(openai);
    let service = layer(OpenAiEmbeddings).layer(server.service());
    let mut traced = Request::post("https://api.example/v1/embeddings")
        .header("content-type", "application/json")
        .header("authorization", "Bearer one")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .body(Full::from(r#"{ "input" : "b", "model" : "small" }"#))
        .unwrap();
    traced.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
    send_all(&service, [embed("a"), traced]).await;
    assert_eq!(server.bodies().len(), 1);
    assert!(!server.seen.lock().unwrap()[0].headers().contains_key("accept-encoding"));
}

#[tokio::test(start_paused = true)]
async fn who_names_a_tenant_in_an_extension_is_not_joined_until_the_layer_is_told_how() {
    #[derive(Clone)]
    struct Tenant(u8);
    let of = |tenant: u8| {
        let mut request = embed("x");
        request.extensions_mut().insert(Tenant(tenant));
        request
    };
    let server = Server::new(openai);
    let service = layer(OpenAiEmbeddings).layer(server.service());
    send_all(&service, [of(1), of(1), of(2)]).await;
    assert_eq!(server.bodies().len(), 3);

    let server = Server::new(openai);
    let apart = layer(OpenAiEmbeddings)
        .keep_apart(|head| vec![head.extensions.get::<Tenant>().map_or(0, |tenant| tenant.0)]);
    send_all(&apart.layer(server.service()), [of(1), of(1), of(2)]).await;
    assert_eq!(server.bodies().len(), 2);
}

/// A body of a length that nobody knows.
struct Stream(Full<Bytes>);

impl From<Bytes> for Stream {
    fn from(bytes: Bytes) -> Self {
        panic!("made anew from {bytes:?}")
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[tokio::test(start_paused = true)]
async fn streams_and_unknown_requests_pass_through_untouched() {
    let server = Server::new(|request| ok(&json!({ "got": request.body() })));
    let service = layer(OpenAiEmbeddings).layer(server.service());
    let requests = [
        post("/v1/chat/completions", &json!({ "model": "small", "input": "x" })),
        post("/v1/embeddings", &json!({ "model": "small", "input": "x", "stream": true })),
        post("/v1/embeddings", &json!({ "model": "small" })),
        post("/v1/embeddings", &json!({ "model": "small", "input": ["a", 1] })),
        post("/v1/embeddings", &json!({ "model": "small", "input": [] })),
        post("/v1/embeddings", &json!([1])),
    ];
    let twice = requests.iter().chain(&requests).cloned().collect::<Vec<_>>();
    let answers = send_all(&service, twice.clone()).await;
    assert_eq!(server.bodies().len(), twice.len());
    for (request, answer) in twice.into_iter().zip(&answers) {
        let sent: Value =
            serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(json_of(answer)["got"], sent);
    }
    let mut plain = embed("x");
    plain.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    let get = Request::get("https://api.example/v1/embeddings").body(Full::default()).unwrap();
    assert!(send_all(&service, [plain.clone(), plain, get]).await.iter().all(Result::is_ok));
    assert_eq!(server.bodies().len(), 15);

    let stream = service_fn(|request: Request<Stream>| async move {
        let bytes = request.into_body().0.collect().await?.to_bytes();
        Ok::<_, BoxError>(Response::new(Full::new(bytes)))
    });
    let stream = CoalesceLayer::new(64).unwrap().http(OpenAiEmbeddings).layer(stream);
    let request = embed("x").map(Stream);
    assert!(stream.oneshot(request).await.is_ok());
}

/// Whoever sends them on frames them by that.
#[tokio::test(start_paused = true)]
async fn bodies_say_how_long_they_are_and_when_they_end() {
    let server = Server::new(openai);
    let service = layer(OpenAiEmbeddings).layer(server.service());
    let through = post("/v1/embeddings", &json!({ "model": "small", "input": "c", "stream": true }));
    let requests = [embed("a"), embed("b"), through];
    for answer in join_all(requests.map(|request| service.clone().oneshot(request))).await {
        let mut body = answer.unwrap().into_body();
        assert!(!body.is_end_stream());
        let length = body.size_hint().exact().unwrap();
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data.len() as u64, length);
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
    }
    assert_eq!(server.bodies().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_to_join_passes_through_and_a_huge_answer_is_an_error() {
    let server = Server::new(openai);
    let service = layer(OpenAiEmbeddings).max_request(60).unwrap().layer(server.service());
    send_all(&service, [embed("x".repeat(60)), embed("x".repeat(60)), embed("a"), embed("b")]).await;
    assert_eq!(server.bodies().len(), 3);

    let service = layer(OpenAiEmbeddings).max_response(100).unwrap().layer(server.service());
    for answer in send_all(&service, [embed("a"), embed("b")]).await {
        let Err(BatchError::Batch(error)) = answer else { panic!("{answer:?}") };
        assert!(matches!(&*error, HttpError::ResponseBody(ReadError::TooLarge { max: 100 })), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_status_goes_to_all() {
    let server = Server::new(|_| {
        let mut response = status(429, "slow down");
        response.headers_mut().insert("retry-after", 7.into());
        response
    });
    let service = layer(OpenAiEmbeddings).split_refused().layer(server.service());
    for answer in send_all(&service, [embed("a"), embed("b")]).await {
        let response = answer.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["retry-after"]),
            (StatusCode::TOO_MANY_REQUESTS, &"7".parse().unwrap())
        );
        assert_eq!(response.body(), "slow down");
    }
    assert_eq!(server.bodies().len(), 1, "a 429 is not split");
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_split_until_the_one_to_blame_is_alone() {
    for refused in [400, 413, 422] {
        let server = Server::new(move |request| {
            let bad = request.body()["input"].to_string().contains("poison");
            if bad { status(refused, "too long") } else { openai(request) }
        });
        let service = layer(OpenAiEmbeddings).split_refused().layer(server.service());
        let texts = ["a", "bb", "poison", "dddd"];
        let answers = send_all(&service, texts.map(embed)).await;
        for (text, answer) in texts.iter().zip(&answers) {
            let response = answer.as_ref().unwrap();
            if *text == "poison" {
                assert_eq!((response.status().as_u16(), &response.body()[..]), (refused, &b"too long"[..]));
            } else {
                assert_eq!(json_of(answer)["data"][0]["embedding"][0], embedding(&json!(text)));
            }
        }
        assert_eq!(server.bodies().len(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_split_for_certain_is_an_error_for_all() {
    let datum = |index: u64| json!({ "index": index, "embedding": [1] });
    let answers = [
        json!({ "data": [datum(0)] }),
        json!({ "data": [datum(0), datum(1), datum(2)] }),
        json!({ "data": [datum(0), datum(0)] }),
        json!({ "data": [datum(0), datum(5)] }),
        json!({ "data": [datum(0), { "embedding": [1] }] }),
        json!({ "data": [datum(0), { "index": -1 }] }),
        json!({ "data": 5 }),
        json!({ "nothing": 5 }),
        json!("text"),
    ];
    for answer in answers {
        let copy = answer.clone();
        let service = layer(OpenAiEmbeddings).layer(Server::new(move |_| ok(&copy)).service());
        for outcome in send_all(&service, [embed("a"), embed("b")]).await {
            let Err(BatchError::Batch(error)) = outcome else { panic!("{answer}: {outcome:?}") };
            assert!(matches!(&*error, HttpError::Codec(_)), "{answer}: {error}");
        }
    }
    let encoded = Server::new(|request| {
        let mut response = openai(request);
        response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        response
    });
    let service = layer(OpenAiEmbeddings).layer(encoded.service());
    assert!(send_all(&service, [embed("a"), embed("b")]).await.iter().all(Result::is_err));
}

#[tokio::test(start_paused = true)]
async fn numbers_go_through_to_the_digit() {
    let server = Server::new(|_| {
        let data = r#"{"data":[{"index":1,"embedding":[-0.0021843,1e-9,0.10000000000000000555]},{"index":0,"embedding":"AACAPw=="}]}"#;
        Response::new(data.into())
    });
    let service = layer(OpenAiEmbeddings).layer(server.service());
    let answers = send_all(&service, [embed("a"), embed("b")]).await;
    let text = |n: usize| String::from_utf8(answers[n].as_ref().unwrap().body().to_vec()).unwrap();
    assert!(text(1).contains("[-0.0021843,1e-9,0.10000000000000000555]"), "{}", text(1));
    assert!(text(0).contains("\"AACAPw==\""));
    assert!(!text(0).contains("usage"), "what was not told is not made up");
}

#[tokio::test(start_paused = true)]
async fn a_call_has_no_more_inputs_and_tokens_than_the_service_takes() {
    let server = Server::new(openai);
    let service = CoalesceLayer::new(1_000_000).unwrap().capacity(10_000).unwrap().http(OpenAiEmbeddings);
    let service = service.layer(server.service());
    send_all(&service, (0..3000).map(|n| embed(n.to_string()))).await;
    // 2 of 400,000 bytes are an estimated 266,667 tokens, 3 are too many.
    send_all(&service, (0..5).map(|_| embed("x".repeat(400_000)))).await;
    let inputs: Vec<_> =
        server.bodies().iter().map(|body| body["input"].as_array().map_or(1, Vec::len)).collect();
    assert_eq!(inputs, [2048, 952, 2, 2, 1]);
}

fn gemini(request: &Request<Value>) -> Res {
    let embedding = |content: &Value| json!({ "values": [embedding(&content["parts"][0]["text"])] });
    if request.uri().path().ends_with(":embedContent") {
        return ok(&json!({ "embedding": embedding(&request.body()["content"]) }));
    }
    let requests = request.body()["requests"].as_array().unwrap();
    let all: Vec<_> = requests.iter().map(|request| embedding(&request["content"])).collect();
    ok(&json!({ "embeddings": all, "usageMetadata": { "promptTokenCount": 100 } }))
}

fn gemini_request(text: &str, model: &str) -> Req {
    let body = json!({ "content": { "parts": [{ "text": text }] }, "taskType": "RETRIEVAL_QUERY" });
    post(&format!("/v1beta/models/{model}:embedContent?key=k"), &body)
}

#[tokio::test(start_paused = true)]
async fn gemini_embeddings_are_one_batch_per_model() {
    let server = Server::new(gemini);
    let service = layer(GeminiEmbeddings).layer(server.service());
    let requests = [("a", "one"), ("bb", "one"), ("ccc", "two"), ("dddd", "one")];
    let answers = send_all(&service, requests.map(|(text, model)| gemini_request(text, model))).await;
    let paths: BTreeSet<String> =
        server.seen.lock().unwrap().iter().map(|request| request.uri().to_string()).collect();
    assert_eq!(
        paths.iter().map(String::as_str).collect::<Vec<_>>(),
        [
            "https://api.example/v1beta/models/one:batchEmbedContents?key=k",
            "https://api.example/v1beta/models/two:embedContent?key=k",
        ]
    );
    for ((text, _), answer) in requests.iter().zip(&answers) {
        assert_eq!(json_of(answer)["embedding"]["values"][0], embedding(&json!(text)));
    }
    let joined = server.bodies().into_iter().find(|body| body["requests"].is_array()).unwrap();
    assert_eq!(joined["requests"][0]["model"], "models/one");
    assert_eq!(joined["requests"][0]["taskType"], "RETRIEVAL_QUERY");
    let shares =
        [0, 1, 3].map(|n: usize| json_of(&answers[n])["usageMetadata"]["promptTokenCount"].as_u64().unwrap());
    assert_eq!(shares.iter().sum::<u64>(), 100);
    assert_eq!(json_of(&answers[0])["usageMetadata"]["estimated"], true);
}

#[tokio::test(start_paused = true)]
async fn a_gemini_request_that_names_another_model_passes_through() {
    let server = Server::new(gemini);
    let service = layer(GeminiEmbeddings).layer(server.service());
    let other = json!({ "model": "models/other", "content": { "parts": [{ "text": "a" }] } });
    let request = || post("/v1beta/models/one:embedContent", &other);
    assert!(send_all(&service, [request(), request()]).await.iter().all(Result::is_ok));
    assert_eq!(server.bodies(), [other.clone(), other]);
}

#[tokio::test(start_paused = true)]
async fn a_gemini_answer_with_too_few_embeddings_is_an_error_for_all() {
    let server = Server::new(|_| ok(&json!({ "embeddings": [{ "values": [1] }] })));
    let service = layer(GeminiEmbeddings).layer(server.service());
    let answers = send_all(&service, ["a", "b"].map(|text| gemini_request(text, "one"))).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(BatchError::Batch(_)))));
}

/// A codec of one's own: lines, with `|` between.
struct Lines;

impl Codec for Lines {
    fn recognizes(&self, head: &http::request::Parts) -> bool {
        head.uri.path() == "/lines"
    }

    fn read(&self, _: &http::request::Parts, body: &Bytes) -> Option<Share> {
        (!body.contains(&b'|')).then(|| Share { inputs: 1, weight: body.len() as u64, ..Share::default() })
    }

    fn join(&self, _: &mut http::request::Parts, bodies: &[Bytes]) -> Result<Bytes, CodecError> {
        Ok(bodies.join(&b'|').into())
    }

    fn split(&self, _: &http::response::Parts, body: &Bytes, _: &[Share]) -> Result<Vec<Part>, CodecError> {
        let parts = body.split(|&byte| byte == b'|');
        Ok(parts.map(|part| Part { body: Bytes::copy_from_slice(part), input_tokens: None }).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn a_codec_of_ones_own_and_one_that_miscounts() {
    let echo = |extra: &'static str| {
        service_fn(move |request: Req| -> BoxFuture<'static, Result<Res, BoxError>> {
            Box::pin(async move {
                let mut body = request.into_body().collect().await?.to_bytes().to_vec();
                body.extend_from_slice(extra.as_bytes());
                Ok(Response::new(body.into()))
            })
        })
    };
    let line = |text: &'static str| Request::post("https://x.example/lines").body(Full::from(text)).unwrap();
    let service = layer(Lines).layer(echo(""));
    let answers = send_all(&service, [line("a"), line("b"), line("c|d")]).await;
    let bodies: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap().body().clone()).collect();
    assert_eq!(bodies, ["a", "b", "c|d"]);

    let service = layer(Lines).layer(echo("|more"));
    for answer in send_all(&service, [line("a"), line("b")]).await {
        assert!(matches!(answer, Err(BatchError::LengthMismatch { expected: 2, got: 3, .. })), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_client_is_passed_on() {
    let service = service_fn(|_: Req| async { Err::<Res, BoxError>("no route".into()) });
    let service = layer(OpenAiEmbeddings).layer(service);
    let answers = send_all(&service, [embed("a"), embed("b"), post("/other", &json!(1))]).await;
    for answer in answers {
        let error = answer.unwrap_err();
        assert!(matches!(error.inner(), Some(HttpError::Service(_))), "{error}");
        assert!(error.to_string().contains("no route"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_is_not_sent_and_its_place_is_free() {
    let server = Server::new(openai);
    let service =
        CoalesceLayer::new(4).unwrap().capacity(1).unwrap().http(OpenAiEmbeddings).layer(server.service());
    let mut first = service.clone();
    first.ready().await.unwrap();
    let call = first.call(embed("a"));
    drop((call, first));
    settle().await;
    let answers = send_all(&service, [embed("b")]).await;
    assert!(answers[0].is_ok());
    assert_eq!(server.bodies().len(), 1);
    assert_eq!(service.handle().held(), 0);
}
