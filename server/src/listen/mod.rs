//! Listening: addresses, the sockets that all cores accept from, and who has connected.
//!
//! It knows nothing of files and relays: who accepts says what is done with a connection.

pub(crate) mod accept;
pub(crate) mod address;
pub(crate) mod client;
pub(crate) mod connection_count;
pub(crate) mod endpoint;
pub(crate) mod forwarded;
pub(crate) mod gate;
pub(crate) mod inherited;
pub(crate) mod networks;
pub(crate) mod open;
pub(crate) mod passed;
mod proxy_protocol;
pub(crate) mod socket_options;
