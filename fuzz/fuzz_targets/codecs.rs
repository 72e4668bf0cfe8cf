//! Any requests and any answer: what is joined are the inputs of all, each once and in their order; what is split goes to
//! who asked for it; and of an answer that does not add up nobody gets any.
//!
//! The input is which codec, then bodies of requests with an empty line between them, and last the body of an answer.

#![no_main]

use bytes::Bytes;
use http::{
    Request, Response,
    request::{self, Parts},
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tower_cooldown::coalesce::http::{Codec, GeminiEmbeddings, OpenAiEmbeddings, Part, Share, share_out};

const MOST: usize = 6;

fn value(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

fn request_to(uri: &str) -> Parts {
    let request = Request::post(uri).header("content-type", "application/json");
    request.body(()).unwrap().into_parts().0
}

/// The requests that share a call with the first one that can, and what the codec has read of them.
fn readable(codec: &impl Codec, head: &request::Parts, bodies: &[Bytes]) -> Vec<(Bytes, Share)> {
    assert!(codec.recognizes(head));
    let mut together: Vec<(Bytes, Share)> = Vec::new();
    for body in bodies {
        let share = codec.read(head, body);
        assert_eq!(share, codec.read(head, body), "it is a function");
        let Some(share) = share else { continue };
        assert!(share.inputs > 0 && share.weight >= share.inputs as u64, "{share:?}");
        if together.first().is_none_or(|(_, first)| first.key == share.key) {
            together.push((body.clone(), share));
        }
    }
    together
}

/// Whatever the answer says: a part for each, and what it says was used is shared out to the last token.
fn split(codec: &impl Codec, answer: &Bytes, shares: &[Share], used: [&str; 2]) -> Option<Vec<Part>> {
    let head = Response::new(()).into_parts().0;
    let parts = codec.split(&head, answer, shares).ok()?;
    assert_eq!(parts.len(), shares.len());
    let tokens: Option<Vec<u64>> = parts.iter().map(|part| part.input_tokens).collect();
    if let Some(answer) = value(answer) {
        let told = answer[used[0]][used[1]].as_u64();
        assert_eq!(tokens.is_some(), told.is_some());
        assert_eq!(tokens.map(|tokens| tokens.iter().sum()), told);
    }
    Some(parts)
}

fn openai(bodies: &[Bytes], answer: &Bytes) {
    let mut head = request_to("https://api.example/v1/embeddings");
    let (bodies, shares): (Vec<_>, Vec<_>) = readable(&OpenAiEmbeddings, &head, bodies).into_iter().unzip();
    if bodies.len() < 2 {
        return;
    }
    let uri = head.uri.clone();
    let joined = OpenAiEmbeddings.join(&mut head, &bodies).unwrap();
    assert_eq!(head.uri, uri);
    let inputs: usize = shares.iter().map(|share| share.inputs).sum();
    // It is a request like any other, for all of them.
    let share = OpenAiEmbeddings.read(&head, &joined).unwrap();
    let weight = shares.iter().map(|share| share.weight).sum::<u64>();
    assert_eq!((share.inputs, share.weight, &share.key), (inputs, weight, &shares[0].key));
    // Numbers that are too large for `Value` are none of the codec's business.
    let all: Option<Vec<Value>> = bodies.iter().map(|body| value(body)).collect();
    if let (Some(all), Some(mut joined)) = (all, value(&joined)) {
        let each = all.iter().zip(&shares).flat_map(|(body, share)| match &body["input"] {
            Value::Array(inputs) if inputs.len() == share.inputs && !inputs[0].is_number() => inputs.clone(),
            input => vec![input.clone()],
        });
        assert_eq!(joined["input"].take(), Value::from_iter(each));
        let mut first = all[0].clone();
        first["input"].take();
        assert_eq!(joined, first);
    }

    // Last to first, as no server does it, and each with what only it has.
    let data = (0..inputs).rev().map(|n| json!({"index": n, "embedding": [n], "object": "embedding"}));
    let good = json!({"data": Value::from_iter(data), "model": "m", "usage": {"prompt_tokens": 1007}});
    let parts = split(&OpenAiEmbeddings, &good.to_string().into(), &shares, ["usage", "prompt_tokens"]);
    let mut next = 0;
    for (part, share) in parts.expect("a good answer is split").iter().zip(&shares) {
        let body = value(&part.body).unwrap();
        let data = body["data"].as_array().unwrap();
        assert_eq!((data.len(), &body["model"]), (share.inputs, &json!("m")));
        for (index, datum) in data.iter().enumerate() {
            assert_eq!((&datum["index"], &datum["embedding"]), (&json!(index), &json!([next])));
            next += 1;
        }
        assert_eq!(body["usage"]["prompt_tokens"].as_u64(), part.input_tokens);
    }
    assert_eq!(next, inputs);

    let parts = split(&OpenAiEmbeddings, answer, &shares, ["usage", "prompt_tokens"]);
    for (part, share) in parts.iter().flatten().zip(&shares) {
        if let Some(body) = value(&part.body) {
            let data = body["data"].as_array().unwrap();
            assert_eq!(data.len(), share.inputs);
            assert!(data.iter().enumerate().all(|(index, datum)| datum["index"] == index));
        }
    }
}

fn gemini(bodies: &[Bytes], answer: &Bytes) {
    let mut head = request_to("https://api.example/v1beta/models/m:embedContent?key=k");
    let (bodies, shares): (Vec<_>, Vec<_>) = readable(&GeminiEmbeddings, &head, bodies).into_iter().unzip();
    if bodies.len() < 2 {
        return;
    }
    let joined = GeminiEmbeddings.join(&mut head, &bodies).unwrap();
    assert_eq!(head.uri, "https://api.example/v1beta/models/m:batchEmbedContents?key=k");
    let all: Option<Vec<Value>> = bodies.iter().map(|body| value(body)).collect();
    if let (Some(mut all), Some(mut joined)) = (all, value(&joined)) {
        all.iter_mut().for_each(|body| body["model"] = json!("models/m"));
        assert_eq!(joined["requests"].take(), Value::from(all));
    }

    let embeddings = (0..shares.len()).map(|n| json!({"values": [n]}));
    let good =
        json!({"embeddings": Value::from_iter(embeddings), "usageMetadata": {"promptTokenCount": 1007}});
    let used = ["usageMetadata", "promptTokenCount"];
    let parts = split(&GeminiEmbeddings, &good.to_string().into(), &shares, used);
    for (n, part) in parts.expect("a good answer is split").iter().enumerate() {
        assert_eq!(value(&part.body).unwrap()["embedding"], json!({"values": [n]}));
    }

    let parts = split(&GeminiEmbeddings, answer, &shares, used);
    if let (Some(parts), Some(answer)) = (parts, value(answer)) {
        let each = parts.iter().map(|part| value(&part.body).unwrap()["embedding"].take());
        assert_eq!(Value::from_iter(each), answer["embeddings"]);
    }
}

fn sharing(numbers: &[u8], total: u64) {
    // Weights of every size.
    let weigh = |bytes: &[u8]| u64::from(bytes[0]).checked_shl(bytes[1].into()).unwrap_or(u64::MAX);
    let weights = numbers.chunks_exact(2).take(32).map(weigh);
    let shares: Vec<Share> = weights.map(|weight| Share { weight, ..Share::default() }).collect();
    let parts = share_out(total, &shares);
    assert_eq!(parts.len(), shares.len());
    assert!(parts.is_empty() || parts.iter().map(|part| u128::from(*part)).sum::<u128>() == total.into());
    for (one, mine) in shares.iter().zip(&parts) {
        for (other, theirs) in shares.iter().zip(&parts) {
            assert!(one.weight <= other.weight || mine >= theirs, "{shares:?} get {parts:?}");
        }
    }
}

fuzz_target!(|input: (bool, u64, &[u8])| {
    let (is_openai, total, data) = input;
    sharing(data, total);
    let mut texts: Vec<&[u8]> = Vec::new();
    let mut rest = data;
    while let Some(at) = rest.windows(2).position(|two| two == b"\n\n").filter(|_| texts.len() < MOST) {
        texts.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    let bodies: Vec<Bytes> = texts.into_iter().map(Bytes::copy_from_slice).collect();
    let answer = Bytes::copy_from_slice(rest);
    if is_openai {
        openai(&bodies, &answer);
    } else {
        gemini(&bodies, &answer);
    }
});
