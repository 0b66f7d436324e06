//! The work on tokio's current_thread runtime, and hyper on it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, server::conn::http1};
use hyper_util::rt::TokioIo;
use peer_common::micro::{self, Measured, Op};
use peer_common::pin::pin_current_thread;
use peer_common::request::HeadCounter;
use peer_common::{ANY_PORT, Args, BLOCK, Hello, Micro, Work, beside, end, listening};
use std::convert::Infallible;
use std::io;
use std::process::ExitCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio::time::sleep;

fn main() -> ExitCode {
    end(run(<Args as clap::Parser>::parse().work))
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn run(work: Work) -> io::Result<()> {
    match work {
        Work::Hello(hello) => {
            pin_current_thread(hello.cpu)?;
            let answer = hello.answer();
            runtime()?.block_on(serve(async move |stream| answer_all(stream, answer).await))
        }
        Work::Hyper(hello) => {
            pin_current_thread(hello.cpu)?;
            runtime()?.block_on(serve_hyper(hello))
        }
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
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind(ANY_PORT).await?;
    listening(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(handle(stream));
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

async fn serve_hyper(hello: Hello) -> io::Result<()> {
    let body = Bytes::from_static(hello.bytes());
    serve(move |stream| {
        let body = body.clone();
        async move {
            let answer = service_fn(move |_| {
                let response = Response::new(Full::new(body.clone()));
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            connection.await.map_err(io::Error::other)
        }
    })
    .await
}

fn measure(&Micro { op, count, other_cpu, .. }: &Micro) -> io::Result<Measured> {
    let spawn_join = || async {
        // A task of a runtime that goes on, and that does not panic, always has an output.
        let _ = tokio::spawn(async {}).await;
    };
    let sleeper = |length| {
        let task = tokio::spawn(micro::lateness(length, sleep));
        async { task.await.unwrap_or_default() }
    };
    match op {
        Op::Spawn => in_task(micro::one_after_the_other(count, spawn_join)),
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

/// Runs `work` as servers do theirs: in a task, not as the future that `block_on` polls in its own way.
fn in_task<T, F>(work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    runtime()?.block_on(async { tokio::spawn(work).await })?
}
