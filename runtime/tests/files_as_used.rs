//! Files as people use them: by name, as a whole, through buffers, and for a while.

mod common;

use std::future::{Future, pending, poll_fn};
use std::io::{IoSlice, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use annulus::compat::{FdIo, FileIo};
use annulus::fs::{self, BufReader, BufWriter, Cursor, File, FileKind, OpenOptions, TempDir};
use annulus::time::timeout;
use annulus::{ErrorKind, spawn, spawn_blocking};
use common::wire::pattern;
use common::{bulk, on_first_cpu, on_one_core, small};

fn errno(e: &annulus::Error) -> Option<i32> {
    e.io_error().and_then(std::io::Error::raw_os_error)
}

#[test]
fn names_are_made_looked_at_changed_and_removed() {
    on_one_core(|| async {
        let dir = TempDir::new().await?;
        let at = |name: &str| dir.path().join(name);
        assert_eq!(std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir_all(at("a/b/c")).await?;
        fs::create_dir(at("a/d")).await?;
        fs::write(at("a/file"), "content").await?;
        fs::hard_link(at("a/file"), at("a/b/same")).await?;
        fs::symlink("../file", at("a/d/link")).await?;
        assert_eq!(fs::read_link(at("a/d/link")).await?, Path::new("../file"));
        assert_eq!(fs::canonicalize(at("a/d/link")).await?, std::fs::canonicalize(at("a/file")).unwrap());
        let stat = fs::stat(at("a/d/link")).await?;
        assert_eq!((stat.kind, stat.size, stat.links), (FileKind::Regular, 7, 2));
        assert_eq!(fs::stat_link(at("a/d/link")).await?.kind, FileKind::Other);
        fs::set_mode(at("a/file"), 0o600).await?;
        assert_eq!(fs::stat(at("a/file")).await?.mode, 0o600);
        assert_eq!(fs::copy(at("a/file"), at("copy")).await?, 7);
        assert_eq!(fs::read_to_string(at("copy")).await?, "content");
        assert_eq!(fs::stat(at("copy")).await?.mode, 0o600);
        fs::rename(at("copy"), at("renamed")).await?;
        assert!(!fs::exists(at("copy")).await? && fs::exists(at("renamed")).await?);
        let mut names: Vec<_> = fs::read_dir(at("a")).await?.into_iter().map(|entry| entry.name).collect();
        names.sort();
        assert_eq!(names, ["b", "d", "file"]);
        assert_eq!(errno(&fs::remove_dir(at("a")).await.unwrap_err()), Some(libc::ENOTEMPTY));
        fs::remove_file(at("renamed")).await?;
        fs::remove_dir(at("a/b/c")).await?;
        // A link is removed, and not what it leads to.
        std::fs::create_dir(at("kept")).unwrap();
        std::fs::write(at("kept/file"), "kept").unwrap();
        fs::symlink(at("kept"), at("a/d/to-kept")).await?;
        fs::remove_dir_all(at("a")).await?;
        assert_eq!(fs::read(at("kept/file")).await?, b"kept");
        let missing = fs::stat(at("missing")).await.unwrap_err();
        assert_eq!((missing.kind(), errno(&missing)), (ErrorKind::Io, Some(libc::ENOENT)));
        assert!(missing.to_string().contains("missing"), "{missing}");
        Ok(())
    });
}

/// Seen to fail: with a buffer that does not grow.
#[test]
fn a_file_is_read_whole_whatever_its_size_says() {
    on_one_core(|| async {
        let dir = TempDir::new().await?;
        let path = dir.path().join("file");
        for len in [0, 1, 32 << 10, 100_000] {
            let written = fs::write(&path, pattern(0, len)).await?;
            assert!(fs::read(&path).await? == written, "{len} bytes");
        }
        fs::append(&path, pattern(100_000, 50)).await?;
        assert!(fs::read(&path).await? == pattern(0, 100_050));
        // A file whose size is told as 0.
        let status = fs::read_to_string("/proc/self/status").await?;
        assert!(status.contains("Threads:"));
        let tables = fs::read("/proc/self/smaps").await?;
        assert!(tables.len() > 4096, "{} bytes", tables.len());
        let file = File::open(&path, OpenOptions::new()).await?;
        let (n, buf) = file.read_to_end_at(b"head".to_vec(), 99_000).await?;
        assert!(n == 1050 && buf[..4] == *b"head" && buf[4..] == pattern(99_000, 1050));
        fs::write(&path, b"\xff\xfe").await?;
        let no_text = fs::read_to_string(&path).await.unwrap_err();
        assert_eq!(no_text.io_error().map(std::io::Error::kind), Some(std::io::ErrorKind::InvalidData));
        let missing = fs::read(dir.path().join("missing")).await.unwrap_err();
        assert!(missing.to_string().contains("missing"), "{missing}");
        Ok(())
    });
}

/// More buffers than one call takes. Seen to fail: with all of them given to one call.
#[test]
fn several_buffers_are_written_as_one() {
    on_one_core(|| async {
        let file = fs::temp_file().await?;
        let parts: Vec<Vec<u8>> = (0..3000).map(|i| pattern(i * 7, 7)).collect();
        let parts = file.write_all_vectored_at(parts, 100).await?;
        assert_eq!(parts.len(), 3000);
        let (head, body) = file.write_all_vectored_at(("head", vec![b'x'; 10]), 0).await?;
        assert_eq!((head, body.len()), ("head", 10));
        let (_, all) = file.read_to_end_at(Vec::new(), 0).await?;
        assert!(
            all.len() == 100 + 21_000 && all[..14] == *b"headxxxxxxxxxx" && all[100..] == pattern(0, 21_000)
        );
        let read_only = File::open("/proc/self/status", OpenOptions::new()).await?;
        let refused = read_only.write_all_vectored_at(["a", "b"], 0).await.unwrap_err();
        assert_eq!((errno(&refused.error), refused.buf), (Some(libc::EBADF), ["a", "b"]));
        Ok(())
    });
}

#[test]
fn a_cursor_goes_where_it_is_told_and_stays_where_that_is_nowhere() {
    on_one_core(|| async {
        let mut file = Cursor::new(fs::temp_file().await?);
        file.write_all(pattern(0, 1000)).await?;
        assert_eq!(file.seek(SeekFrom::End(-10)).await?, 990);
        let (n, rest) = file.read_to_end(Vec::new()).await?;
        assert!(n == 10 && rest == pattern(990, 10));
        assert_eq!(file.seek(SeekFrom::Current(-500)).await?, 500);
        assert!(file.read_exact(Vec::with_capacity(100), 100).await? == pattern(500, 100));
        for nowhere in [SeekFrom::Current(-601), SeekFrom::Start(u64::MAX), SeekFrom::Current(i64::MAX)] {
            assert_eq!(file.seek(nowhere).await.unwrap_err().kind(), ErrorKind::Input);
            assert_eq!(file.position(), 600);
        }
        let failed = file.read_exact(Vec::with_capacity(1000), 1000).await.unwrap_err();
        assert_eq!(failed.error.io_error().unwrap().kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(file.position(), 600);
        Ok(())
    });
}

/// Lines across the edges of the buffer, without an end, of two kinds, empty ones, and none that is text.
///
/// Seen to fail: with the beginning of a line that was read before dropped with the future.
#[test]
fn lines_are_read_whole_wherever_the_buffer_ends() {
    on_one_core(|| async {
        let dir = TempDir::new().await?;
        let path = dir.path().join("lines");
        let lines: Vec<String> = (0..200).map(|i| "x".repeat(i * 13 % 97)).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        for capacity in [1, 7, 96, 97, 64 << 10] {
            let cursor = Cursor::new(File::open(&path, OpenOptions::new()).await?);
            let mut reader = BufReader::with_capacity(capacity, cursor);
            let mut read = Vec::new();
            loop {
                // Each is dropped once on its way.
                {
                    let mut dropped = pin!(reader.next_line());
                    if let Poll::Ready(line) = dropped.as_mut().poll(&mut Context::from_waker(Waker::noop()))
                    {
                        match line? {
                            Some(line) => read.push(line),
                            None => break,
                        }
                        continue;
                    }
                }
                match reader.next_line().await? {
                    Some(line) => read.push(line),
                    None => break,
                }
            }
            assert!(read == lines, "{capacity} bytes at a time");
        }
        std::fs::write(&path, b"one\r\n\r\n\xff\ntwo\r").unwrap();
        let mut reader = BufReader::new(File::open(&path, OpenOptions::new()).await?);
        assert_eq!(reader.next_line().await?.as_deref(), Some("one"));
        assert_eq!(reader.next_line().await?.as_deref(), Some(""));
        assert!(reader.next_line().await.is_err());
        assert_eq!(reader.next_line().await?.as_deref(), Some("two\r"));
        assert_eq!(reader.next_line().await?, None);
        let mut reader = BufReader::new(File::open(&path, OpenOptions::new()).await?);
        let mut word = Vec::new();
        assert_eq!(reader.read_until(b'e', &mut word).await?, 3);
        assert_eq!(reader.fill_buf().await?[..2], *b"\r\n");
        assert_eq!(reader.read_until(b'#', &mut word).await?, 10);
        assert_eq!(reader.read_until(b'#', &mut word).await?, 0);
        assert_eq!(word, std::fs::read(&path).unwrap());
        Ok(())
    });
}

/// Seen to fail: with what is being written dropped with the flush.
#[test]
fn what_a_writer_has_taken_is_written_once_and_in_order() {
    on_one_core(|| async {
        let dir = TempDir::new().await?;
        let path = dir.path().join("log");
        let mut log = BufWriter::with_capacity(100, Cursor::new(File::create(&path).await?));
        let mut expected = String::new();
        for i in 0..500 {
            let line = format!("line {i}\n").repeat(i % 40);
            // Dropped on its way, it has taken nothing; it had nothing to wait for, or it is asked again.
            let taken = {
                let mut dropped = pin!(log.write_all(line.as_bytes()));
                dropped.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
            };
            if !taken {
                log.write_all(line.as_bytes()).await?;
            }
            expected += &line;
        }
        log.flush().await?;
        assert!(std::fs::read_to_string(&path).unwrap() == expected);
        log.write_all(b"the end").await?;
        drop(log.into_inner().await?);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("the end"));
        let mut log = BufWriter::new(File::open(&path, OpenOptions::new()).await?);
        log.write_all(b"x").await?;
        assert_eq!(errno(&log.flush().await.unwrap_err()), Some(libc::EBADF));
        assert!(log.flush().await.is_err(), "what was taken is kept");
        Ok(())
    });
}

/// Seen to fail: with what was read ahead kept over a write.
#[test]
fn a_file_is_a_stream_of_tokios() {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
    let len = bulk(1 << 20);
    on_one_core(move || async move {
        let mut file = FileIo::new(fs::temp_file().await?);
        file.write_all(&pattern(0, len)).await.unwrap();
        assert_eq!(file.seek(SeekFrom::End(0)).await.unwrap(), len as u64);
        file.rewind().await.unwrap();
        let mut head = [0; 10];
        file.read_exact(&mut head).await.unwrap();
        assert_eq!(head[..], pattern(0, 10));
        file.write_all(b"in the middle").await.unwrap();
        assert_eq!(file.position(), 23);
        file.read_exact(&mut head).await.unwrap();
        assert_eq!(head[..], pattern(23, 10));
        assert!(file.seek(SeekFrom::Current(-100)).await.is_err());
        assert_eq!(file.stream_position().await.unwrap(), 33);
        // A deadline around a read loses nothing.
        let cut = timeout(Duration::ZERO, file.read_u8()).await;
        let mut rest = if let Ok(first) = cut { vec![first.unwrap()] } else { Vec::new() };
        file.read_to_end(&mut rest).await.unwrap();
        assert!(rest == pattern(33, len - 33));
        file.rewind().await.unwrap();
        let mut all = Vec::new();
        assert_eq!(file.read_until(b'e', &mut all).await.unwrap(), 16);
        assert_eq!(all[10..], *b"in the");
        file.shutdown().await.unwrap();
        let cursor = file.into_inner();
        assert_eq!(cursor.position(), 16);
        Ok(())
    });
}

#[test]
fn a_file_is_a_stream_of_futures_io() {
    use futures_util::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, copy};
    on_one_core(|| async {
        let mut from = FileIo::new(fs::temp_file().await?);
        from.write_all(&pattern(0, 200_000)).await.unwrap();
        // Two seeks, of which the first is dropped.
        drop(from.seek(SeekFrom::End(0)));
        assert_eq!(from.seek(SeekFrom::Start(10)).await.unwrap(), 10);
        let mut to = FileIo::new(fs::temp_file().await?);
        assert_eq!(copy(&mut from, &mut to).await.unwrap(), 199_990);
        to.close().await.unwrap();
        to.seek(SeekFrom::Start(0)).await.unwrap();
        let mut all = Vec::new();
        to.read_to_end(&mut all).await.unwrap();
        assert!(all == pattern(10, 199_990));
        to.seek(SeekFrom::Start(0)).await.unwrap();
        assert_eq!(to.fill_buf().await.unwrap()[..5], pattern(10, 5));
        Ok(())
    });
}

/// By both sets of traits, on a file and on a pipe. Seen to fail: with the first part written alone.
#[test]
fn parts_are_written_together() {
    use futures_util::AsyncWriteExt as Futures;
    use tokio::io::{AsyncWrite as _, AsyncWriteExt as Tokio};
    on_one_core(|| async {
        let parts = [&b"head "[..], b"", b"body"].map(IoSlice::new);
        let mut file = FileIo::new(fs::temp_file().await?);
        assert!(file.is_write_vectored());
        assert_eq!(Tokio::write_vectored(&mut file, &parts).await.unwrap(), 9);
        assert_eq!(Futures::write_vectored(&mut file, &parts).await.unwrap(), 9);
        Tokio::flush(&mut file).await.unwrap();
        let (_, bytes) = file.get_ref().read_to_end_at(Vec::new(), 0).await?;
        assert_eq!(bytes, b"head bodyhead body");
        let (reader, writer) = annulus::pipe::pipe()?;
        let mut writer = FdIo::new(writer)?;
        assert_eq!(Futures::write_vectored(&mut writer, &parts).await.unwrap(), 9);
        Futures::close(&mut writer).await.unwrap();
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut FdIo::new(reader)?, &mut bytes).await.unwrap();
        assert_eq!(bytes, b"head body");
        Ok(())
    });
}

