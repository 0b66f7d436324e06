//! TCP from the client's side, with what std does not offer: resets, and what the kernel counted.

use crate::watch;
use rustix::net::sockopt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Connects, with the watchdog on everything that may wait.
///
/// # Errors
/// What connecting says.
pub fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, watch::LIMIT)?;
    stream.set_read_timeout(Some(watch::LIMIT))?;
    stream.set_write_timeout(Some(watch::LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// As [`connect`], where the server may reset a connection at once, before the client has heard that it
/// stands: `None` then.
///
/// # Panics
/// When connecting fails otherwise.
#[track_caller]
pub fn connect_unless_reset(addr: SocketAddr) -> Option<TcpStream> {
    match connect(addr) {
        Ok(stream) => Some(stream),
        Err(e) if is_gone(&e) => None,
        Err(e) => panic!("connecting to {addr}: {e}"),
    }
}

/// As [`connect`], from an address of ours.
///
/// # Errors
/// What making, binding and connecting the socket says.
pub fn connect_from(from: IpAddr, addr: SocketAddr) -> io::Result<TcpStream> {
    finish_connect(bound(from)?, addr)
}

/// A socket with a free port of an address of ours.
fn bound(from: IpAddr) -> io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::new(from, 0))?;
    Ok(TcpStream::from(socket))
}

fn finish_connect(stream: TcpStream, addr: SocketAddr) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(watch::LIMIT))?;
    // It bounds connecting too (`SO_SNDTIMEO`, `socket(7)`).
    stream.set_write_timeout(Some(watch::LIMIT))?;
    stream.set_nodelay(true)?;
    rustix::net::connect(&stream, &addr)?;
    Ok(stream)
}

/// As [`connect`], and tells the client's address also where connecting fails: a server may reset a
/// connection before the client has heard that it stands.
///
/// # Panics
/// When 127.0.0.1 has no free port.
#[track_caller]
pub fn connect_known(addr: SocketAddr) -> (SocketAddr, io::Result<TcpStream>) {
    let socket = bound(Ipv4Addr::LOCALHOST.into()).expect("a port of 127.0.0.1");
    let from = socket.local_addr().expect("its own address");
    (from, finish_connect(socket, addr))
}

/// Closes a connection so that the peer is told of a reset (RST) instead of an orderly end.
#[track_caller]
pub fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("SO_LINGER on a socket of ours");
}

/// Asks for a receive buffer of about `bytes`, so that a peer soon has to wait for us.
#[track_caller]
pub fn small_receive_buffer(socket: &impl std::os::fd::AsFd, bytes: usize) {
    sockopt::set_socket_recv_buffer_size(socket, bytes).expect("SO_RCVBUF on a socket of ours");
}

/// Has the kernel cut what is sent on a UDP socket into datagrams of this many bytes (`UDP_SEGMENT`,
/// `udp(7)`; Linux 4.18).
#[track_caller]
pub fn cut_datagrams(socket: &UdpSocket, bytes: u16) {
    set_udp_option(socket, libc::UDP_SEGMENT, bytes.into());
}

/// Takes datagrams that are put together as one (`UDP_GRO`, `udp(7)`; Linux 5.0).
#[track_caller]
pub fn take_datagrams_together(socket: &UdpSocket) {
    set_udp_option(socket, libc::UDP_GRO, 1);
}

#[track_caller]
fn set_udp_option(socket: &UdpSocket, option: libc::c_int, value: libc::c_int) {
    // SAFETY: the value is an integer on our stack, which the kernel only reads, and its size is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "option {option} of UDP: {}", io::Error::last_os_error());
}

/// Bytes that were sent on this connection and are not acknowledged (`SIOCOUTQ`, `tcp(7)`). 0 for one that
/// has gone.
#[track_caller]
pub fn unacknowledged(stream: &TcpStream) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one integer, which lives across the call.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(result, 0, "SIOCOUTQ of a connection: {}", io::Error::last_os_error());
    usize::try_from(bytes).unwrap_or(0)
}

/// How many segments with data have arrived on this connection (tcp(7), TCP_INFO; Linux 4.6).
#[track_caller]
pub fn data_segments_in(stream: &TcpStream) -> u32 {
    // SAFETY: tcp_info is plain data, for which all zeros is a valid value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `info`, which is that large; both live across the
    // call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut len,
        )
    };
    assert_eq!(result, 0, "TCP_INFO of a connection: {}", io::Error::last_os_error());
    info.tcpi_data_segs_in
}

/// Whether a read or write failed because the other side is gone, in any of the ways in which TCP says so.
pub fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

/// An address of 127.0.0.0/8 that no other test process uses, so that a port on it which was free a moment
/// ago still is.
pub fn own_loopback() -> IpAddr {
    let pid = std::process::id();
    IpAddr::V4(Ipv4Addr::new(127, 77 + (pid >> 16 & 0x3f) as u8, (pid >> 8) as u8, pid as u8 | 1))
}

/// An address where nobody listens, and where nobody else is going to.
#[track_caller]
pub fn free_addr() -> SocketAddr {
    let listener =
        TcpListener::bind((own_loopback(), 0)).expect("binding a port of our own loopback address");
    listener.local_addr().expect("the address of a bound socket")
}

/// A port that is free on all addresses of both families, and that the kernel gives to nobody by itself.
/// It lies below the ports that the kernel chooses from (`net.ipv4.ip_local_port_range`, 32768 by default).
/// A client of another test may have any port that the kernel chose.
#[track_caller]
pub fn free_port() -> u16 {
    let begin = 20_000 + (std::process::id() % 12_000) as u16;
    let is_free = |port: &u16| {
        let v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
        let v6 = TcpListener::bind(("::", *port));
        v4 && v6.map_or_else(|e| e.kind() != io::ErrorKind::AddrInUse, |_| true)
    };
    (begin..32_768).find(is_free).expect("a port that is free on all addresses")
}

/// A listener with SO_REUSEPORT set, as a server has it that shares its port between its own sockets.
///
/// # Errors
/// What making and binding the socket says.
pub fn shared_listener(addr: SocketAddr) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    bind(&socket, &addr)?;
    listen(&socket, 128)?;
    Ok(TcpListener::from(socket))
}
