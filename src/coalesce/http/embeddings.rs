//! Codecs for embedding APIs.

use super::{Codec, CodecError, Part, Share, key::is_plain_json, share_out};
use bytes::Bytes;
use http::{Method, Uri, request, response};
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;

/// A JSON object whose values are kept as they stand: numbers go through to the digit, and are not parsed.
type Object<'a> = BTreeMap<String, &'a RawValue>;

/// `POST …/embeddings` as OpenAI has it, and those who speak the same: an `input` that may be an array, and an answer
/// whose `data` name the `index` of their input.
///
/// Joined are requests with the same method, URI, headers, and the same fields but `input` (model, dimensions, format,
/// user). Each `input` may be a string, an array of strings, an array of token numbers, or an array of those; texts and
/// token numbers are not mixed in one call. A call has at most 2048 inputs and an estimated 300,000 tokens, which are
/// [OpenAI's bounds](https://platform.openai.com/docs/api-reference/embeddings/create). Requests with `"stream": true`
/// pass through.
///
/// The weight is the number of tokens, counted for token numbers and estimated for texts: a token for every 3 bytes,
/// which is rather too many than too few. `usage` is shared out by it and marked with `"estimated": true`.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAiEmbeddings;

/// `POST …:embedContent` as Gemini has it, joined into one `…:batchEmbedContents` of at most 100 requests.
///
/// Joined are requests with the same method, URI (and so the same model and the same `key`) and headers. The answer's
/// `embeddings` have no numbers; they come in the order of the requests. Where it tells `usageMetadata`, the
/// `promptTokenCount` is shared out by weight and marked with `"estimated": true`.
#[derive(Clone, Copy, Debug, Default)]
pub struct GeminiEmbeddings;

fn object(body: &[u8]) -> Option<Object<'_>> {
    serde_json::from_slice(body).ok()
}

fn parse<'a, T: serde::Deserialize<'a>>(what: &str, json: &'a str) -> Result<T, CodecError> {
    serde_json::from_str(json).map_err(|error| CodecError::new(format!("{what}: {error}")))
}

fn raw(value: &impl serde::Serialize) -> Result<Box<RawValue>, CodecError> {
    to_raw_value(value).map_err(|error| CodecError::new(error.to_string()))
}

fn bytes(value: &impl serde::Serialize) -> Result<Bytes, CodecError> {
    let bytes = serde_json::to_vec(value).map_err(|error| CodecError::new(error.to_string()))?;
    Ok(bytes.into())
}

fn tokens_in(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(3).max(1)
}