#[test]
fn a_temporary_directory_goes_wherever_it_is_dropped() {
    let (kept, dropped) = on_one_core(|| async {
        let parent = TempDir::new().await?;
        let inner = TempDir::new_in(parent.path()).await?;
        fs::write(inner.path().join("file"), "x").await?;
        let (gone, other) = (inner.path().to_owned(), TempDir::new().await?);
        assert_ne!(gone, other.path());
        inner.remove().await?;
        assert!(!gone.exists() && other.path().exists());
        let missing = TempDir::new_in(parent.path().join("missing")).await.unwrap_err();
        assert!(missing.to_string().contains("missing"), "{missing}");
        let kept = TempDir::new().await?.keep();
        Ok((kept, other))
    });
    assert!(kept.exists());
    std::fs::remove_dir(&kept).unwrap();
    // Here is no core; the one above it was dropped on one.
    let path = dropped.path().to_owned();
    drop(dropped);
    assert!(!path.exists());
}

/// A closure that no thread has begun when the runtime ends is dropped. Seen to fail: with the directory
/// removed by the closure and not by what is in it.
#[test]
fn a_temporary_directory_that_is_dropped_with_its_core_goes_though_every_thread_is_busy() {
    let (tell, told) = std::sync::mpsc::channel();
    let kept = Mutex::new(Some(tell));
    let settings = on_first_cpu(small().blocking_threads(1));
    let root = move || {
        let tell = kept.lock().unwrap().take().unwrap();
        async move {
            let [dropped, removed] = [TempDir::new().await?, TempDir::new().await?];
            for dir in [&dropped, &removed] {
                tell.send(dir.path().to_owned()).unwrap();
            }
            // The one thread works until the second closure, which is never begun, is dropped: that is when
            // those that wait are.
            let (end, ended) = std::sync::mpsc::channel::<()>();
            spawn_blocking(move || ended.recv().unwrap_err()).detach();
            spawn_blocking(move || drop(end)).detach();
            let mut remove = Box::pin(removed.remove());
            poll_fn(|cx| {
                assert!(remove.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            spawn(async {
                let _dropped = dropped;
                pending::<()>().await;
            })
            .detach();
            annulus::Ok(())
        }
    };
    settings.build().unwrap().run(root).unwrap();
    let there: Vec<_> = told.iter().filter(|path| path.exists()).collect();
    assert!(there.is_empty(), "{there:?}");
}
