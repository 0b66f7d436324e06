//! axum on Annulus: `axum ADDR CPULIST DIR` keeps notes as files of DIR. `PUT /notes/NAME` writes one, `GET
//! /notes/NAME` reads it, `GET /served` tells how many requests the core that answers has had.
//!
//! axum asks for `Send` where nothing is sent anywhere: a handler's future runs on the core that serves the
//! connection, and so does all else of the router. [`OnCore`] says so. The state is one, made on each core;
//! what a handler does with files, sockets and timers of its core is in one too.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use annulus::Runtime;
use annulus::compat::{HyperTimer, Io, OnCore};
use annulus::fs::{Dir, OpenOptions};
use annulus::net::{TcpListener, TcpStream};
use annulus::numa::plan::CoreSelection;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tower_service::Service;

/// What the handlers of a core share: neither `Send` nor `Sync`.
struct Notes {
    dir: Dir,
    served: Cell<u64>,
}

/// It can be cloned, as axum's states must: the note book of this core.
type Here = OnCore<Rc<Notes>>;

/// The status that an error of a file stands for.
fn status(e: annulus::Error) -> StatusCode {
    match e.io_error().map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The extractors' futures are `Send`, and what is awaited here is not: it is awaited within `OnCore`.
async fn read(State(notes): State<Here>, Path(name): Path<String>) -> Result<Vec<u8>, StatusCode> {
    notes.served.set(notes.served.get() + 1);
    OnCore::new(async move {
        let file = notes.dir.open_beneath(&name, OpenOptions::new().read(true)).await.map_err(status)?;
        let (_, bytes) = file.read_to_end_at(Vec::new(), 0).await.map_err(|e| status(e.into()))?;
        Ok(bytes)
    })
    .await
}

async fn write(
    State(notes): State<Here>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<StatusCode, StatusCode> {
    notes.served.set(notes.served.get() + 1);
    OnCore::new(async move {
        let new = OpenOptions::new().write(true).create(true).truncate(true);
        let file = notes.dir.open_beneath(&name, new).await.map_err(status)?;
        file.write_all_at(bytes, 0).await.map_err(|e| status(e.into()))?;
        Ok(StatusCode::CREATED)
    })
    .await
}

/// Nothing is awaited, so there is nothing to wrap.
async fn served(State(notes): State<Here>) -> String {
    format!("core {}: {}\n", annulus::cores::index(), notes.served.get())
}

async fn serve(stream: TcpStream, router: Router) -> hyper::Result<()> {
    // `call` takes `&mut self` for services that must be polled before; a router need not be.
    let service = service_fn(move |request| router.clone().call(request));
    http1::Builder::new().timer(HyperTimer).serve_connection(Io::new(stream), service).await
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, cores, dir] =
        <[String; 3]>::try_from(arguments).map_err(|_| "usage: axum ADDR CPULIST DIR")?;
    let address: SocketAddr = address.parse()?;
    let cores: CoreSelection = cores.parse()?;

    Runtime::builder().cores(cores).build()?.run(move || {
        let dir = dir.clone();
        async move {
            let notes = Notes { dir: Dir::open(dir).await?, served: Cell::new(0) };
            let router = Router::new()
                .route("/notes/{name}", get(read).put(write))
                .route("/served", get(served))
                .with_state(OnCore::new(Rc::new(notes)));
            let listener = TcpListener::bind(address)?;
            if annulus::cores::index() == 0 {
                eprintln!("listening on {}", listener.local_addr());
            }
            loop {
                let (stream, router) = (listener.accept().await?, router.clone());
                annulus::spawn(async move {
                    if let Err(e) = serve(stream, router).await {
                        eprintln!("a connection failed: {e}");
                    }
                })
                .detach();
            }
        }
    })?;
    Ok(())
}
