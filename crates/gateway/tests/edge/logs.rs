//! What the log says of a request, and what it must not.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use crate::stage::Stage;

/// Keeps what is logged on this thread.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A token in a log is a key under the mat for whoever reads logs; a request that is not there can't
/// be explained to the client who quotes its id.
#[tokio::test]
async fn each_request_is_one_line_without_secrets() {
    let kept = Kept::default();
    let writer = kept.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _on_this_thread = tracing::subscriber::set_default(subscriber);
    let stage = Stage::new().await;
    let token = stage.token(stage.people.admin, "acme");
    let good = stage.get("/api/inventory/products/7?secret=sesame").await;
    let bad = stage.get("/api/inventory/sesame").await;
    let forged = stage
        .as_user(&token.replace('.', "_"), "GET", "acme", "/api/inventory/")
        .await;
    let ids = [&good, &bad, &forged].map(|got| got.header("waangu-request").to_owned());
    stage.end().await;

    let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    for id in ids {
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(&id)).collect();
        let [line] = lines.as_slice() else {
            panic!("{id}: {lines:?}");
        };
        assert!(
            line.contains("tenant=\"acme\"") && line.contains("INFO"),
            "{line}"
        );
    }
    assert!(text.contains("route=\"/products/{id}\""), "{text}");
    let ours: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("waangu_gateway"))
        .collect();
    assert!(ours.len() >= 3);
    for line in ours {
        assert!(!line.contains("sesame") && !line.contains("eyJ"), "{line}");
    }
}
