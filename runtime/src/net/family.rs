//! The family of a connection, and the sides of it that a handle has: types without values, which only the
//! compiler tells apart.

use rustix::net::AddressFamily;

pub(super) mod sealed {
    use super::AddressFamily;

    pub trait Family: 'static {
        /// The name of a connection's type, for messages.
        const NAME: &'static str;
        /// The name of a listener's type.
        const LISTENER: &'static str;

        /// Whether a socket of this domain (`socket(2)`) is of this family.
        fn is(domain: AddressFamily) -> bool;
    }

    pub trait Side: 'static {
        /// Whether it receives.
        const READS: bool;
        /// Whether it sends.
        const WRITES: bool;
    }
}

/// The sockets that connections may be on: [`Tcp`] and [`Unix`]. Nobody else can implement it.
pub trait Family: sealed::Family {}

/// TCP over IPv4 or IPv6.
#[derive(Debug)]
pub enum Tcp {}

/// Unix domain sockets of the stream type (`unix(7)`).
#[derive(Debug)]
pub enum Unix {}

impl Family for Tcp {}
impl Family for Unix {}

impl sealed::Family for Tcp {
    const NAME: &'static str = "TcpStream";
    const LISTENER: &'static str = "TcpListener";

    fn is(domain: AddressFamily) -> bool {
        domain == AddressFamily::INET || domain == AddressFamily::INET6
    }
}

impl sealed::Family for Unix {
    const NAME: &'static str = "UnixStream";
    const LISTENER: &'static str = "UnixListener";

    fn is(domain: AddressFamily) -> bool {
        domain == AddressFamily::UNIX
    }
}

/// Which side of a connection a handle has: [`Both`], [`Reader`] or [`Writer`]. Nobody else can implement it.
pub trait Side: sealed::Side {}

/// A side that receives.
pub trait Reads: Side {}

/// A side that sends.
pub trait Writes: Side {}

/// The whole connection.
#[derive(Debug)]
pub enum Both {}

/// The half that receives.
#[derive(Debug)]
pub enum Reader {}

/// The half that sends.
#[derive(Debug)]
pub enum Writer {}

impl Side for Both {}
impl Side for Reader {}
impl Side for Writer {}
impl Reads for Both {}
impl Reads for Reader {}
impl Writes for Both {}
impl Writes for Writer {}

impl sealed::Side for Both {
    const READS: bool = true;
    const WRITES: bool = true;
}

impl sealed::Side for Reader {
    const READS: bool = true;
    const WRITES: bool = false;
}

impl sealed::Side for Writer {
    const READS: bool = false;
    const WRITES: bool = true;
}
