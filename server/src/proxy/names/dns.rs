//! Asks DNS for the addresses of a name, and for how long they hold. Every call blocks, so no core makes one.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::message::{Family, Question, Said};
use super::setup::Dns;

/// What DNS knows of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) holds: Duration,
    /// The family for which no server had an answer.
    pub(super) unknown: Option<Family>,
}

/// Why nothing is known.
struct Failed {
    why: String,
    /// No server has said anything.
    is_silence: bool,
}

/// A question, and what the last server answered.
struct Asked {
    question: Question,
    said: Option<Said>,
}

impl Asked {
    fn is_settled(&self) -> bool {
        matches!(self.said, Some(Said::Addresses(..)))
    }
}

/// Asks for the names that may be meant, one after the other, until one has an address. `None` where all are
/// known to have none.
///
/// # Errors
/// No server has an answer.
pub(super) fn ask(dns: &Dns) -> Result<Option<Known>, String> {
    let mut failed = None;
    for name in &dns.names {
        match ask_for(dns, name) {
            Ok(Some(known)) => return Ok(Some(known)),
            Ok(None) => {}
            // The name that is meant may stand behind one for which servers fail. Where they are silent it
            // may be this one, so no other is tried.
            Err(Failed { why, is_silence: true }) => return Err(why),
            Err(Failed { why, is_silence: false }) => failed = failed.or(Some(why)),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Asks for one name, of each server in turn, until both families are known.
fn ask_for(dns: &Dns, name: &str) -> Result<Option<Known>, Failed> {
    let families: &[Family] = if dns.only_v4 { &[Family::V4] } else { &[Family::V4, Family::V6] };
    let asked = |family: &Family| Some(Asked { question: Question::new(name, *family)?, said: None });
    // The search list makes some names too long. Such names do not exist.
    let Some(mut asked) = families.iter().map(asked).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let mut failed = None;
    for server in order(dns).cycle().take(dns.servers.len() * dns.attempts as usize) {
        let answered = ask_server(server, dns, &mut asked);
        let says = asked.iter().find_map(|it| match &it.said {
            Some(Said::Fails(why)) => Some(Failed { why: format!("{server}: {why}"), is_silence: false }),
            _ => None,
        });
        let silence =
            answered.err().map(|error| Failed { why: format!("{server}: {error}"), is_silence: true });
        failed = says.or(failed).or(silence);
        if asked.iter().all(Asked::is_settled) {
            break;
        }
    }
    let unknown = asked.iter().find(|it| !it.is_settled()).map(|it| it.question.family);
    let (mut addresses, mut holds) = (Vec::new(), Duration::MAX);
    for it in asked {
        // A family that has no address says nothing about how long those of the other hold.
        if let Some(Said::Addresses(found, ttl)) = it.said
            && !found.is_empty()
        {
            holds = holds.min(ttl);
            addresses.extend(found);
        }
    }
    match failed {
        Some(failed) if addresses.is_empty() && unknown.is_some() => Err(failed),
        _ if addresses.is_empty() => Ok(None),
        _ => Ok(Some(Known { addresses, holds, unknown })),
    }
}

/// The servers in the order in which they are asked.
fn order(dns: &Dns) -> impl Iterator<Item = SocketAddr> + Clone {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let first = if dns.rotate { TURN.fetch_add(1, Ordering::Relaxed) % dns.servers.len() } else { 0 };
    dns.servers[first..].iter().chain(&dns.servers[..first]).copied()
}

/// Asks one server all questions that are not settled, at once.
///
/// # Errors
/// Why one was not answered.
fn ask_server(server: SocketAddr, dns: &Dns, asked: &mut [Asked]) -> io::Result<()> {
    let mut open: Vec<&mut Asked> = asked.iter_mut().filter(|it| !it.is_settled()).collect();
    open.iter_mut().for_each(|it| it.said = None);
    let by_udp = if dns.tcp { Ok(()) } else { by_udp(server, &mut open, Instant::now() + dns.timeout) };
    for it in open {
        if dns.tcp || it.said == Some(Said::Cut) {
            it.said = Some(by_tcp(server, &it.question, Instant::now() + dns.timeout)?);
        }
    }
    by_udp
}

/// Asks by UDP.
fn by_udp(server: SocketAddr, open: &mut [&mut Asked], until: Instant) -> io::Result<()> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Each call has another port, which nobody guesses. A connected socket gets only what the server sends.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    for it in &*open {
        socket.send(it.question.bytes())?;
    }
    let mut datagram = [0; 4096];
    while open.iter().any(|it| it.said.is_none()) {
        socket.set_read_timeout(Some(time_left(until)?))?;
        let Some(len) = unless_it_waits(socket.recv(&mut datagram))? else { continue };
        let answered = open.iter_mut().filter(|it| it.said.is_none());
        // A message that answers no question is ignored.
        for it in answered {
            it.said = it.question.answered_by(&datagram[..len]);
        }
    }
    Ok(())
}

/// Asks by TCP, where a message has its length before it (RFC 1035, 4.2.2).
fn by_tcp(server: SocketAddr, question: &Question, until: Instant) -> io::Result<Said> {
    let mut stream = TcpStream::connect_timeout(&server, time_left(until)?)?;
    stream.set_write_timeout(Some(time_left(until)?))?;
    let len = u16::try_from(question.bytes().len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), question.bytes()].concat())?;
    loop {
        let mut len = [0; 2];
        read_all(&mut stream, &mut len, until)?;
        let mut message = vec![0; u16::from_be_bytes(len).into()];
        read_all(&mut stream, &mut message, until)?;
        if let Some(said) = question.answered_by(&message) {
            return Ok(said);
        }
    }
}

fn read_all(stream: &mut TcpStream, mut into: &mut [u8], until: Instant) -> io::Result<()> {
    while !into.is_empty() {
        stream.set_read_timeout(Some(time_left(until)?))?;
        match unless_it_waits(stream.read(into))? {
            Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(n) => into = &mut into[n..],
            None => {}
        }
    }
    Ok(())
}

/// `None` for a call that was interrupted, or that ended with its time-out.
fn unless_it_waits(result: io::Result<usize>) -> io::Result<Option<usize>> {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error) if [Interrupted, TimedOut, WouldBlock].contains(&error.kind()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The time left until `until`.
///
/// # Errors
/// None is left.
fn time_left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")) } else { Ok(left) }
}
