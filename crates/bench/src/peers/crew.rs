//! Worker processes of a peer: each reads a request a line, does it, and answers a line of JSON.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::{Pass, Tries};
use crate::failure::{Failure, Of as _};

/// Longest time of one request; none comes near it.
const PATIENCE: Duration = Duration::from_mins(2);

/// How often one request is made before it counts as refused.
const TRIES: usize = 20;

/// Processes that have started and wait. They end when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Crew(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    /// Ends with us.
    _child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

/// Why a request came to nothing.
enum Trouble {
    /// The worker says so, and waits for the next one.
    Refused(String),
    /// It has ended, or may answer when nobody expects it any more.
    Gone(String),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let (Trouble::Refused(why) | Trouble::Gone(why)) = trouble;
        Self::new(why)
    }
}

/// What a worker says.
#[derive(Debug, Deserialize)]
struct Answer {
    error: Option<String>,
}

impl Crew {
    /// Starts so many and waits until all of them are there.
    pub(crate) async fn start(
        count: usize,
        folder: &Path,
        command: impl Fn() -> Command,
    ) -> Result<Self, Failure> {
        let mut crew = Vec::new();
        for number in 0..count {
            let log = folder.join(format!("worker-{number}.log"));
            crew.push(Worker::start(command(), log)?);
        }
        for worker in &mut crew {
            worker.ask("ready").await?;
        }
        Ok(Self(crew))
    }

    /// Has so many of them work through the numbers: `<what> <number>` each.
    pub(crate) async fn run(
        &mut self,
        at_once: usize,
        what: &str,
        numbers: std::ops::Range<usize>,
    ) -> Result<Pass, Failure> {
        let crew = self.0.iter_mut().take(at_once);
        Pass::run(crew, numbers, async |worker, number| {
            let request = format!("{what} {number}");
            let mut failed = 0;
            loop {
                match worker.ask(&request).await {
                    Ok(()) => return Ok(Tries(failed)),
                    Err(Trouble::Refused(_)) if failed < TRIES => failed += 1,
                    Err(trouble) => return Err(trouble.into()),
                }
            }
        })
        .await
    }
}

impl Worker {
    fn start(mut command: Command, log: PathBuf) -> Result<Self, Failure> {
        let name = command.as_std().get_program().display().to_string();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).of(log.display())?)
            .kill_on_drop(true)
            .spawn()
            .of(&name)?;
        let piped = || Failure::new(format!("{name} has no pipes"));
        Ok(Self {
            asks: child.stdin.take().ok_or_else(piped)?,
            answers: BufReader::new(child.stdout.take().ok_or_else(piped)?).lines(),
            _child: child,
            log,
        })
    }

    /// One request; the error is what the worker says, or what it last wrote.
    async fn ask(&mut self, request: &str) -> Result<(), Trouble> {
        let asked = async {
            self.asks
                .write_all(format!("{request}\n").as_bytes())
                .await?;
            self.asks.flush().await?;
            self.answers.next_line().await
        };
        let line = match timeout(PATIENCE, asked).await {
            Err(_elapsed) => return Err(Trouble::Gone(format!("{request}: no answer"))),
            Ok(Ok(Some(line))) => line,
            Ok(_ended) => {
                let why = format!("{request}: {}", self.last_words());
                return Err(Trouble::Gone(why));
            }
        };
        let answer: Answer = serde_json::from_str(&line)
            .map_err(|_unreadable| Trouble::Gone(format!("{request}: {line}")))?;
        match answer.error {
            None => Ok(()),
            Some(why) => Err(Trouble::Refused(format!("{request}: {why}"))),
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("it ended without a word").to_owned()
    }
}
