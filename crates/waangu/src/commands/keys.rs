//! The gateway's keys: what there is, and replacing them.

use std::time::Duration;

use http::Method;
use tokio::time::{Instant, sleep};
use waangu_api::types::{KeyList, RotateKeys};
use waangu_api::{Client, ClientError};

use super::admin;
use crate::cli::{Global, KeyCommand};
use crate::failure::Failure;
use crate::output::{print, talk};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Longest time without an answer of the control plane.
const SILENCE: Duration = Duration::from_mins(1);

pub(crate) async fn key(global: &Global, command: KeyCommand) -> Result<(), Failure> {
    let client = admin(global)?;
    match command {
        KeyCommand::List => show(global, &client.get("/keys").await?),
        KeyCommand::Rotate { kind, no_wait } => {
            let kind = kind.as_str().to_owned();
            let begun: KeyList = client
                .send_json(Method::POST, "/keys/rotations", &RotateKeys { kind }, None)
                .await?;
            if no_wait {
                return show(global, &begun);
            }
            show(global, &follow(&client, begun).await?)
        }
    }
}

/// Waits until what is under way now has come to its end. The control plane goes on without us.
async fn follow(client: &Client, begun: KeyList) -> Result<KeyList, Failure> {
    let ours: Vec<String> = begun.rotations.iter().map(|r| r.id.clone()).collect();
    let mut now = begun;
    let mut said = String::new();
    let mut heard = Instant::now();
    loop {
        let said_now = progress(&now);
        if said_now != said {
            talk(&said_now);
            said = said_now;
        }
        if !now.rotations.iter().any(|r| ours.contains(&r.id)) {
            return Ok(now);
        }
        sleep(LOOK).await;
        match client.get("/keys").await {
            Ok(found) => (now, heard) = (found, Instant::now()),
            // It may be starting again; then it goes on where it was.
            Err(error) if passing(&error) && heard.elapsed() < SILENCE => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn passing(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(problem) => problem.status >= 500,
        ClientError::Unreachable(_) => true,
    }
}

fn progress(list: &KeyList) -> String {
    let mut lines: Vec<String> = Vec::new();
    for rotation in &list.rotations {
        let keys = list.items.iter().filter(|key| key.kind == rotation.kind);
        let keys: Vec<String> = keys
            .map(|key| format!("{} {}", key.id, key.state))
            .collect();
        lines.push(format!("{}: {}", rotation.kind, keys.join(", ")));
        lines.extend(rotation.problem.clone());
    }
    if lines.is_empty() {
        lines.push("done: what was replaced is not accepted any more".to_owned());
    }
    lines.join("\n")
}

fn show(global: &Global, list: &KeyList) -> Result<(), Failure> {
    let rows = list
        .items
        .iter()
        .map(|key| {
            vec![
                key.kind.clone(),
                key.id.clone(),
                key.state.clone(),
                key.since.to_string(),
                key.created.to_string(),
            ]
        })
        .collect();
    let header = ["kind", "key", "state", "since", "created"];
    print(global.output, list, &header, rows)
}
