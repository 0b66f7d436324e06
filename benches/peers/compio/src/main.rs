//! The work on compio, with the ring flags that suit one thread, multishot accept and receive, and as many
//! receive buffers as the bare servers have.

use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncReadMulti, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::{Runtime, RuntimeBuilder, spawn};
use compio::time::sleep;
use futures_util::{Stream, StreamExt};
use peer_common::micro::{self, Measured, Op};
use peer_common::pin::pin_current_thread;
use peer_common::request::HeadCounter;
use peer_common::{ANY_PORT, Args, BLOCK, Micro, Work, beside, end, listening, not_here};
use std::future::poll_fn;
use std::io;
use std::num::NonZero;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::task::Poll;

/// Receive buffers of a ring: 1,024 cost an echo 3 % more here, because each receive then writes to the
/// coldest.
const BUFFERS: NonZero<u16> = NonZero::new(128).unwrap();

fn main() -> ExitCode {
    end(run(<Args as clap::Parser>::parse().work))
}

fn runtime() -> io::Result<Runtime> {
    let mut ring = ProactorBuilder::new();
    ring.capacity(4096).single_issuer(true).defer_taskrun(true);
    ring.buffer_pool_size(BUFFERS).buffer_pool_buffer_len(BLOCK);
    RuntimeBuilder::new().with_proactor(ring).build()
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
    let listener = TcpListener::bind(ANY_PORT).await?;
    listening(listener.local_addr()?);
    let mut incoming = listener.incoming();
    while let Some(stream) = incoming.next().await {
        let stream = stream?;
        stream.set_nodelay(true)?;
        spawn(handle(stream)).detach();
    }
    Ok(())
}

/// The next piece that came, or `None` at the end. A receive that finds no buffer is an error here, and asks
/// again when it is polled again: until then other tasks give theirs back. Thousands of connections that send
/// at once are more than there are buffers.
async fn next<P>(pieces: &mut Pin<&mut impl Stream<Item = io::Result<P>>>) -> io::Result<Option<P>> {
    loop {
        match pieces.next().await.transpose() {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => yield_now().await,
            piece => return piece,
        }
    }
}

async fn answer_all(stream: TcpStream, answer: &'static [u8]) -> io::Result<()> {
    let mut heads = HeadCounter::default();
    let (mut reader, mut writer) = (&stream, &stream);
    let mut pieces = pin!(reader.read_multi(0));
    while let Some(piece) = next(&mut pieces).await? {
        let asked = heads.feed(&piece);
        for _ in 0..asked {
            let BufResult(sent, _) = writer.write_all(answer).await;
            sent?;
        }
    }
    Ok(())
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = (&stream, &stream);
    let mut pieces = pin!(reader.read_multi(0));
    while let Some(piece) = next(&mut pieces).await? {
        let BufResult(sent, _) = writer.write_all(piece).await;
        sent?;
    }
    Ok(())
}

fn measure(&Micro { op, count, other_cpu, .. }: &Micro) -> io::Result<Measured> {
    let sleeper = |length| {
        let task = spawn(micro::lateness(length, sleep));
        async { task.await.unwrap_or_default() }
    };
    match op {
        Op::Spawn => in_task(micro::one_after_the_other(count, || spawn(async {}))),
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

/// Gives way once. compio has no function for it.
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
    let panicked = |_| io::Error::other("the task panicked");
    runtime()?.block_on(async { spawn(work).await }).map_err(panicked)?
}
