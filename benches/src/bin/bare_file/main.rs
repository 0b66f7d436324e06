//! The least file server on a ring: every request on every path is answered with one file, over the road that
//! was named. One thread, one ring, keep-alive.

mod fixed;
mod inline;
mod splice_sqe;

use annulus_benches::bare::{
    BlockPool, Common, Core, Event, FIRST_OP, FileRoad, HeadCounter, PipePool, Slot, response_head, serve,
};
use annulus_benches::size;
use clap::Parser;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// A socket that was full can take bytes again: for the inline roads.
const WRITABLE: u8 = FIRST_OP;
/// The first operation number of the ring roads.
const ROAD_OP: u8 = FIRST_OP + 1;

/// Answers every request with FILE, on one ring and one CPU.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// The file, opened once
    file: PathBuf,
    /// read-send:64k, sendfile:64k|1m|all, inline-splice:64k|1m, splice-sqe:64k|1m, read-fixed-send:64k|256k,
    /// read-fixed-send-zc:64k|256k
    #[arg(long)]
    road: FileRoad,
    /// Registered memory for the read-fixed roads
    #[arg(long, default_value = "64m", value_parser = size::parse_size)]
    pool: u64,
}

/// What all connections share.
struct Server {
    file: File,
    len: u64,
    head: &'static [u8],
    road: FileRoad,
    pipes: PipePool,
    /// Registered blocks, for the read-fixed roads.
    pool: BlockPool,
    /// Blocks the kernel has in hand, by number.
    held: Vec<Option<Slot>>,
    /// Connections that wait for a block.
    waiting: VecDeque<usize>,
    /// Connections that used up their share of a turn and could go on.
    ready: VecDeque<usize>,
}

#[derive(Default)]
struct State {
    heads: HeadCounter,
    /// Answers that are due, the one under way included.
    owed: u32,
    eof: bool,
    job: Option<Job>,
}

/// One answer under way.
enum Job {
    Inline(inline::Job),
    SpliceSqe(splice_sqe::Job),
    Fixed(fixed::Job),
}

/// How far an answer has come.
enum Progress {
    Pending,
    Finished,
    /// The client is gone, or the file is not what it was.
    Broken,
}

fn main() -> ExitCode {
    let args = Args::parse();
    serve(&args.common, |core| Server::new(&args, core)?.run(core))
}

