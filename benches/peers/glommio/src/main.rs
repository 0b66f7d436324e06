//! The work on glommio. It sets no ring flags that suit one thread, and offers none.

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, executor, spawn_local};
use peer_common::micro::{self, Measured, Op};
use peer_common::request::HeadCounter;
use peer_common::{ANY_PORT, Args, BLOCK, Micro, Work, beside, end, listening, not_here};
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    end(run(<Args as clap::Parser>::parse().work))
}

fn local(cpu: u32) -> io::Result<LocalExecutor> {
    Ok(LocalExecutorBuilder::new(Placement::Fixed(cpu as usize)).ring_depth(1024).make()?)
}

fn run(work: Work) -> io::Result<()> {
    match work {
        Work::Hello(hello) => {
            let answer = hello.answer();
            local(hello.cpu)?.run(serve(|stream| answer_all(stream, answer)))
        }
        Work::Hyper(_) => Err(not_here("hyper")),
        Work::Echo { cpu } => local(cpu)?.run(serve(echo)),
        Work::Micro(micro) => {
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
        let stream = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn_local(handle(stream)).detach();
    }
}

async fn answer_all(mut stream: TcpStream, answer: &'static [u8]) -> io::Result<()> {
    let mut heads = HeadCounter::default();
    let mut buf = [0; BLOCK];
    loop {
        let n = stream.read(&mut buf).await?;
        if n == 0 {
            return Ok(());
        }
        for _ in 0..heads.feed(&buf[..n]) {
            stream.write_all(answer).await?;
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buf = [0; BLOCK];
    loop {
        let n = stream.read(&mut buf).await?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buf[..n]).await?;
    }
}

fn measure(&Micro { op, count, cpu, other_cpu }: &Micro) -> io::Result<Measured> {
    let sleeper = |length| spawn_local(micro::lateness(length, sleep));
    match op {
        Op::Spawn => in_task(cpu, micro::one_after_the_other(count, || spawn_local(async {}))),
        Op::Yield => in_task(cpu, micro::one_after_the_other(count, yield_now)),
        Op::Timer => in_task(cpu, micro::timers(count, sleep)),
        Op::Sleepers => in_task(cpu, micro::sleepers(count, sleeper)),
        Op::PingPong => ping_pong(count, cpu, other_cpu),
    }
}

/// Over the line of all others: its wakers come from the other executor's thread, which glommio's own
/// channels avoid.
fn ping_pong(count: u64, cpu: u32, other_cpu: u32) -> io::Result<Measured> {
    let (near, far) = micro::line();
    let there = move || in_task(other_cpu, async { Ok(micro::pong(far).await) });
    beside(other_cpu, there, || in_task(cpu, micro::ping(count, near)))
}

/// Runs `work` in a task.
fn in_task<T: 'static>(cpu: u32, work: impl Future<Output = io::Result<T>> + 'static) -> io::Result<T> {
    local(cpu)?.run(async { spawn_local(work).await })
}

async fn yield_now() {
    executor().yield_now().await;
}
