//! What a program can be told, one clap struct for each kind of thing: each field is a flag of the command
//! line and a key of the file.
//!
//! [`program`] holds for the whole program, [`listener`] for each listener; what is done with connections has
//! its own, [`crate::serve::options`] and [`crate::proxy::options`]. These structs are data only.

pub(crate) mod listener;
pub(crate) mod processes;
pub(crate) mod program;
pub(crate) mod values;
