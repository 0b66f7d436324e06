//! TCP.
//!
//! Receiving and accepting belong to the socket, not to a future: dropping a `recv` or `accept` future leaves the
//! multishot operation armed, and what it brings waits for the next call. A timeout around `recv` loses no byte, one
//! around `accept` loses no client.

pub(crate) mod group;
pub(crate) mod listener;
mod room;
mod send;
pub(crate) mod socket;
mod stream;
pub(crate) mod zero_copy;

pub use listener::TcpListener;
pub(crate) use stream::SocketFd;
pub use stream::TcpStream;
