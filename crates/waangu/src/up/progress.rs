//! What `up` is doing, on stderr: a spinner on a terminal, a line for each phase elsewhere. The
//! duration of each phase is kept for whoever measures starts.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::output::talk;

/// The phases of a start.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    began: Instant,
    phase: Option<(&'static str, Instant)>,
    done: Vec<(&'static str, Duration)>,
}

impl Progress {
    /// Begins.
    pub(crate) fn begin() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            bar,
            began: Instant::now(),
            phase: None,
            done: Vec::new(),
        }
    }

    /// The next phase begins.
    pub(crate) fn phase(&mut self, name: &'static str) {
        self.close();
        self.phase = Some((name, Instant::now()));
        self.bar.reset_elapsed();
        self.bar.set_message(name);
    }

    /// Something worth telling within the phase.
    pub(crate) fn note(&self, text: &str) {
        if self.bar.is_hidden() {
            talk(&format!("  {text}"));
        } else {
            self.bar.set_message(text.to_owned());
        }
    }

    /// All is done: returns the whole time and that of each phase.
    pub(crate) fn end(mut self) -> (Duration, Vec<(&'static str, Duration)>) {
        self.close();
        self.bar.finish_and_clear();
        (self.began.elapsed(), self.done)
    }

    fn close(&mut self) {
        let Some((name, since)) = self.phase.take() else {
            return;
        };
        let took = since.elapsed();
        self.bar
            .suspend(|| talk(&format!("  {name}: {:.2} s", took.as_secs_f64())));
        self.done.push((name, took));
    }
}
