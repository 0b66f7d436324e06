//! Questions and answers of DNS, as bytes (RFC 1035): for the addresses of one name.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use serde::{Deserialize, Serialize};

/// The family of the addresses that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    fn record(self) -> RecordType {
        match self {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        }
    }

    /// Whether an address is of this family.
    pub(super) fn is_of(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Family::V4)
    }
}

/// A question to a server.
#[derive(Debug)]
pub(super) struct Question {
    id: u16,
    name: Name,
    pub(super) family: Family,
    bytes: Vec<u8>,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// The addresses and their TTL. There is none if the name has none of this family, or does not exist.
    Addresses(Vec<IpAddr>, Duration),
    /// The answer does not fit a datagram, so the question has to go by TCP.
    Cut,
    /// The server has no answer, for this reason.
    Fails(String),
}

impl Question {
    /// `None` where `name` can be no name of DNS.
    pub(super) fn new(name: &str, family: Family) -> Option<Self> {
        let mut asked = Name::from_ascii(name).ok()?;
        asked.set_fqdn(true);
        // The query gets an identifier that nobody guesses.
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(asked.clone(), family.record()));
        let bytes = message.to_vec().ok()?;
        Some(Self { id: message.metadata.id, name: asked, family, bytes })
    }

    /// The message to send.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The answer in `bytes`; `None` if they do not answer this question.
    pub(super) fn answered_by(&self, bytes: &[u8]) -> Option<Said> {
        let message = Message::from_vec(bytes).ok()?;
        let head = message.metadata;
        // A server that does not understand the message may leave the question out.
        let is_asked = match message.queries.as_slice() {
            [] => head.response_code != ResponseCode::NoError,
            [query] => query.name() == &self.name && query.query_type() == self.family.record(),
            _ => false,
        };
        if head.id != self.id || head.message_type != MessageType::Response || !is_asked {
            return None;
        }
        if head.truncation {
            return Some(Said::Cut);
        }
        Some(match head.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => self.addresses(&message.answers),
            code => Said::Fails(code.to_string()),
        })
    }

    /// The addresses of the name, or of the one that it stands for.
    fn addresses(&self, answers: &[Record]) -> Said {
        let (mut addresses, mut name, mut holds) = (Vec::new(), &self.name, u32::MAX);
        // A chain of aliases has at most as many links as there are records, also where it is a circle.
        for _ in 0..=answers.len() {
            let mut stands_for = None;
            let of_name = |it: &&Record| it.dns_class == DNSClass::IN && it.name == *name;
            for record in answers.iter().filter(of_name) {
                let address = match (&record.data, self.family) {
                    (RData::A(a), Family::V4) => IpAddr::V4(a.0),
                    (RData::AAAA(a), Family::V6) => IpAddr::V6(a.0),
                    (RData::CNAME(other), _) => {
                        stands_for = Some(&other.0);
                        holds = holds.min(ttl(record.ttl));
                        continue;
                    }
                    _ => continue,
                };
                holds = holds.min(ttl(record.ttl));
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            match stands_for {
                Some(next) if addresses.is_empty() => name = next,
                _ => break,
            }
        }
        Said::Addresses(addresses, Duration::from_secs(holds.into()))
    }
}

/// The value of a TTL: one with its highest bit set is 0 (RFC 2181, 8).
fn ttl(ttl: u32) -> u32 {
    if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl }
}
