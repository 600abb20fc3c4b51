//! Who waits for which token.

use bytes::Bytes;
use synod_replica::{ProposeError, Token};

use crate::calls::{Answer, Promise};

/// The promises of calls that the replica works on, found by token without a search.
///
/// A token is a seat number in its low half and, for one of many commands, a position in its high half.
/// Dropping it answers everybody: commands of a batch that were not answered are `Unknown`.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    seats: Vec<Option<Seat>>,
    free: Vec<u32>,
}

#[derive(Debug)]
enum Seat {
    One(Promise),
    Many(Box<Batch>),
}

/// Several commands that are answered together, in order.
#[derive(Debug)]
struct Batch {
    promise: Option<Promise>,
    replies: Vec<Result<Bytes, ProposeError>>,
    left: usize,
}

impl Waiting {
    pub(crate) fn one(&mut self, promise: Promise) -> Token {
        Token(u64::from(self.take_seat(Seat::One(promise))))
    }

    /// Tokens for `count` commands, at least one.
    pub(crate) fn many(&mut self, promise: Promise, count: usize) -> impl Iterator<Item = Token> + use<> {
        let replies = vec![Err(ProposeError::Unknown); count];
        let seat =
            self.take_seat(Seat::Many(Box::new(Batch { promise: Some(promise), replies, left: count })));
        (0..count as u64).map(move |position| Token(u64::from(seat) | position << 32))
    }

    /// Answers a single call.
    pub(crate) fn answer(&mut self, token: Token, answer: Answer) {
        match self.leave_seat(seat_of(token)) {
            Seat::One(promise) => promise.keep(answer),
            Seat::Many(_) => panic!("a token of one call is never answered like one of many"),
        }
    }

    /// Answers a proposal, alone or one of many.
    pub(crate) fn answer_proposal(&mut self, token: Token, result: Result<Bytes, ProposeError>) {
        let seat = seat_of(token);
        if let Some(Seat::Many(batch)) = &mut self.seats[seat as usize] {
            batch.replies[(token.0 >> 32) as usize] = result;
            batch.left -= 1;
            if batch.left == 0 {
                drop(self.leave_seat(seat));
            }
        } else {
            self.answer(token, Answer::Proposed(result));
        }
    }

    fn take_seat(&mut self, seat: Seat) -> u32 {
        match self.free.pop() {
            Some(number) => {
                self.seats[number as usize] = Some(seat);
                number
            }
            None => {
                let number = u32::try_from(self.seats.len()).expect("fewer than 2^32 open calls");
                self.seats.push(Some(seat));
                number
            }
        }
    }

    fn leave_seat(&mut self, number: u32) -> Seat {
        let seat = self.seats[number as usize].take().expect("a call is answered once");
        self.free.push(number);
        seat
    }
}

fn seat_of(token: Token) -> u32 {
    (token.0 & u64::from(u32::MAX)) as u32
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(promise) = self.promise.take() {
            promise.keep(Answer::ProposedMany(std::mem::take(&mut self.replies)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::calls::Slots;

    #[test]
    fn many_are_answered_together_in_order_and_seats_are_used_again() {
        let slots = Slots::default();
        let mut waiting = Waiting::default();
        let (slot, promise) = slots.promise();
        let poll = || slot.poll(&mut Context::from_waker(Waker::noop()));
        let tokens: Vec<Token> = waiting.many(promise, 3).collect();
        for (position, token) in tokens.iter().enumerate().rev() {
            assert!(poll().is_pending());
            waiting.answer_proposal(*token, Ok(Bytes::from(vec![position as u8])));
        }
        let Poll::Ready(Answer::ProposedMany(replies)) = poll() else { panic!("answered") };
        assert_eq!(replies, [Ok(vec![0].into()), Ok(vec![1].into()), Ok(vec![2].into())]);
        assert_eq!(waiting.one(slots.promise().1), Token(0));
    }

    #[test]
    fn what_was_answered_of_a_batch_survives_the_end() {
        let slots = Slots::default();
        let mut waiting = Waiting::default();
        let (slot, promise) = slots.promise();
        let tokens: Vec<Token> = waiting.many(promise, 2).collect();
        waiting.answer_proposal(tokens[1], Ok(Bytes::new()));
        drop(waiting);
        let Poll::Ready(Answer::ProposedMany(replies)) = slot.poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("answered")
        };
        assert_eq!(replies, [Err(ProposeError::Unknown), Ok(Bytes::new())]);
    }
}
