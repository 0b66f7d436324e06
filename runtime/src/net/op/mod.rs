//! Operations on sockets: each is one declarative block, as those of [`crate::op`] are.

pub(crate) mod accept;
pub(crate) mod connect;
pub(crate) mod recv;
pub(crate) mod recv_fragments;
pub(crate) mod recv_msg;
pub(crate) mod send;
pub(crate) mod send_to;
pub(crate) mod send_vectored;
pub(crate) mod send_zc;
