//! Numbers that mean something else to the kernel, at every public entry that takes an offset or a length.
//!
//! Seen to fail: without the refusal `write_at` at 2^64 - 1 returns `Ok` and overwrites the file at its own
//! position (offset -1), and `read_at` reads there and moves it; at the other offsets both say `EINVAL`.

mod common;

use std::time::Duration;

use annulus::fs::{Advice, File};
use annulus::net::{Keepalive, TcpStream, UdpSocket};
use annulus::pipe::pipe;
use annulus::transfer::{Road, send_file, splice};
use annulus::{Error, ErrorKind};
use common::on_one_core;

/// The offset -1, which is the file's own position; the least that has a sign; another.
const BEYOND: [u64; 3] = [u64::MAX, 1 << 63, u64::MAX - 1];
const BYTES: &[u8] = b"as it was";

/// A file with [`BYTES`], whose own position is its first byte.
fn file() -> File {
    let file = rustix::fs::memfd_create("offsets", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::io::pwrite(&file, BYTES, 0), Ok(BYTES.len()));
    File::from_fd(file)
}

/// Nothing has changed: neither its bytes nor its own position.
fn is_untouched(file: &File) {
    let mut bytes = [0; 100];
    let n = rustix::io::pread(file, &mut bytes, 0).unwrap();
    assert_eq!(&bytes[..n], BYTES);
    assert_eq!(rustix::fs::tell(file), Ok(0));
}

fn is_input<T>(what: &str, result: Result<T, impl Into<Error>>) {
    let Err(error) = result else { panic!("{what} was not refused") };
    let error = error.into();
    assert_eq!(error.kind(), ErrorKind::Input, "{what}: {error}");
    assert!(error.to_string().contains("more than the kernel can be told"), "{what}: {error}");
}

/// Seen to fail: PENDING
#[test]
fn no_read_and_no_write_goes_to_the_files_own_position() {
    on_one_core(|| async {
        let file = file();
        for offset in BEYOND {
            is_input("write_at", file.write_at("XXX", offset).await);
            is_input("write_all_at", file.write_all_at("XXX", offset).await);
            is_input("write_all_at of nothing", file.write_all_at("", offset).await);
            is_input("read_at", file.read_at(Vec::with_capacity(3), offset).await);
            is_input("read_exact_at", file.read_exact_at(Vec::with_capacity(3), 3, offset).await);
            is_input("read_exact_at of nothing", file.read_exact_at(Vec::new(), 0, offset).await);
            is_input("read_now", file.read_now(&mut Vec::with_capacity(3), offset));
            assert!(!file.is_cached(offset, 1), "no file has a byte at {offset}");
        }
        // The last offset that means itself has the kernel's own answer.
        let (n, _) = file.read_at(Vec::with_capacity(3), i64::MAX as u64 - 4096).await?;
        assert_eq!(n, 0);
        assert_eq!(file.write_at("XXX", i64::MAX as u64 - 1).await.unwrap_err().error.kind(), ErrorKind::Io);
        is_untouched(&file);
        Ok(())
    });
}

#[test]
fn a_length_or_a_range_beyond_all_files_is_refused() {
    on_one_core(|| async {
        let file = file();
        for end in BEYOND {
            is_input("set_len", file.set_len(end).await);
            for range in [0..end, end..end, end..0, end - 1..end] {
                is_input("allocate", file.allocate(range.clone()).await);
                is_input("punch_hole", file.punch_hole(range).await);
            }
            is_input("advise", file.advise(end..u64::MAX, Advice::WillNeed).await);
            // To the end, whatever that is.
            file.advise(0..end, Advice::WillNeed).await?;
        }
        is_untouched(&file);
        Ok(())
    });
}

#[test]
fn a_transfer_from_or_to_a_place_beyond_all_files_is_refused_and_moves_nothing() {
    on_one_core(|| async {
        let file = file();
        let (reader, writer) = pipe()?;
        writer.write_all("in the pipe").await?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await?;
        for offset in BEYOND {
            is_input("splice from a file", splice((&file, offset), &writer, 3).await);
            is_input("splice to a file", splice(&reader, (&file, offset), 3).await);
            for road in [Road::Inline, Road::Ring] {
                for range in [0..offset, offset..u64::MAX, offset..0] {
                    is_input("send_file", send_file(&stream, &file, range, road).await);
                }
            }
        }
        is_untouched(&file);
        let (n, _) = reader.read(Vec::with_capacity(100)).await?;
        assert_eq!(n, "in the pipe".len());
        // Nothing was sent, and the stream is whole.
        stream.send_all("first").await?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut got = String::new();
        std::io::Read::read_to_string(&mut listener.accept().unwrap().0, &mut got).unwrap();
        assert_eq!(got, "first");
        Ok(())
    });
}

#[test]
fn a_buffer_larger_than_its_number_is_refused() {
    on_one_core(|| async {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let (reader, writer) = pipe()?;
        for bytes in [1 << 31, 1 << 32, (1 << 32) + 4096, usize::MAX] {
            is_input("a stream's receive buffer", stream.set_recv_buffer_size(bytes));
            is_input("a stream's send buffer", stream.set_send_buffer_size(bytes));
            is_input("a socket's receive buffer", socket.set_recv_buffer_size(bytes));
            is_input("a socket's send buffer", socket.set_send_buffer_size(bytes));
            is_input("a pipe, by its reader", reader.set_size(bytes));
            is_input("a pipe, by its writer", writer.set_size(bytes));
        }
        stream.set_recv_buffer_size(1 << 20)
    });
}

/// Seen to fail: without the look at them, the first is `EINVAL` without a word of what to do.
#[test]
fn a_time_or_a_count_that_would_mean_another_is_refused() {
    on_one_core(|| async {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await?;
        let is_refused = |what: &str, result: Result<(), Error>| {
            let error = result.expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Input, "{what}: {error}");
        };
        let (ms, secs) = (Duration::from_millis, Duration::from_secs);
        let good = Keepalive::new(secs(32_767), secs(1), 127);
        stream.set_keepalive(Some(good))?;
        for time in [Duration::ZERO, ms(1), ms(1500), secs(32_768), secs((1 << 32) + 5), Duration::MAX] {
            let told = format!("{time:?}");
            is_refused(&told, stream.set_keepalive(Some(Keepalive::new(time, secs(1), 127))));
            is_refused(&told, stream.set_keepalive(Some(Keepalive::new(secs(1), time, 127))));
        }
        for count in [0, 128, 256, 1 << 31, u32::MAX] {
            is_refused("a count", stream.set_keepalive(Some(Keepalive::new(secs(1), secs(1), count))));
        }
        assert_eq!(stream.keepalive()?, Some(good), "as it was");
        for time in [ms(1), ms(1500), secs(1 << 31), secs((1 << 32) + 5), Duration::MAX] {
            is_refused(&format!("to linger {time:?}"), stream.set_linger(Some(time)));
        }
        assert_eq!(stream.linger()?, None);
        let longest = ms(i32::MAX as u64);
        stream.set_user_timeout(Some(longest))?;
        for time in [
            Duration::ZERO,
            Duration::from_micros(1),
            Duration::from_micros(1500),
            longest + ms(1),
            Duration::MAX,
        ] {
            is_refused(&format!("a user timeout of {time:?}"), stream.set_user_timeout(Some(time)));
        }
        assert_eq!(stream.user_timeout()?, Some(longest));
        Ok(())
    });
}
