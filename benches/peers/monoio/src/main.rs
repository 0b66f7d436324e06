//! The work on monoio, with `sync` (without it, waking a task from another thread panics) and the ring flags
//! that suit one thread.

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::time::{TimeDriver, sleep};
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};
use peer_common::micro::{self, Measured, Op};
use peer_common::pin::pin_current_thread;
use peer_common::request::HeadCounter;
use peer_common::{ANY_PORT, Args, BLOCK, Micro, Work, beside, end, listening, not_here};
use std::future::poll_fn;
use std::io;
use std::process::ExitCode;
use std::task::Poll;

fn main() -> ExitCode {
    end(run(<Args as clap::Parser>::parse().work))
}

fn runtime() -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    RuntimeBuilder::<IoUringDriver>::new().with_entries(4096).uring_builder(ring).enable_all().build()
}

fn run(work: Work) -> io::Result<()> {
    match work {
        Work::Hello(hello) => {
            pin_current_thread(hello.cpu)?;
            let answer = hello.answer();
            runtime()?.block_on(serve(|stream| answer_all(stream, answer)))
        }
        Work::Hyper(_) => Err(not_here("hyper")),
        Work::Echo { cpu } => {
            pin_current_thread(cpu)?;
            runtime()?.block_on(serve(echo))
        }
        Work::Micro(micro) => {
            pin_current_thread(micro.cpu)?;
            println!("{}", measure(&micro)?);
            Ok(())
        }
    }
}

/// Gives every connection a task.
async fn serve<F>(handle: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let listener = TcpListener::bind(ANY_PORT)?;
    listening(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        monoio::spawn(handle(stream));
    }
}

async fn answer_all(mut stream: TcpStream, answer: &'static [u8]) -> io::Result<()> {
    let mut heads = HeadCounter::default();
    let mut buf = Vec::with_capacity(BLOCK);
    loop {
        let n;
        (n, buf) = stream.read(buf).await;
        let n = n?;
        if n == 0 {
            return Ok(());
        }
        for _ in 0..heads.feed(&buf[..n]) {
            stream.write_all(answer).await.0?;
        }
        buf.clear();
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buf = Vec::with_capacity(BLOCK);
    loop {
        let n;
        (n, buf) = stream.read(buf).await;
        if n? == 0 {
            return Ok(());
        }
        let sent;
        (sent, buf) = stream.write_all(buf).await;
        sent?;
        buf.clear();
    }
}

fn measure(&Micro { op, count, other_cpu, .. }: &Micro) -> io::Result<Measured> {
    let sleeper = |length| monoio::spawn(micro::lateness(length, sleep));
    match op {
        Op::Spawn => in_task(micro::one_after_the_other(count, || monoio::spawn(async {}))),
        Op::Yield => in_task(micro::one_after_the_other(count, yield_now)),
        Op::Timer => in_task(micro::timers(count, sleep)),
        Op::Sleepers => in_task(micro::sleepers(count, sleeper)),
        Op::PingPong => {
            let (near, far) = micro::line();
            let there = || in_task(async { Ok(micro::pong(far).await) });
            beside(other_cpu, there, || in_task(micro::ping(count, near)))
        }
    }
}

/// Gives way once. monoio has no function for it that is public.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs `work` as servers do theirs: in a task, not as the future that `block_on` polls in its own way.
fn in_task<T: 'static>(work: impl Future<Output = io::Result<T>> + 'static) -> io::Result<T> {
    runtime()?.block_on(async { monoio::spawn(work).await })
}
