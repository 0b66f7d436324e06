//! The program `annulus`: serves files over HTTP/1.1, proxies TCP connections, explains the machine.
//!
//! This file maps outcomes to exit codes and nothing else; [`cli`] has the commands.

mod admin;
mod allocator;
mod cli;
mod config;
mod confine;
mod descriptors;
mod doctor;
mod exit;
mod filters;
mod http;
mod lifecycle;
mod limits;
mod lingering_close;
mod listen;
mod log;
mod metrics;
mod numa_bench;
mod options;
mod orders;
mod processes;
mod proxy;
mod roads;
mod serve;
mod service;
mod service_manager;
mod signals;
mod slow;
mod stats;
mod supervise;
mod topology;
mod upgrade;

use std::process::ExitCode;

use service_manager::message::Message;
use service_manager::notify;
use upgrade::taking;

fn main() -> ExitCode {
    let code = match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_told() {
                exit::say(&failure.to_string());
            }
            taking::failed(&failure.to_string());
            notify::begin(|| {});
            notify::tell(Message::Failed(failure.to_string()));
            failure.code()
        }
    };
    notify::end();
    log::end();
    code
}
