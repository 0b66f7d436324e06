//! The least HTTP responder on a ring: multishot accept and receive, one prebuilt answer, keep-alive,
//! pipelining.

use annulus_benches::bare::{Common, Core, Event, FIRST_OP, HeadCounter, response_head, serve};
use annulus_benches::{pattern, size};
use clap::Parser;
use std::io;
use std::process::ExitCode;

const SEND: u8 = FIRST_OP;

/// Answers every request on every path with the same bytes, on one ring and one CPU.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// Bytes of the body
    #[arg(long, default_value = "1k", value_parser = size::parse_size)]
    body: u64,
}

#[derive(Default)]
struct State {
    heads: HeadCounter,
    /// Answers that are due.
    owed: u32,
    /// Bytes of the current answer that have left.
    sent: usize,
    sending: bool,
    /// The client will ask no more.
    eof: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut answer = response_head(args.body);
    answer.extend(pattern::bytes(args.body as usize));
    let answer: &'static [u8] = Vec::leak(answer);
    serve(&args.common, |core| run(core, answer))
}

fn run(core: &mut Core<State>, answer: &'static [u8]) -> io::Result<()> {
    while let Some(event) = core.next(true)? {
        let conn = match event {
            Event::Stop => return Ok(()),
            Event::Accepted(fd) => {
                let conn = core.insert(fd, State::default());
                core.receive(conn)?;
                continue;
            }
            Event::Data(conn, block, len) => {
                let mut heads = core.conn(conn).state.heads;
                let asked = heads.feed(core.bytes(&block, len));
                let state = &mut core.conn(conn).state;
                state.heads = heads;
                state.owed += asked;
                core.give_back(block)?;
                conn
            }
            Event::Eof(conn) => {
                core.conn(conn).state.eof = true;
                conn
            }
            Event::Failed(conn) => {
                core.close(conn);
                conn
            }
            Event::Done { conn, res, .. } => {
                let state = &mut core.conn(conn).state;
                state.sending = false;
                state.sent += res.max(0) as usize;
                if state.sent == answer.len() {
                    state.sent = 0;
                    state.owed -= 1;
                }
                if res < 0 {
                    core.close(conn);
                }
                conn
            }
        };
        go_on(core, conn, answer)?;
    }
    Ok(())
}

fn go_on(core: &mut Core<State>, conn: usize, answer: &'static [u8]) -> io::Result<()> {
    let c = core.conn(conn);
    if !c.closing() && !c.state.sending {
        if c.state.owed > 0 {
            c.state.sending = true;
            let rest = &answer[c.state.sent..];
            return core.send_static(conn, SEND, rest, 0);
        }
        if c.state.eof {
            core.close(conn);
        }
    }
    core.remove_if_done(conn);
    Ok(())
}
