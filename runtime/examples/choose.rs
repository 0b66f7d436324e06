//! Chooses its runtime before anything starts: Annulus where `io_uring` is to be had, tokio where it is
//! refused, as in a container with Docker's default profile. `choose [annulus|tokio]`, asked for by name or
//! found out.

use annulus::{Runtime, probe_ring};

/// What the program is about, without a word of a runtime in it.
async fn greet(whose: &str) -> String {
    format!("hello from {whose}")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let asked = std::env::args().nth(1);
    // A ring is made as a core's would be, and given back: nothing else starts.
    let refused = match (asked.as_deref(), probe_ring(256)) {
        (Some("tokio"), _) => Some("asked for".to_owned()),
        (Some("annulus"), Err(e)) => return Err(e.into()),
        (None, Err(e)) => Some(e.to_string()),
        (None | Some("annulus"), Ok(_)) => None,
        (Some(other), _) => return Err(format!("{other} is no runtime: annulus or tokio").into()),
    };
    let greeting = match refused {
        None => Runtime::builder().most_cores(1).build()?.block_on(async || greet("annulus").await)?,
        Some(why) => {
            eprintln!("no io_uring: {why}");
            tokio::runtime::Builder::new_current_thread().build()?.block_on(greet("tokio"))
        }
    };
    println!("{greeting}");
    Ok(())
}
