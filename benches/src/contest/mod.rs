//! Contestants beside each other: who takes part, how each is started, the rounds, and what comes out.

pub mod launch;
pub mod report;
pub mod rounds;
pub mod table;
