//! What all bare servers take on the command line.

use clap::Args;
use std::net::SocketAddr;

/// Flags that every bare server has.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The one CPU to run on, io-wq workers included
    #[arg(long)]
    pub cpu: u32,
    /// Where to listen; port 0 lets the kernel choose
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// io-wq workers of each class at most
    #[arg(long, default_value_t = 2)]
    pub workers: u32,
    /// Blocks in the receive buffer ring, a power of two
    #[arg(long, default_value_t = 1024)]
    pub buffers: u16,
    /// Bytes in each of them
    #[arg(long, default_value = "4k", value_parser = crate::size::parse_size)]
    pub buffer_size: u64,
}
