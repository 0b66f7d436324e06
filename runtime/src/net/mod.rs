//! TCP, UDP and Unix sockets.
//!
//! Receiving and accepting belong to the socket, not to a future: dropping a `recv` or `accept` future leaves
//! the multishot operation armed, and its results wait for the next call. A timeout around `recv` loses no
//! byte, one around `accept` loses no client.
//!
//! [`TcpStream`] and [`UnixStream`] are both a [`Connection`], and so are the halves of each; [`Connection`]
//! describes what they have in common.

mod connection;
mod datagrams;
#[cfg(all(test, not(loom)))]
mod events;
pub(crate) mod eyeballs;
mod family;
mod fd_budget;
mod group;
mod hand_over;
mod inherited;
mod listen_options;
pub(crate) mod listener;
mod names;
mod oneself;
pub(crate) mod op;
mod ownership;
mod packets;
mod path_lock;
#[cfg(all(any(test, feature = "played"), not(loom)))]
pub(crate) mod played;
mod receives;
mod send;
mod seqpacket;
mod silence;
pub(crate) mod sockaddr;
pub(crate) mod socket;
pub(crate) mod sys;
mod sys_datagrams;
mod tcp;
mod udp;
mod unix;
mod unix_socket;
pub(crate) mod writing;
mod zero_copy;

pub use connection::{Connection, ReuniteError};
pub use family::{Both, Family, Reader, Reads, Side, Tcp, Unix, Writer, Writes};
pub use fd_budget::connections_left;
pub use group::{datagram_sockets, listening_sockets};
pub use hand_over::{Detached, HandOverError};
pub use inherited::inherited_sockets;
pub use listen_options::ListenOptions;
pub use listener::Listener;

pub use datagrams::{Datagrams, SentDatagrams};
pub use names::{Target, ToTarget, lookup_host};
pub use packets::{Packet, UnixDatagram};
pub use seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
pub use silence::Silence;
pub(crate) use socket::SocketFd;
pub use tcp::{Keepalive, TcpListener, TcpReadHalf, TcpStream, TcpWriteHalf};
pub use udp::{Datagram, UdpSocket};
pub use unix::{PeerCred, UnixListener, UnixReadHalf, UnixStream, UnixWriteHalf};
pub use unix_socket::UnixSocket;
