//! How long the parts of a piece of work took, one after another, for the log: a pause that is too long
//! has a part that was.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// Parts of one piece of work. A part that comes again is added to itself.
#[derive(Debug, Clone)]
pub struct Laps {
    since: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Laps {
    /// Begins now.
    pub fn begin() -> Self {
        Self {
            since: Instant::now(),
            laps: Vec::new(),
        }
    }

    /// Ends a part; the next one begins.
    pub fn end(&mut self, part: &'static str) {
        let took = self.since.elapsed();
        self.since += took;
        self.add(part, took);
    }

    /// Adds a time that was measured elsewhere.
    pub(crate) fn add(&mut self, part: &'static str, took: Duration) {
        match self.laps.iter_mut().find(|(name, _)| *name == part) {
            Some((_, sum)) => *sum += took,
            None => self.laps.push((part, took)),
        }
    }
}

impl fmt::Display for Laps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, took)) in self.laps.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {:.1}", took.as_secs_f64() * 1000.0)?;
        }
        f.write_str(" ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operator would look for the time in the wrong part.
    #[test]
    fn each_part_has_its_own_time() {
        let mut laps = Laps::begin();
        for (part, millis) in [("lock", 3), ("drain", 40), ("lock", 2)] {
            laps.add(part, Duration::from_millis(millis));
        }
        assert_eq!(laps.to_string(), "lock 5.0, drain 40.0 ms");
    }
}
