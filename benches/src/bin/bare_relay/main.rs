//! The least TCP relay on a ring: each client is connected to `--to`, and bytes go both ways over the road
//! that was named, half-close included. One thread, one ring.

mod copy;
mod inline;
mod mshot;
mod splice_sqe;

use annulus_benches::bare::{
    BlockPool, Common, Core, Event, FIRST_OP, PipePool, RelayRoad, connect_result, connect_start, serve,
};
use annulus_benches::size;
use clap::Parser;
use rustix::net::Shutdown;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

/// The connection to the server can be written to: it is there, or was refused.
const CONNECTED: u8 = FIRST_OP;
/// The first operation number of the roads.
const ROAD_OP: u8 = FIRST_OP + 1;

/// Relays each connection to `--to`, on one ring and one CPU.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// Where to
    #[arg(long)]
    to: SocketAddr,
    /// recv-send:64k|256k, splice-sqe:64k|1m, inline-splice:64k|1m, mshot
    #[arg(long)]
    road: RelayRoad,
    /// Memory for the recv-send road
    #[arg(long, default_value = "64m", value_parser = size::parse_size)]
    pool: u64,
}

/// What all connections share.
struct Relay {
    to: SocketAddr,
    road: RelayRoad,
    pipes: PipePool,
    pool: BlockPool,
    /// Connections that used up their share of a turn and could go on.
    ready: VecDeque<usize>,
}

/// One socket, and the direction that reads from it.
struct State {
    /// The socket that this direction writes to.
    peer: usize,
    /// This direction has ended: its peer was told.
    ended: bool,
    job: Option<Job>,
}

/// The direction on its road.
enum Job {
    Copy(copy::Job),
    Inline(inline::Job),
    SpliceSqe(splice_sqe::Job),
    Mshot(mshot::Job),
}

/// How far a direction has come.
enum Progress {
    Pending,
    /// All that came before the end of the stream has left.
    Ended,
    Broken,
}

fn main() -> ExitCode {
    let args = Args::parse();
    serve(&args.common, |core| Relay::new(&args)?.run(core))
}

impl Relay {
    fn new(args: &Args) -> io::Result<Relay> {
        let (pipe, pool) = match args.road {
            RelayRoad::RecvSend(step) => (0, BlockPool::new(args.pool as usize, step)?),
            RelayRoad::SpliceSqe(step) | RelayRoad::InlineSplice(step) => (step, BlockPool::new(1, 1)?),
            RelayRoad::Mshot => (0, BlockPool::new(1, 1)?),
        };
        let pipes = PipePool::new(pipe);
        Ok(Relay { to: args.to, road: args.road, pipes, pool, ready: VecDeque::new() })
    }

    fn run(&mut self, core: &mut Core<State>) -> io::Result<()> {
        loop {
            let Some(event) = core.next(self.ready.is_empty())? else {
                for conn in std::mem::take(&mut self.ready) {
                    if core.open(conn) {
                        self.advance(core, conn, |job, relay, core| job.go_on(relay, core, conn))?;
                    }
                }
                continue;
            };
            match event {
                Event::Stop => return Ok(()),
                Event::Accepted(client) => match connect_start(self.to) {
                    Ok(server) => {
                        let state = |peer| State { peer, ended: false, job: None };
                        let client = core.insert(client, state(0));
                        let server = core.insert(server, state(client));
                        core.conn(client).state.peer = server;
                        core.poll(server, CONNECTED, server, libc::POLLOUT)?;
                    }
                    Err(e) => eprintln!("{e}"),
                },
                Event::Done { conn, op: CONNECTED, .. } => self.connected(core, conn)?,
                Event::Done { conn, op, res, .. } => {
                    self.advance(core, conn, |job, relay, core| job.completed(relay, core, conn, op, res))?;
                }
                Event::Data(conn, block, len) => {
                    self.advance(core, conn, |job, _, core| job.came(core, conn, block, len))?;
                }
                Event::Eof(conn) => self.advance(core, conn, |job, _, core| job.no_more(core, conn))?,
                Event::Failed(conn) => self.settle(core, conn, Progress::Broken)?,
            }
        }
    }

    fn connected(&mut self, core: &mut Core<State>, server: usize) -> io::Result<()> {
        if let Err(e) = connect_result(core.conn(server).fd()) {
            eprintln!("connect to {}: {e}", self.to);
            return self.settle(core, server, Progress::Broken);
        }
        let client = core.conn(server).state.peer;
        for conn in [client, server] {
            let job = match Job::start(self, core, conn) {
                Ok(job) => job,
                Err(e) => {
                    eprintln!("{}: {e}", self.road);
                    return self.settle(core, server, Progress::Broken);
                }
            };
            core.conn(conn).state.job = Some(job);
        }
        for conn in [client, server] {
            if core.open(conn) {
                self.advance(core, conn, |job, relay, core| job.go_on(relay, core, conn))?;
            }
        }
        Ok(())
    }

