//! What a session is asked to do, and what a relay's client asks of the server behind.
//!
//! The client says it in 16 bytes: a word, and a number of bytes, both little-endian. Another order may
//! follow once that is done.

use super::wrong;
use std::io;

/// What a session is asked to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    /// A little, with every byte checked.
    Verify,
    /// So much.
    Run(u64),
}

/// What the server behind a relay does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Send so many bytes; of the pattern, if they are checked.
    Send { bytes: u64, verify: bool },
    /// Receive so many bytes and then say [`ACK`], or if they are checked and wrong, close.
    Receive { bytes: u64, verify: bool },
    /// Send back what comes.
    Echo,
}

/// Said when all bytes of [`Order::Receive`] have come.
pub(super) const ACK: [u8; 4] = *b"all\n";

impl Order {
    /// As it travels.
    pub(super) fn encode(self) -> Vec<u8> {
        let (word, number) = match self {
            Order::Send { bytes, verify } => (2 + u64::from(verify), bytes),
            Order::Receive { bytes, verify } => (4 + u64::from(verify), bytes),
            Order::Echo => (6, 0),
        };
        [word.to_le_bytes(), number.to_le_bytes()].concat()
    }

    pub(super) fn decode(order: [u8; 16]) -> io::Result<Order> {
        let (word, number) = order.split_at(8);
        let read = |part: &[u8]| part.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        match (read(word), read(number)) {
            (word @ 2..=3, bytes) => Ok(Order::Send { bytes, verify: word == 3 }),
            (word @ 4..=5, bytes) => Ok(Order::Receive { bytes, verify: word == 5 }),
            (6, 0) => Ok(Order::Echo),
            _ => Err(wrong("the relay changed the bytes of an order")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_as_they_were_given() {
        for verify in [true, false] {
            for order in
                [Order::Send { bytes: 1, verify }, Order::Receive { bytes: u64::MAX, verify }, Order::Echo]
            {
                let bytes: [u8; 16] = order.encode().try_into().unwrap();
                assert_eq!(Order::decode(bytes).unwrap(), order);
            }
        }
        assert!(Order::decode([0; 16]).is_err());
    }
}
