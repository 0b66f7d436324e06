//! The least TCP echo on a ring: multishot receive, each block sent from where it lies, given back once it
//! has left.

use annulus_benches::bare::{Block, Common, Core, Event, FIRST_OP, serve};
use clap::Parser;
use std::collections::VecDeque;
use std::io;
use std::process::ExitCode;

const SEND: u8 = FIRST_OP;

/// Sends back what it receives, on one ring and one CPU.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
}

#[derive(Default)]
struct State {
    /// Blocks to send back, with the bytes of each that are still to leave. The kernel has the first in hand
    /// if `sending`.
    queue: VecDeque<(Block, usize, usize)>,
    sending: bool,
    eof: bool,
}

fn main() -> ExitCode {
    serve(&Args::parse().common, run)
}

fn run(core: &mut Core<State>) -> io::Result<()> {
    while let Some(event) = core.next(true)? {
        let conn = match event {
            Event::Stop => return Ok(()),
            Event::Accepted(fd) => {
                let conn = core.insert(fd, State::default());
                core.receive(conn)?;
                continue;
            }
            Event::Data(conn, block, len) => {
                core.conn(conn).state.queue.push_back((block, 0, len));
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
                sent(core, conn, res)?;
                conn
            }
        };
        go_on(core, conn)?;
    }
    Ok(())
}

fn sent(core: &mut Core<State>, conn: usize, res: i32) -> io::Result<()> {
    let state = &mut core.conn(conn).state;
    state.sending = false;
    if res < 0 {
        core.close(conn);
    } else if let Some((_, from, to)) = state.queue.front_mut() {
        *from += res as usize;
        if from == to
            && let Some((block, ..)) = state.queue.pop_front()
        {
            core.give_back(block)?;
        }
    }
    Ok(())
}

fn go_on(core: &mut Core<State>, conn: usize) -> io::Result<()> {
    let c = core.conn(conn);
    if c.state.sending {
        return Ok(());
    }
    if !c.closing() {
        if let Some((block, from, to)) = c.state.queue.pop_front() {
            c.state.sending = true;
            core.send_block(conn, SEND, conn, &block, (from, to))?;
            core.conn(conn).state.queue.push_front((block, from, to));
            return Ok(());
        }
        if c.state.eof {
            core.close(conn);
        }
    }
    while let Some((block, ..)) = core.conn(conn).state.queue.pop_front() {
        core.give_back(block)?;
    }
    core.remove_if_done(conn);
    Ok(())
}