    /// Lets the direction that reads from `conn` take a step, and acts on how far it has come.
    fn advance(
        &mut self,
        core: &mut Core<State>,
        conn: usize,
        step: impl FnOnce(&mut Job, &mut Relay, &mut Core<State>) -> io::Result<Progress>,
    ) -> io::Result<()> {
        let mut progress = Progress::Pending;
        if let Some(mut job) = core.conn(conn).state.job.take() {
            progress = step(&mut job, self, core)?;
            core.conn(conn).state.job = Some(job);
        }
        self.settle(core, conn, progress)
    }

    fn settle(&mut self, core: &mut Core<State>, conn: usize, progress: Progress) -> io::Result<()> {
        let peer = core.conn(conn).state.peer;
        match progress {
            Progress::Pending => {}
            _ if !core.open(conn) => {}
            Progress::Ended => {
                core.conn(conn).state.ended = true;
                core.shutdown(peer, Shutdown::Write);
                if core.conn(peer).state.ended {
                    core.close(conn);
                    core.close(peer);
                }
            }
            Progress::Broken => {
                // An operation that the kernel has in hand for one socket may wait for the other.
                for side in [conn, peer] {
                    core.shutdown(side, Shutdown::Both);
                    core.close(side);
                }
            }
        }
        self.remove_if_done(core, conn, peer)
    }

    /// Closes both sockets once the kernel has nothing in hand for either: neither number is used again
    /// before.
    fn remove_if_done(&mut self, core: &mut Core<State>, conn: usize, peer: usize) -> io::Result<()> {
        if core.open(conn) || !core.conn(conn).idle() || !core.conn(peer).idle() {
            return Ok(());
        }
        for side in [conn, peer] {
            if let Some(state) = core.remove_if_done(side)
                && let Some(job) = state.job
            {
                job.recycle(self, core)?;
            }
        }
        Ok(())
    }
}

impl Job {
    /// The road for a new direction. Nothing is moved before [`Job::go_on`].
    fn start(relay: &mut Relay, core: &mut Core<State>, conn: usize) -> io::Result<Job> {
        let peer = core.conn(conn).state.peer;
        Ok(match relay.road {
            RelayRoad::RecvSend(step) => Job::Copy(copy::Job::new(relay, peer, step)?),
            RelayRoad::SpliceSqe(step) => {
                Job::SpliceSqe(splice_sqe::Job::new(relay.pipes.take()?, peer, step))
            }
            RelayRoad::InlineSplice(step) => Job::Inline(inline::Job::new(relay.pipes.take()?, peer, step)),
            RelayRoad::Mshot => Job::Mshot(mshot::Job::new(peer)),
        })
    }

    /// Moves on: at the beginning, and after the share of a turn was used up.
    fn go_on(&mut self, relay: &mut Relay, core: &mut Core<State>, conn: usize) -> io::Result<Progress> {
        match self {
            Job::Copy(job) => job.receive(relay, core, conn),
            Job::SpliceSqe(job) => job.fill(core, conn),
            Job::Inline(job) => job.go_on(relay, core, conn),
            Job::Mshot(_) => core.receive(conn).map(|()| Progress::Pending),
        }
    }

    fn completed(
        &mut self,
        relay: &mut Relay,
        core: &mut Core<State>,
        conn: usize,
        op: u8,
        res: i32,
    ) -> io::Result<Progress> {
        if let Job::Mshot(job) = self {
            return job.sent(core, conn, res);
        }
        if !core.open(conn) {
            return Ok(Progress::Pending);
        }
        match self {
            Job::Copy(job) => job.completed(relay, core, conn, op, res),
            Job::SpliceSqe(job) => job.completed(core, conn, op, res),
            Job::Inline(job) => job.go_on(relay, core, conn),
            Job::Mshot(job) => job.sent(core, conn, res),
        }
    }

    fn came(
        &mut self,
        core: &mut Core<State>,
        conn: usize,
        block: annulus_benches::bare::Block,
        len: usize,
    ) -> io::Result<Progress> {
        match self {
            Job::Mshot(job) => job.came(core, conn, block, len),
            // Only the multishot road receives into blocks.
            _ => core.give_back(block).map(|()| Progress::Broken),
        }
    }

    fn no_more(&mut self, core: &mut Core<State>, conn: usize) -> io::Result<Progress> {
        match self {
            Job::Mshot(job) => job.no_more(core, conn),
            _ => Ok(Progress::Broken),
        }
    }

    /// Hands what the direction held to the next one.
    fn recycle(self, relay: &mut Relay, core: &mut Core<State>) -> io::Result<()> {
        match self {
            Job::Copy(job) => relay.pool.give(job.into_slot()),
            Job::SpliceSqe(job) => job.into_empty_pipe().into_iter().for_each(|pipe| relay.pipes.give(pipe)),
            Job::Inline(job) => job.into_empty_pipe().into_iter().for_each(|pipe| relay.pipes.give(pipe)),
            Job::Mshot(job) => return job.give_back(core),
        }
        Ok(())
    }
}
