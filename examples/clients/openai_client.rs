//! async-openai, with this crate's stack in place of its own retries (its feature `middleware`).
//!
//! ```sh
//! cargo run --example openai_client
//! ```

use async_openai::{
    Client,
    config::OpenAIConfig,
    middleware::ReqwestService,
    types::chat::{ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequestArgs},
};
use axum::{Json, Router, response::IntoResponse, routing::post};
use local::{Server, refusal};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    record::{Snapshot, Statistics},
    retry::RetryPolicy,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    println!("{}", run().await?);
    Ok(())
}

pub(crate) async fn run() -> Result<Snapshot, BoxError> {
    let server = Server::start(chat()).await?;
    let statistics = Statistics::new();
    // async-openai's requests are made anew for each attempt, so they can be copied, and its responses are reqwest's.
    let http = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(AdaptiveCooldownLayer::new().name("openai").statistics(&statistics))
        .service(ReqwestService::new(reqwest::Client::new()));
    let config = OpenAIConfig::new().with_api_base(server.uri()).with_api_key("none");
    let client = Client::with_config(config).with_http_service(http);

    let message = ChatCompletionRequestUserMessageArgs::default().content("Which city is this?").build()?;
    let request =
        CreateChatCompletionRequestArgs::default().model("any").messages([message.into()]).build()?;
    let answer = client.chat().create(request).await?;
    let text = answer.choices.first().and_then(|choice| choice.message.content.as_deref());
    assert_eq!(text, Some("You asked: Which city is this?"));
    Ok(statistics.snapshot())
}

/// A chat API that refuses its first call.
fn chat() -> Router {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let answer = |Json(request): Json<Value>| async move {
        if CALLS.fetch_add(1, SeqCst) == 0 {
            return refusal();
        }
        let question = request["messages"][0]["content"].as_str().unwrap_or_default();
        let message = json!({ "role": "assistant", "content": format!("You asked: {question}") });
        Json(json!({
            "id": "1", "object": "chat.completion", "created": 0, "model": "any",
            "choices": [{ "index": 0, "finish_reason": "stop", "message": message }],
        }))
        .into_response()
    };
    Router::new().route("/chat/completions", post(answer))
}
