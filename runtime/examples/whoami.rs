//! UDP: a name server that tells who asks: `whoami [ADDR] [CPULIST]`, `127.0.0.1:5353` on all CPUs by
//! default. To a question for A, AAAA or TXT (RFC 1035, RFC 3596) about any name it answers with the address
//! that the question came from, such as `dig @127.0.0.1 -p 5353 whoami.example TXT` shows it.
//!
//! Datagrams come in batches, one call for as many as there are. What one client is told leaves together.
//! Each core has a socket of its own, and the kernel gives it the clients whose addresses fall to it.

use std::net::{IpAddr, SocketAddr};

use annulus::Runtime;
use annulus::net::{Datagrams, UdpSocket};
use annulus::numa::plan::CoreSelection;

/// How many datagrams are taken at once.
const BATCH: usize = 32;
/// Bytes of a head (RFC 1035, 4.1.1).
const HEAD: usize = 12;
/// Types of questions: an address of IPv4, a text, an address of IPv6. The class is the internet's.
const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const IN: u16 = 1;

/// How long the question behind the head is, and its type; `None` where it is cut off or of another class.
fn question(rest: &[u8]) -> Option<(usize, u16)> {
    let mut at = 0;
    // Labels, each behind its length; the last is empty. A longer one would be a pointer back (4.1.4).
    while let label @ 1..64 = usize::from(*rest.get(at)?) {
        at += 1 + label;
    }
    let &[0, kind_high, kind_low, class_high, class_low] = rest.get(at..at + 5)? else { return None };
    let class = u16::from_be_bytes([class_high, class_low]);
    (class == IN).then_some((at + 5, u16::from_be_bytes([kind_high, kind_low])))
}

/// What `client` is told; nothing where it has not asked one question.
fn answer(query: &[u8], client: SocketAddr) -> Option<Vec<u8>> {
    let (head, rest) = query.split_at_checked(HEAD)?;
    // A query of the usual kind, and no answer of another server: two of them would talk for ever.
    let is_query = head[2] & 0b1111_1000 == 0 && head[4..6] == [0, 1];
    let (len, kind) = question(rest).filter(|_| is_query)?;
    let data = match (kind, client.ip()) {
        (A, IpAddr::V4(ip)) => Some(ip.octets().to_vec()),
        (AAAA, IpAddr::V6(ip)) => Some(ip.octets().to_vec()),
        (TXT, _) => {
            let text = client.to_string();
            Some([&[u8::try_from(text.len()).ok()?], text.as_bytes()].concat())
        }
        _ => None,
    };
    let recursion_desired = head[2] & 1;
    let mut told = vec![head[0], head[1], 0b1000_0100 | recursion_desired, 0];
    told.extend([0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    told.extend(&rest[..len]);
    if let Some(data) = data {
        // The name is the question's, 12 bytes from the beginning; nobody is to keep the answer.
        told.extend([0xc0, 12]);
        told.extend(kind.to_be_bytes());
        told.extend(IN.to_be_bytes());
        told.extend(0_u32.to_be_bytes());
        told.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        told.extend(data);
    }
    Some(told)
}

async fn serve(socket: UdpSocket) -> annulus::Result<()> {
    let mut came = Datagrams::new(BATCH);
    loop {
        socket.readable().await?;
        // What the network says of an earlier answer is an error here.
        if let Err(e) = socket.recv_many_now(&mut came) {
            eprintln!("{e}");
        }
        for (client, queries) in came.by_source() {
            let answers: Vec<Vec<u8>> = queries.filter_map(|query| answer(query, client)).collect();
            let sent = socket.send_many_now(Some(client), answers.iter().map(Vec::as_slice));
            // An answer that is lost is asked for again.
            if let Some(e) = sent.error {
                eprintln!("{client} was not told: {e}");
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().unwrap_or_else(|| "127.0.0.1:5353".to_owned()).parse()?;
    let cores: CoreSelection = args.next().unwrap_or_else(|| "all".to_owned()).parse()?;

    Runtime::builder().cores(cores).build()?.run(move || async move {
        let socket = UdpSocket::bind(address)?;
        if annulus::cores::index() == 0 {
            eprintln!("listening on {}", socket.local_addr()?);
        }
        serve(socket).await
    })?;
    Ok(())
}
