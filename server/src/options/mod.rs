//! What a program can be told, one clap struct for each kind of thing: each field is a flag of the command
//! line and a key of the file.
//!
//! [`program`] holds for the whole program, [`listener`] for each way in; what is done with the connections
//! has its own, [`crate::serve::options`] and [`crate::proxy::options`]. Nothing here does anything.

pub(crate) mod listener;
pub(crate) mod processes;
pub(crate) mod program;
pub(crate) mod values;
