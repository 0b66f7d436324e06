//! State that is split by core: `visits [ADDR] [CPULIST]`, `127.0.0.1:7000` on all CPUs by default. `GET
//! /NAME` over HTTP counts a visit, and tells how many that name has had on the core that answers, and on
//! all.
//!
//! Each core counts for itself, in a map that nobody locks ([`Sharded`]). Who wants the sum asks all cores at
//! once. The example `redis` does it the other way: there each key belongs to one core.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;

use annulus::Runtime;
use annulus::compat::{HyperTimer, Io};
use annulus::cores::Sharded;
use annulus::net::{TcpListener, TcpStream};
use annulus::numa::plan::CoreSelection;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};

type Visits = RefCell<HashMap<String, u64>>;

/// How many names a core keeps.
const NAMES: usize = 10_000;

/// Counts a visit on the current core; `None` where it has no place for another name.
fn count(visits: &Visits, name: &str) -> Option<u64> {
    let mut visits = visits.borrow_mut();
    if visits.len() == NAMES && !visits.contains_key(name) {
        return None;
    }
    let count = visits.entry(name.to_owned()).or_default();
    *count += 1;
    Some(*count)
}

async fn answer(
    request: Request<Incoming>,
    visits: Sharded<Visits>,
) -> annulus::Result<Response<Full<Bytes>>> {
    let name = request.uri().path().to_owned();
    let Some(here) = count(&*visits.local()?, &name) else {
        let mut response = Response::new(Full::from("too many names\n"));
        *response.status_mut() = StatusCode::INSUFFICIENT_STORAGE;
        return Ok(response);
    };
    // Each core looks into its own map; only the name and the numbers travel.
    let of_name = async move |visits: &Visits| visits.borrow().get(&name).copied().unwrap_or(0);
    let all = visits.map_reduce(of_name, 0, |sum, count| sum + count).await?;
    Ok(Response::new(Full::from(format!("{here} of {all} on core {}\n", annulus::cores::index()))))
}

async fn serve(stream: TcpStream, visits: Sharded<Visits>) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(request, visits.clone()));
    http1::Builder::new().timer(HyperTimer).serve_connection(Io::new(stream), service).await
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned()).parse()?;
    let cores: CoreSelection = args.next().unwrap_or_else(|| "all".to_owned()).parse()?;

    let mut runtime = Runtime::builder().cores(cores).build()?;
    let visits = runtime.sharded(|| annulus::Ok(Visits::default()));
    runtime.run(move || {
        let visits = visits.clone();
        async move {
            let listener = TcpListener::bind(address)?;
            if annulus::cores::index() == 0 {
                eprintln!("listening on {}", listener.local_addr());
            }
            loop {
                let (stream, visits) = (listener.accept().await?, visits.clone());
                annulus::spawn(async move {
                    if let Err(e) = serve(stream, visits).await {
                        eprintln!("a connection failed: {e}");
                    }
                })
                .detach();
            }
        }
    })?;
    Ok(())
}