impl Server {
    fn new(args: &Args, core: &Core<State>) -> io::Result<Server> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", args.file.display()));
        let file = File::open(&args.file).map_err(named)?;
        let len = file.metadata().map_err(named)?.len();
        if len == 0 {
            return Err(named(io::Error::new(io::ErrorKind::InvalidInput, "an empty file moves nothing")));
        }
        let (pipe, step) = match args.road {
            FileRoad::InlineSplice(n) | FileRoad::SpliceSqe(n) => (n, None),
            FileRoad::ReadFixedSend(n) | FileRoad::ReadFixedSendZc(n) => (0, Some(n)),
            FileRoad::ReadSend(_) | FileRoad::Sendfile(_) => (0, None),
        };
        let pool = match step {
            Some(n) => BlockPool::new(args.pool as usize, n + fixed::HEAD_ROOM)?,
            None => BlockPool::new(1, 1)?,
        };
        if step.is_some() {
            pool.register(core.ring())?;
        }
        Ok(Server {
            file,
            len,
            head: Vec::leak(response_head(len)),
            road: args.road,
            pipes: PipePool::new(pipe),
            held: (0..pool.len()).map(|_| None).collect(),
            pool,
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
        })
    }

    fn run(&mut self, core: &mut Core<State>) -> io::Result<()> {
        loop {
            let Some(event) = core.next(self.ready.is_empty())? else {
                for conn in std::mem::take(&mut self.ready) {
                    self.resume(core, conn)?;
                }
                continue;
            };
            match event {
                Event::Stop => return Ok(()),
                Event::Accepted(fd) => {
                    let conn = core.insert(fd, State::default());
                    core.receive(conn)?;
                }
                Event::Data(conn, block, len) => {
                    let mut heads = core.conn(conn).state.heads;
                    let asked = heads.feed(core.bytes(&block, len));
                    core.give_back(block)?;
                    let state = &mut core.conn(conn).state;
                    state.heads = heads;
                    state.owed += asked;
                    self.start_if_due(core, conn)?;
                }
                Event::Eof(conn) => {
                    core.conn(conn).state.eof = true;
                    self.start_if_due(core, conn)?;
                }
                Event::Failed(conn) => self.settle(core, conn, Progress::Broken)?,
                Event::Done { conn, op: WRITABLE, .. } => self.resume(core, conn)?,
                Event::Done { conn, op, word, res, more, notif } => {
                    if op == fixed::SEND && !more {
                        self.give_slot_back(core, word)?;
                    }
                    let progress = if notif || !core.open(conn) {
                        Progress::Pending
                    } else {
                        self.completed(core, conn, op, res)?
                    };
                    self.settle(core, conn, progress)?;
                }
            }
        }
    }

    fn completed(&mut self, core: &mut Core<State>, conn: usize, op: u8, res: i32) -> io::Result<Progress> {
        match core.conn(conn).state.job.take() {
            Some(Job::SpliceSqe(mut job)) => {
                let progress = job.completed(self, core, conn, op, res)?;
                core.conn(conn).state.job = Some(Job::SpliceSqe(job));
                Ok(progress)
            }
            Some(Job::Fixed(mut job)) => {
                let progress = job.completed(self, core, conn, op, res)?;
                core.conn(conn).state.job = Some(Job::Fixed(job));
                Ok(progress)
            }
            other => {
                core.conn(conn).state.job = other;
                Ok(Progress::Pending)
            }
        }
    }

    /// Begins the next answer if one is due and none is under way.
    fn start_if_due(&mut self, core: &mut Core<State>, conn: usize) -> io::Result<()> {
        let c = core.conn(conn);
        if !c.closing() && c.state.job.is_none() {
            if c.state.owed > 0 {
                let progress = self.start(core, conn)?;
                return self.settle(core, conn, progress);
            }
            if c.state.eof {
                core.close(conn);
            }
        }
        core.remove_if_done(conn);
        Ok(())
    }

    fn start(&mut self, core: &mut Core<State>, conn: usize) -> io::Result<Progress> {
        let (job, progress) = match self.road {
            FileRoad::ReadSend(_) | FileRoad::Sendfile(_) | FileRoad::InlineSplice(_) => {
                let mut job = inline::Job::new(self)?;
                let progress = job.go_on(self, core, conn)?;
                (Job::Inline(job), progress)
            }
            FileRoad::SpliceSqe(step) => {
                (Job::SpliceSqe(splice_sqe::Job::start(self, core, conn, step)?), Progress::Pending)
            }
            FileRoad::ReadFixedSend(step) => {
                (Job::Fixed(fixed::Job::start(self, core, conn, step, false)?), Progress::Pending)
            }
            FileRoad::ReadFixedSendZc(step) => {
                (Job::Fixed(fixed::Job::start(self, core, conn, step, true)?), Progress::Pending)
            }
        };
        core.conn(conn).state.job = Some(job);
        Ok(progress)
    }

    /// Goes on with an answer that waited for its socket, for its turn, or for a block.
    fn resume(&mut self, core: &mut Core<State>, conn: usize) -> io::Result<()> {
        if core.open(conn) {
            let progress = match core.conn(conn).state.job.take() {
                Some(Job::Inline(mut job)) => {
                    let progress = job.go_on(self, core, conn)?;
                    core.conn(conn).state.job = Some(Job::Inline(job));
                    progress
                }
                other => {
                    core.conn(conn).state.job = other;
                    Progress::Pending
                }
            };
            return self.settle(core, conn, progress);
        }
        core.remove_if_done(conn);
        Ok(())
    }

    /// Acts on how far the answer of `conn` has come.
    fn settle(&mut self, core: &mut Core<State>, conn: usize, progress: Progress) -> io::Result<()> {
        match progress {
            Progress::Pending => {
                // A job that was broken off may have left bytes in its pipe: the pipe goes with it.
                core.remove_if_done(conn);
                Ok(())
            }
            Progress::Finished => {
                let state = &mut core.conn(conn).state;
                state.owed -= 1;
                if let Some(job) = state.job.take() {
                    self.recycle(job);
                }
                self.start_if_due(core, conn)
            }
            Progress::Broken => {
                core.close(conn);
                core.remove_if_done(conn);
                Ok(())
            }
        }
    }

    fn recycle(&mut self, job: Job) {
        let pipe = match job {
            Job::Inline(job) => job.into_pipe(),
            Job::SpliceSqe(job) => Some(job.into_pipe()),
            Job::Fixed(_) => None,
        };
        if let Some(pipe) = pipe {
            self.pipes.give(pipe);
        }
    }

    /// A send from a registered block has left the kernel's hands: the block is free for whoever waits.
    fn give_slot_back(&mut self, core: &mut Core<State>, number: u16) -> io::Result<()> {
        if let Some(slot) = self.held[usize::from(number)].take() {
            self.pool.give(slot);
        }
        while let Some(conn) = self.waiting.pop_front() {
            if core.open(conn) && fixed::wake(self, core, conn)? {
                break;
            }
        }
        Ok(())
    }
}