/// The inputs of a request, one JSON value each, and what kind they are of.
fn inputs(input: &RawValue) -> Option<(Kind, Vec<&RawValue>)> {
    match input.get().as_bytes().first()? {
        b'"' => Some((Kind::Text, vec![input])),
        b'[' => {
            let inputs: Vec<&RawValue> = serde_json::from_str(input.get()).ok()?;
            let first = kind_of(inputs.first()?)?;
            if inputs.iter().any(|input| kind_of(input) != Some(first)) {
                return None; // the service will say what it thinks of that
            }
            match first {
                // An array of numbers is one input.
                Kind::Number => Some((Kind::Tokens, vec![input])),
                kind => Some((kind, inputs)),
            }
        }
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Tokens,
    Number,
}

fn kind_of(input: &RawValue) -> Option<Kind> {
    match input.get().as_bytes().first()? {
        b'"' => Some(Kind::Text),
        b'[' => Some(Kind::Tokens),
        b'0'..=b'9' => Some(Kind::Number),
        _ => None,
    }
}

impl Codec for OpenAiEmbeddings {
    fn recognizes(&self, head: &request::Parts) -> bool {
        head.method == Method::POST && head.uri.path().ends_with("/embeddings") && is_plain_json(head)
    }

    fn read(&self, _: &request::Parts, body: &Bytes) -> Option<Share> {
        let mut fields = object(body)?;
        if fields.get("stream").is_some_and(|stream| stream.get() != "false") {
            return None;
        }
        let (kind, inputs) = inputs(fields.remove("input")?)?;
        let weight = inputs.iter().map(|input| match kind {
            Kind::Text => tokens_in(input.get().len().saturating_sub(2)),
            _ => input.get().bytes().filter(|&byte| byte == b',').count() as u64 + 1,
        });
        let weight = weight.sum();
        // The other fields, sorted by name; the order in which they came says nothing.
        let key = serde_json::to_vec(&(kind == Kind::Text, fields)).ok()?;
        Some(Share { key, inputs: inputs.len(), weight })
    }

    fn join(&self, _: &mut request::Parts, bodies: &[Bytes]) -> Result<Bytes, CodecError> {
        let unreadable = || CodecError::new("a request that was read before cannot be read again");
        let mut all = Vec::new();
        let mut fields = Object::new();
        for body in bodies {
            fields = object(body).ok_or_else(unreadable)?;
            let (_, inputs) = fields.get("input").and_then(|input| inputs(input)).ok_or_else(unreadable)?;
            all.extend(inputs);
        }
        let all = raw(&all)?;
        fields.insert("input".into(), &all);
        bytes(&fields)
    }

    fn split(&self, _: &response::Parts, body: &Bytes, shares: &[Share]) -> Result<Vec<Part>, CodecError> {
        let fields = object(body).ok_or_else(|| CodecError::new("the answer is no JSON object"))?;
        let data = fields.get("data").ok_or_else(|| CodecError::new("the answer has no `data`"))?;
        let data: Vec<Object<'_>> = parse("data", data.get())?;
        let expected: usize = shares.iter().map(|share| share.inputs).sum();
        let mut by_index: Vec<Option<Object<'_>>> = (0..expected).map(|_| None).collect();
        let got = data.len();
        for datum in data {
            let index = datum.get("index").ok_or_else(|| CodecError::new("`data` without an `index`"))?;
            let index: usize = parse("index", index.get())?;
            let place = by_index.get_mut(index);
            let place = place.ok_or_else(|| CodecError::new(format!("`index` {index} of {expected}")))?;
            if place.replace(datum).is_some() {
                return Err(CodecError::new(format!("`index` {index} twice")));
            }
        }
        if got != expected {
            return Err(CodecError::new(format!("{got} embeddings for {expected} inputs")));
        }
        let usage = fields.get("usage").map(|usage| parse::<Object<'_>>("usage", usage.get())).transpose()?;
        let tokens = usage.as_ref().and_then(|usage| share_field(usage, "prompt_tokens", shares));
        let totals = usage.as_ref().and_then(|usage| share_field(usage, "total_tokens", shares));
        let mut in_order = by_index.into_iter().flatten();
        let parts = shares.iter().enumerate().map(|(n, share)| {
            let numbers = (0..share.inputs).map(|index| raw(&index)).collect::<Result<Vec<_>, _>>()?;
            let mut data: Vec<Object<'_>> = in_order.by_ref().take(share.inputs).collect();
            for (datum, number) in data.iter_mut().zip(&numbers) {
                datum.insert("index".into(), number);
            }
            let data = raw(&data)?;
            let mut fields = fields.clone();
            fields.insert("data".into(), &data);
            let input_tokens = tokens.as_ref().map(|tokens| tokens[n]);
            let total = totals.as_ref().map(|totals| totals[n]);
            let estimate = usage_of([("prompt_tokens", input_tokens), ("total_tokens", total)])?;
            if usage.is_some() {
                fields.insert("usage".into(), &estimate);
            }
            Ok(Part { body: bytes(&fields)?, input_tokens })
        });
        parts.collect()
    }

    fn max_inputs(&self) -> usize {
        2048
    }

    fn max_weight(&self) -> u64 {
        300_000
    }
}

/// What each has of a number that stands in `usage`.
fn share_field(usage: &Object<'_>, field: &str, shares: &[Share]) -> Option<Vec<u64>> {
    let total = usage.get(field)?.get().parse().ok()?;
    Some(share_out(total, shares))
}

fn usage_of(fields: [(&str, Option<u64>); 2]) -> Result<Box<RawValue>, CodecError> {
    let mut usage = serde_json::Map::new();
    for (name, tokens) in fields {
        if let Some(tokens) = tokens {
            usage.insert(name.into(), tokens.into());
        }
    }
    usage.insert("estimated".into(), true.into());
    raw(&usage)
}

const ONE: &str = ":embedContent";
const MANY: &str = ":batchEmbedContents";

impl Codec for GeminiEmbeddings {
    fn recognizes(&self, head: &request::Parts) -> bool {
        head.method == Method::POST && head.uri.path().ends_with(ONE) && is_plain_json(head)
    }

    fn read(&self, head: &request::Parts, body: &Bytes) -> Option<Share> {
        let fields = object(body)?;
        // Each of the joined requests names its model, which has to be that of the URI.
        let model = model_of(&head.uri)?;
        if let Some(named) = fields.get("model") {
            let named: String = serde_json::from_str(named.get()).ok()?;
            if named != model {
                return None;
            }
        }
        let weight = tokens_in(fields.get("content")?.get().len());
        Some(Share { key: Vec::new(), inputs: 1, weight })
    }

    fn join(&self, head: &mut request::Parts, bodies: &[Bytes]) -> Result<Bytes, CodecError> {
        let unreadable = || CodecError::new("a request that was read before cannot be read again");
        let model = raw(&model_of(&head.uri).ok_or_else(unreadable)?)?;
        let requests = bodies.iter().map(|body| {
            let mut fields = object(body)?;
            fields.insert("model".into(), &model);
            Some(fields)
        });
        let requests: Vec<_> = requests.collect::<Option<_>>().ok_or_else(unreadable)?;
        head.uri = to_many(&head.uri).ok_or_else(unreadable)?;
        bytes(&BTreeMap::from([("requests", requests)]))
    }

    fn split(&self, _: &response::Parts, body: &Bytes, shares: &[Share]) -> Result<Vec<Part>, CodecError> {
        let fields = object(body).ok_or_else(|| CodecError::new("the answer is no JSON object"))?;
        let embeddings = fields.get("embeddings");
        let embeddings = embeddings.ok_or_else(|| CodecError::new("the answer has no `embeddings`"))?;
        let embeddings: Vec<&RawValue> = parse("embeddings", embeddings.get())?;
        if embeddings.len() != shares.len() {
            let (got, expected) = (embeddings.len(), shares.len());
            return Err(CodecError::new(format!("{got} embeddings for {expected} requests")));
        }
        let usage =
            fields.get("usageMetadata").map(|usage| parse::<Object<'_>>("usageMetadata", usage.get()));
        let usage = usage.transpose()?;
        let tokens = usage.as_ref().and_then(|usage| share_field(usage, "promptTokenCount", shares));
        let parts = embeddings.into_iter().enumerate().map(|(n, embedding)| {
            let mut fields = fields.clone();
            fields.remove("embeddings");
            fields.insert("embedding".into(), embedding);
            let input_tokens = tokens.as_ref().map(|tokens| tokens[n]);
            let estimate = usage_of([("promptTokenCount", input_tokens), ("", None)])?;
            if usage.is_some() {
                fields.insert("usageMetadata".into(), &estimate);
            }
            Ok(Part { body: bytes(&fields)?, input_tokens })
        });
        parts.collect()
    }

    fn max_inputs(&self) -> usize {
        100
    }
}

/// `models/NAME` of `/v1beta/models/NAME:embedContent`.
fn model_of(uri: &Uri) -> Option<String> {
    let path = uri.path().strip_suffix(ONE)?;
    let (_, model) = path.rsplit_once("/models/")?;
    (!model.is_empty()).then(|| format!("models/{model}"))
}

fn to_many(uri: &Uri) -> Option<Uri> {
    let path = uri.path().strip_suffix(ONE)?;
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{path}{MANY}{query}").parse().ok()?);
    Uri::from_parts(parts).ok()
}
