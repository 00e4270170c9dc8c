//! What one request asks for: a move on its own, or a batch.

use waangu_sdk::{Fault, OffsetDateTime};

use super::{Move, NewMove};

/// Most moves in a batch.
pub(super) const MAX_BATCH: usize = 500;

/// Checked moves of one request.
#[derive(Debug)]
pub(super) struct Asked {
    moves: Vec<NewMove>,
    form: Form,
}

/// Decides how fields are named and moves are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    One,
    Batch,
}

impl Asked {
    /// A move on its own.
    pub(super) fn one(new: NewMove) -> Result<Self, Fault> {
        Self::new(vec![new], Form::One)
    }

    /// A batch.
    pub(super) fn batch(new: Vec<NewMove>) -> Result<Self, Fault> {
        Self::new(new, Form::Batch)
    }

    fn new(moves: Vec<NewMove>, form: Form) -> Result<Self, Fault> {
        let asked = Self { moves, form };
        for (at, new) in asked.moves.iter().enumerate() {
            new.check(|name| asked.field(at, name))?;
        }
        Ok(asked)
    }

    pub(super) fn moves(&self) -> &[NewMove] {
        &self.moves
    }

    /// The name of a field of the move at this position, as in the body: `quantity`, `[3].quantity`.
    pub(super) fn field(&self, at: usize, name: &'static str) -> String {
        match self.form {
            Form::One => name.to_owned(),
            Form::Batch => format!("[{at}].{name}"),
        }
    }

    /// The numbers under which the moves are kept with the request's key: 0 for a move on its own,
    /// from 1 in a batch, so that the two never pass for each other.
    pub(super) fn numbers(&self) -> impl Iterator<Item = i32> {
        let first = match self.form {
            Form::One => 0,
            Form::Batch => 1,
        };
        (first..).take(self.moves.len())
    }

    /// Whether these are the moves, with their numbers, that this request has recorded before.
    pub(super) fn is_repeat_of(&self, earlier: &[(i32, Move)]) -> bool {
        earlier.len() == self.moves.len()
            && self
                .moves
                .iter()
                .zip(self.numbers())
                .zip(earlier)
                .all(|((new, number), (at, old))| number == *at && same(new, old))
    }
}

fn same(new: &NewMove, old: &Move) -> bool {
    new.product == old.product
        && new.from == old.from
        && new.to == old.to
        && new.quantity == old.quantity
        && new.reason.as_str() == old.reason
        && new.reference == old.reference
        // Without a time of its own it has got the time of the first request.
        && new.moved_at.is_none_or(|at| micros(at) == micros(old.moved_at))
}

/// PostgreSQL keeps microseconds.
fn micros(at: OffsetDateTime) -> i128 {
    at.unix_timestamp_nanos().div_euclid(1000)
}

#[cfg(test)]
mod tests {
    use waangu_sdk::Uuid;

    use super::*;
    use crate::moves::Reason;

    fn new(quantity: i64) -> NewMove {
        NewMove {
            product: Uuid::from_u128(1),
            from: None,
            to: Some(Uuid::from_u128(2)),
            quantity,
            reason: Reason::Receipt,
            reference: None,
            moved_at: None,
        }
    }

    fn old(quantity: i64) -> Move {
        Move {
            id: Uuid::from_u128(3),
            product: Uuid::from_u128(1),
            from: None,
            to: Some(Uuid::from_u128(2)),
            quantity,
            reason: "receipt".to_owned(),
            reference: None,
            moved_at: OffsetDateTime::UNIX_EPOCH,
            recorded_at: OffsetDateTime::UNIX_EPOCH,
            actor: "usr_1".to_owned(),
        }
    }

    /// A key that passes for another request's would swallow that request.
    #[test]
    fn only_the_same_request_is_a_repeat() {
        let one = Asked::one(new(5)).unwrap();
        assert!(one.is_repeat_of(&[(0, old(5))]));
        assert!(!one.is_repeat_of(&[(0, old(6))]));
        assert!(!one.is_repeat_of(&[(1, old(5))]), "it was a batch");
        assert!(!one.is_repeat_of(&[]));

        let batch = Asked::batch(vec![new(5), new(6)]).unwrap();
        assert!(batch.is_repeat_of(&[(1, old(5)), (2, old(6))]));
        assert!(!batch.is_repeat_of(&[(1, old(6)), (2, old(5))]));
        assert!(!batch.is_repeat_of(&[(1, old(5))]));
    }

    /// PostgreSQL drops what is finer than a microsecond; the repeat still has it.
    #[test]
    fn times_are_compared_as_they_are_kept() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_456_789).unwrap();
        let kept = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_456_000).unwrap();
        let moved_at = Some(at);
        let one = Asked::one(NewMove { moved_at, ..new(5) }).unwrap();
        let moved_at = kept;
        assert!(one.is_repeat_of(&[(0, Move { moved_at, ..old(5) })]));
        assert!(!one.is_repeat_of(&[(0, old(5))]));
    }

    /// Of five hundred moves, the wrong one has to be found.
    #[test]
    fn a_wrong_move_of_a_batch_is_named() {
        let fault = Asked::batch(vec![new(1), new(0)]).unwrap_err();
        assert_eq!(fault.field_name(), Some("[1].quantity"));
        let nowhere = NewMove { to: None, ..new(1) };
        assert_eq!(Asked::one(nowhere).unwrap_err().field_name(), Some("to"));
        let circle = NewMove {
            from: new(1).to,
            ..new(1)
        };
        assert_eq!(Asked::one(circle).unwrap_err().field_name(), Some("to"));
        let huge = new(i64::MAX);
        assert_eq!(Asked::one(huge).unwrap_err().field_name(), Some("quantity"));
    }
}
