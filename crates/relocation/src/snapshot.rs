//! Which transactions a snapshot has seen: those are in the copy, and left out of the stream.

use crate::Error;

/// `pg_current_snapshot()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,…`.
    ///
    /// # Errors
    /// `Stream` when it is something else.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Stream(format!("`{text}` is no snapshot"));
        let number = |part: &str| part.parse::<u64>().map_err(|_not_a_number| wrong());
        let mut parts = text.split(':');
        let (Some(xmin), Some(xmax), Some(running)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        Ok(Self {
            xmin: number(xmin)?,
            xmax: number(xmax)?,
            running: running
                .split(',')
                .filter(|part| !part.is_empty())
                .map(number)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether the effects of a committed transaction are in the snapshot. The stream gives the low
    /// half of its number only; it is taken to be within 2^31 of the snapshot, as PostgreSQL does.
    pub fn sees(&self, xid: u32) -> bool {
        const CYCLE: u64 = 1 << 32;
        let near = (self.xmax & !(CYCLE - 1)) | u64::from(xid);
        let full = if near > self.xmax + CYCLE / 2 {
            near.saturating_sub(CYCLE)
        } else if near + CYCLE / 2 < self.xmax {
            near + CYCLE
        } else {
            near
        };
        full < self.xmin || (full < self.xmax && !self.running.contains(&full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction judged wrongly would be lost or applied twice, also when the counter turns over.
    #[test]
    fn sees_what_had_committed_across_the_turn_of_the_counter() {
        let plain = Snapshot::parse("10:20:12,15").expect("a snapshot");
        for (xid, seen) in [
            (9, true),
            (11, true),
            (12, false),
            (15, false),
            (19, true),
            (20, false),
        ] {
            assert_eq!(plain.sees(xid), seen, "{xid}");
        }
        let turned = Snapshot::parse("4294967290:4294967300:4294967295").expect("a snapshot");
        assert!(turned.sees(u32::MAX - 10));
        assert!(!turned.sees(u32::MAX), "running");
        assert!(turned.sees(3), "4294967299");
        assert!(!turned.sees(4), "begun later");
        let before = Snapshot::parse("4294967280:4294967290:").expect("a snapshot");
        assert!(!before.sees(5), "after the turn");
        assert!(Snapshot::parse("1:2").is_err());
    }
}
