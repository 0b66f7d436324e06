//! The flags of the contestants on Annulus that answer HTTP.

use crate::size;
use clap::Parser;

/// Answers every request on every path with the same bytes, on one core.
#[derive(Debug, Parser)]
pub struct AnswerArgs {
    /// The CPU to run on
    #[arg(long)]
    pub cpu: u32,
    /// Bytes of the body
    #[arg(long, default_value = "1k", value_parser = size::parse_size)]
    pub body: u64,
}
