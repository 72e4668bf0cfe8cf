//! The pages to tag, and what it takes to ask for their tags and to read the answer.

use crate::{
    client::{BoxError, Request, Response},
    scale::Random,
};
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower_cooldown::record::Usage;

pub(crate) const GEMINI_MODEL: &str = "gemini-2.0-flash";
pub(crate) const GEMINI_PATH: &str = "/v1beta/models/gemini-2.0-flash:generateContent";
pub(crate) const CHAT_MODEL: &str = "gpt-4o-mini";
pub(crate) const CHAT_PATH: &str = "/v1/chat/completions";

const TASK: &str =
    "Give up to three tags for the page below, as a JSON array of strings, the best one first.\n\n";

/// Words by which the pages are written, and by which the servers know what they are about.
const TOPICS: [(&str, [&str; 6]); 8] = [
    ("gardening", ["compost", "seedling", "pruning", "greenhouse", "perennial", "mulch"]),
    ("astronomy", ["telescope", "nebula", "parallax", "exoplanet", "eclipse", "magnitude"]),
    ("cooking", ["simmer", "marinade", "shallot", "braise", "umami", "whisk"]),
    ("sailing", ["halyard", "windward", "jib", "mooring", "tiller", "spinnaker"]),
    ("databases", ["index", "transaction", "replica", "vacuum", "schema", "checkpoint"]),
    ("cycling", ["derailleur", "peloton", "cadence", "gradient", "saddle", "crankset"]),
    ("architecture", ["cornice", "buttress", "facade", "atrium", "cantilever", "lintel"]),
    ("music", ["fugue", "cadenza", "timbre", "counterpoint", "octave", "tremolo"]),
];

const COMMON: [&str; 12] =
    ["the", "of", "and", "often", "with", "every", "small", "before", "makes", "under", "seldom", "a"];

/// One page of the site whose pages are to be tagged.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    /// The same text for the same number, 1200 to 7200 characters long, about two topics.
    pub(crate) fn generate(number: usize) -> Self {
        let random = Random::new(number as u64);
        let length = 1200 + random.below(6000);
        let topics = [random.below(TOPICS.len()), random.below(TOPICS.len())];
        let mut text = format!("Page {number}.");
        while text.len() < length {
            let topic = topics[random.below(topics.len())];
            let words = if random.below(3) == 0 { &TOPICS[topic].1[..] } else { &COMMON[..] };
            text.push(' ');
            text.push_str(words[random.below(words.len())]);
        }
        Self { text }
    }

    fn prompt(&self) -> String {
        format!("{TASK}{}", self.text)
    }

    /// What asking for this page's tags takes on the way there.
    pub(crate) fn tokens(&self) -> u64 {
        tokens(&self.prompt())
    }

    /// Asks the primary. `base` is `http://host:port`.
    pub(crate) fn request(&self, base: &str) -> Result<Request, http::Error> {
        let body = json!({
            "contents": [{ "role": "user", "parts": [{ "text": self.prompt() }] }],
            "generationConfig": { "temperature": 0.0, "responseMimeType": "application/json" },
        });
        post(format!("{base}{GEMINI_PATH}"), &body)
    }
}

/// The same question for the fallback, which speaks another dialect and lives elsewhere.
pub(crate) async fn translate(request: Request, base: &str) -> Result<Request, BoxError> {
    let body = request.into_body().collect().await?.to_bytes();
    let body: Value = serde_json::from_slice(&body)?;
    let prompt = gemini_prompt(&body).ok_or("the request has no text")?;
    let body = json!({ "model": CHAT_MODEL, "messages": [{ "role": "user", "content": prompt }] });
    Ok(post(format!("{base}{CHAT_PATH}"), &body)?)
}

fn post(uri: String, body: &Value) -> Result<Request, http::Error> {
    http::Request::post(uri).header(CONTENT_TYPE, "application/json").body(Full::from(body.to_string()))
}

pub(crate) fn gemini_prompt(body: &Value) -> Option<&str> {
    body.pointer("/contents/0/parts/0/text")?.as_str()
}

pub(crate) fn chat_prompt(body: &Value) -> Option<&str> {
    body.get("model")?.as_str()?;
    body.pointer("/messages/0/content")?.as_str()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    Primary,
    Fallback,
}

impl Provider {
    /// Per token.
    pub(crate) const fn price(self) -> f64 {
        match self {
            Self::Primary => 0.0003 / 1000.0,
            Self::Fallback => 0.0006 / 1000.0,
        }
    }
}

/// A page's tags, who gave them, and what they took.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) by: Provider,
    pub(crate) tags: Vec<String>,
    pub(crate) tokens: u64,
}

impl Answer {
    /// `None` if this is not an answer, such as a 429, or one without tags.
    pub(crate) fn read(response: &Response) -> Option<Self> {
        if !response.status().is_success() {
            return None;
        }
        let body: Value = serde_json::from_slice(response.body()).ok()?;
        let (by, text, usage, names) = if let Some(text) = body.pointer("/candidates/0/content/parts/0/text")
        {
            (Provider::Primary, text, "usageMetadata", ["promptTokenCount", "candidatesTokenCount"])
        } else {
            let text = body.pointer("/choices/0/message/content")?;
            (Provider::Fallback, text, "usage", ["prompt_tokens", "completion_tokens"])
        };
        let [input, output] = names.map(|name| body[usage][name].as_u64().unwrap_or(0));
        // The stack attached this to what came through its gate, and only there.
        if let Some(usage) = response.extensions().get::<Usage>() {
            usage.report(input, output);
        }
        let tags: Vec<String> = serde_json::from_str(text.as_str()?).ok()?;
        (!tags.is_empty()).then_some(Self { by, tags, tokens: input + output })
    }
}

/// What the model behind both servers does: the topics with the most words in the text.
pub(crate) fn tag(prompt: &str) -> String {
    let mut counts = TOPICS
        .map(|(topic, words)| (prompt.split_whitespace().filter(|word| words.contains(word)).count(), topic));
    counts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let tags: Vec<&str> =
        counts.iter().filter(|(count, _)| *count > 0).take(3).map(|(_, topic)| *topic).collect();
    json!(tags).to_string()
}

/// Four characters to a token, as a rule of thumb.
pub(crate) fn tokens(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}
