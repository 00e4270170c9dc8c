//! Starting the server and waiting until it accepts connections.
//!
//! Invariants: a child is in the handle from the moment it exists, so a start that is cancelled
//! half-way leaves nothing that `stop`, `start` or the drop would not find; a server that says nothing for
//! `Config::start_timeout` is not waited for, one that tells how far its recovery is is: whoever ended it would
//! have the next one begin again, for ever.

use std::{net::TcpListener, process::ExitStatus, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Cluster, Shutdown, takeover};
use crate::{
    error::{Doing, Error},
    log,
};

/// Where ports are chosen: below those that systems give to outgoing connections, so that a port
/// is still free after a pause.
const PORTS: std::ops::Range<u16> = 15_432..32_000;
const POLL: Duration = Duration::from_millis(15);
/// How often a port that was free a moment ago may turn out to be taken.
const PORT_TRIES: u8 = 5;

/// How a start went, as far as it may be tried again.
enum Outcome {
    Ready,
    PortTaken,
    /// Backends of a killed server are still there.
    MemoryHeld(Error),
    Failed(Error),
}

impl Cluster {
    /// Starts the server and returns when it accepts connections. One that runs is left alone.
    ///
    /// A server that an earlier supervisor left running on the same data is stopped first.
    pub async fn start(&mut self) -> Result<(), Error> {
        let end = Instant::now() + self.config.start_timeout;
        let mut port_tries = 0;
        loop {
            // Notes a child that has ended, so that a new one is started.
            self.try_wait()?;
            if self.child.is_none() {
                let patience = self.config.start_timeout.min(Duration::from_secs(30));
                takeover::end_orphans(&self.place.data, patience).await?;
                self.spawn()?;
            }
            match self.until_ready(end).await? {
                Outcome::Ready => {
                    self.port_settled = true;
                    return Ok(());
                }
                Outcome::PortTaken if !self.port_settled && port_tries < PORT_TRIES => {
                    port_tries += 1;
                    self.port = free_port(&self.config.name)?;
                }
                Outcome::PortTaken => {
                    return Err(Error::PortInUse {
                        name: self.config.name.clone(),
                        port: self.port,
                    });
                }
                Outcome::MemoryHeld(error) => {
                    if Instant::now() >= end {
                        return Err(error);
                    }
                    sleep(Duration::from_millis(200)).await;
                }
                Outcome::Failed(error) => return Err(error),
            }
        }
    }

    fn spawn(&mut self) -> Result<(), Error> {
        self.write_settings()?;
        let (output, length) =
            log::open(&self.place.log, self.user).doing("open", &self.place.log)?;
        let copy = output.try_clone().doing("open", &self.place.log)?;
        let program = self.binaries.program("postgres");
        let mut command = self.user.command(&program);
        command
            .arg("-D")
            .arg(&self.place.data)
            // On the command line it also wins over ALTER SYSTEM.
            .arg("-p")
            .arg(self.port.to_string())
            .stdout(output)
            .stderr(copy);
        self.log_start = length;
        self.child = Some(command.spawn().doing("run", &program)?);
        Ok(())
    }

    async fn until_ready(&mut self, mut end: Instant) -> Result<Outcome, Error> {
        let mut told = None;
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(self.judge(exit.status));
            }
            if self
                .pid()
                .is_some_and(|pid| takeover::is_ready(&self.place.data, pid))
            {
                return Ok(Outcome::Ready);
            }
            if Instant::now() >= end {
                let text = log::since(&self.place.log, self.log_start);
                let tells = log::progress(&text);
                if tells.is_some() && tells != told {
                    told = tells;
                    end = Instant::now() + self.config.start_timeout;
                    continue;
                }
                self.stop(Shutdown::Immediate, Duration::from_secs(8))
                    .await?;
                return Ok(Outcome::Failed(Error::NotReady {
                    name: self.config.name.clone(),
                    seconds: self.config.start_timeout.as_secs(),
                    reason: log::reason(&text).unwrap_or_else(|| "it says nothing".to_owned()),
                    log: self.place.log.clone(),
                }));
            }
            sleep(POLL).await;
        }
    }

    /// Reads from the log why the server ended.
    fn judge(&self, status: ExitStatus) -> Outcome {
        let text = log::since(&self.place.log, self.log_start);
        if text.contains("Address already in use") {
            return Outcome::PortTaken;
        }
        let error = Error::Exited {
            name: self.config.name.clone(),
            reason: log::reason(&text).unwrap_or_else(|| format!("it ended with {status}")),
            log: self.place.log.clone(),
        };
        if text.contains("pre-existing shared memory block") {
            Outcome::MemoryHeld(error)
        } else {
            Outcome::Failed(error)
        }
    }
}

/// A port that nobody listens on now.
pub(super) fn free_port(name: &str) -> Result<u16, Error> {
    let mut bytes = [0_u8; 2];
    for _ in 0..200 {
        if aws_lc_rs::rand::fill(&mut bytes).is_err() {
            break;
        }
        let port = PORTS.start + u16::from_be_bytes(bytes) % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::NoPort {
        name: name.to_owned(),
    })
}
