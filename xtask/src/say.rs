//! The two voices of xtask: results on stdout, talk on stderr.

/// A result: one line on stdout.
#[expect(
    clippy::print_stdout,
    reason = "the one place where xtask writes its results"
)]
pub(crate) fn result(line: &str) {
    println!("{line}");
}

/// Talk and progress: one line on stderr.
#[expect(clippy::print_stderr, reason = "the one place where xtask talks")]
pub(crate) fn note(line: &str) {
    eprintln!("{line}");
}
