//! Asking the platform to move a tenant, and following it to the end.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use waangu_api::{Client, ClientError};

use crate::failure::Failure;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Where a tenant is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) tier: &'a str,
    pub(crate) cell: &'a str,
}

/// What became of a move.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) state: String,
    pub(crate) view: Value,
    pub(crate) took: Duration,
}

impl Move {
    pub(crate) fn is_done(&self) -> bool {
        self.state == "done"
    }
}

/// Asks for a move; gives its id.
pub(crate) async fn ask(
    client: &Client,
    slug: &str,
    target: Target<'_>,
    key: &str,
) -> Result<String, ClientError> {
    send(
        client,
        slug,
        json!({ "tier": target.tier, "cell": target.cell }),
        key,
    )
    .await
}

/// Asks for the last move to be taken back.
pub(crate) async fn ask_back(
    client: &Client,
    slug: &str,
    key: &str,
) -> Result<String, ClientError> {
    send(client, slug, json!({ "back": true }), key).await
}

async fn send(client: &Client, slug: &str, wish: Value, key: &str) -> Result<String, ClientError> {
    let path = format!("/tenants/{slug}/relocations");
    let view: Value = client
        .send_json(Method::POST, &path, &wish, Some(key))
        .await?;
    Ok(text(&view, "id"))
}

/// Follows a move to its end, through outages of the control plane.
pub(crate) async fn follow(
    client: &Client,
    slug: &str,
    id: &str,
    patience: Duration,
) -> Result<Move, Failure> {
    let begun = Instant::now();
    let path = format!("/tenants/{slug}/relocations/{id}");
    let mut last = String::new();
    while begun.elapsed() < patience {
        match client.get::<Value>(&path).await {
            Ok(view) => {
                let state = text(&view, "phase");
                if matches!(state.as_str(), "done" | "failed" | "cancelled") {
                    return Ok(Move {
                        state,
                        view,
                        took: begun.elapsed(),
                    });
                }
                last = view.to_string();
            }
            Err(error) => last = error.to_string(),
        }
        sleep(LOOK).await;
    }
    let seconds = patience.as_secs();
    Err(Failure::new(format!(
        "the move of {slug} is not over after {seconds} s: {last}"
    )))
}

fn text(view: &Value, field: &str) -> String {
    let value = view.get(field).and_then(Value::as_str);
    value.unwrap_or_default().to_owned()
}
