//! Talk on stderr (a bar on a terminal, a line for each phase elsewhere) and results on stdout.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// What the bench is doing.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Begins.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new(0);
        let template = "{spinner} {msg} {pos}/{len} ({elapsed})";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// The next phase begins, of so many steps.
    pub(crate) fn phase(&self, text: &str, steps: usize) {
        if self.bar.is_hidden() {
            talk(&format!("  {text} ({steps} steps)"));
        }
        self.bar.reset();
        self.bar
            .set_length(u64::try_from(steps).unwrap_or(u64::MAX));
        self.bar.set_message(text.to_owned());
    }

    /// One step is done.
    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }

    /// All is done.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// One line of result.
#[expect(
    clippy::print_stdout,
    reason = "results go to stdout, here and nowhere else"
)]
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// One line of talk.
#[expect(
    clippy::print_stderr,
    reason = "talk goes to stderr, here and nowhere else"
)]
pub(crate) fn talk(text: &str) {
    eprintln!("{text}");
}
