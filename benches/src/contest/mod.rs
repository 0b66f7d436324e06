//! Contestants beside each other: who takes part, how each is started, the rounds, and what comes out.

pub mod bars;
pub mod budget;
pub mod check;
pub mod contestants;
pub mod copy_demo;
pub mod figure;
pub mod front;
pub mod latency;
pub mod launch;
pub mod markdown;
pub mod order;
pub mod report;
pub mod rounds;
pub mod svg;
pub mod table;
pub mod undisturbed;
