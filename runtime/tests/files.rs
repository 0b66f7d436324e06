//! Files and directories.

mod common;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use annulus::ErrorKind;
use annulus::buf::Block;
use annulus::fs::{Advice, Dir, File, FileKind, OpenOptions};
use common::on_one_core;
use rustix::fs::FallocateFlags;

/// A directory of its own for a test, removed with all in it.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("annulus-files-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn errno(e: &annulus::Error) -> Option<i32> {
    e.io_error().and_then(std::io::Error::raw_os_error)
}

fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn bytes_are_written_and_read_where_they_were_asked_for() {
    let place = Place::new();
    let path = place.path("file");
    on_one_core(move || async move {
        let file = File::create(&path).await?;
        let (n, back) = file.write_at(b"0123456789".to_vec(), 5).await?;
        assert_eq!((n, back.as_slice()), (10, &b"0123456789"[..]));
        file.write_all_at("abc", 0).await?;
        let buf = file.read_exact_at(Vec::with_capacity(100), 15, 0).await?;
        assert_eq!(buf, b"abc\0\x000123456789");
        // Only as much as was asked for, behind what the buffer holds.
        let buf = file.read_exact_at(buf, 2, 5).await?;
        assert_eq!(buf[15..], *b"01");
        let e = file.read_exact_at(Vec::with_capacity(100), 16, 0).await.unwrap_err();
        assert_eq!(e.error.io_error().unwrap().kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(e.buf.len(), 15, "what came comes back");
        let e = file.read_exact_at(Vec::with_capacity(1), 100, 0).await.unwrap_err();
        assert_eq!(e.error.kind(), ErrorKind::Input);
        let (n, _) = file.read_at(Vec::with_capacity(1), 15).await?;
        assert_eq!(n, 0, "the end of the file");
        let appended = File::open(&path, OpenOptions::new().write(true).append(true)).await?;
        appended.write_all_at("!", 0).await?;
        assert_eq!(std::fs::read(&path)?, b"abc\0\x000123456789!");
        let e = File::open(&path, OpenOptions::new().write(true).create_new(true)).await.unwrap_err();
        assert_eq!(errno(&e), Some(libc::EEXIST));
        Ok(())
    });
}

/// Seen to fail: with the number of another registered buffer.
#[test]
fn blocks_are_filled_and_written_from_registered_memory() {
    let place = Place::new();
    let path = place.path("file");
    on_one_core(move || async move {
        let file = File::create(&path).await?;
        let mut block = Block::take().unwrap();
        let content: Vec<u8> = (0..block.capacity()).map(|i| (i % 251) as u8).collect();
        assert_eq!(block.extend_from_slice(&content), content.len());
        drop(file.write_all_at(block, 3).await?);
        assert_eq!(std::fs::read(&path)?[3..], content);
        let mut block = Block::take().unwrap();
        block.extend_from_slice(b"head");
        let block = file.read_exact_at(block, 1000, 3).await?;
        assert_eq!((&block[..4], &block[4..]), (&b"head"[..], &content[..1000]));
        Ok(())
    });
}

/// Whether the file system can do this, asked by a system call.
fn can(path: &Path, what: FallocateFlags) -> bool {
    rustix::fs::fallocate(std::fs::File::create(path).unwrap(), what, 0, 4096).is_ok()
}

/// Seen to fail: without `FALLOC_FL_KEEP_SIZE` the kernel punches no hole.
#[test]
fn length_holes_and_what_is_known_of_a_file() {
    let place = Place::new();
    let (path, other) = (place.path("file"), place.path("other"));
    on_one_core(move || async move {
        let file = File::create(&path).await?;
        file.write_all_at(vec![7; 100_000], 0).await?;
        file.sync_data().await?;
        file.set_len(70_000).await?;
        let stat = file.stat().await?;
        assert_eq!((stat.kind, stat.size, stat.links), (FileKind::Regular, 70_000, 1));
        let now = file.stat_now()?;
        assert_eq!(
            (now.size, now.allocated, now.inode, now.device),
            (70_000, stat.allocated, stat.inode, stat.device)
        );
        assert_eq!((now.modified, now.mode, now.owner), (stat.modified, stat.mode, stat.owner));
        file.set_len(80_000).await?;
        let tail = file.read_exact_at(Vec::with_capacity(10_000), 10_000, 70_000).await?;
        assert!(tail.iter().all(|byte| *byte == 0), "what was cut off does not come back");
        if can(&other, FallocateFlags::empty()) {
            file.allocate(80_000..200_000).await?;
            assert_eq!(file.stat().await?.size, 200_000);
        } else {
            assert_eq!(errno(&file.allocate(0..1).await.unwrap_err()), Some(libc::EOPNOTSUPP));
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if can(&other, punch) {
            let size = file.stat().await?.size;
            file.punch_hole(0..65_536).await?;
            let start = file.read_exact_at(Vec::with_capacity(65_536), 65_536, 0).await?;
            assert!(start.iter().all(|byte| *byte == 0));
            file.punch_hole(size..size + 4096).await?;
            assert_eq!(file.stat().await?.size, size);
        } else {
            assert_eq!(errno(&file.punch_hole(0..1).await.unwrap_err()), Some(libc::EOPNOTSUPP));
        }
        file.sync_all().await?;
        for advice in [Advice::Sequential, Advice::WillNeed, Advice::DontNeed, Advice::Random, Advice::Normal]
        {
            file.advise(0..(5 << 30), advice).await?;
            file.advise(0..u64::MAX, advice).await?;
        }
        let reading = File::open(&path, OpenOptions::new()).await?;
        assert_eq!(
            errno(&reading.set_len(0).await.unwrap_err()),
            Some(libc::EINVAL),
            "not opened for writing"
        );
        let refused = file.set_len(u64::MAX).await.unwrap_err();
        assert_eq!(
            (refused.kind(), errno(&refused)),
            (ErrorKind::Input, None),
            "no call of the kernel was made"
        );
        file.set_len(1).await?;
        assert_eq!(std::fs::read(&path)?, [0]);
        Ok(())
    });
}

/// Seen to fail: with nothing checked beforehand the kernel's `EINVAL` says nothing.
#[test]
fn direct_io_takes_blocks_and_says_what_is_misaligned() {
    let place = Place::new();
    let path = place.path("file");
    on_one_core(move || async move {
        let options = OpenOptions::new().write(true).create(true).direct(true);
        let file = match File::open(&path, options).await {
            // A tmpfs before Linux 6.6.
            Err(e) if errno(&e) == Some(libc::EINVAL) => return Ok(()),
            opened => opened?,
        };
        let unit = file.alignment().expect("opened direct").offset;
        assert!(unit.is_power_of_two() && unit <= 4096, "{unit}");
        let mut block = Block::take().unwrap();
        block.extend_from_slice(&[9; 8192]);
        let block = file.write_all_at(block, 0).await?;
        let mut empty = block;
        empty.clear();
        let (n, block) = file.read_at(empty, 4096).await?;
        assert_eq!((n, &*block), (4096, &[9; 4096][..]), "the file's end is no misalignment");
        let refused = |e: annulus::buf::BufError<Block>, word: &str| {
            assert_eq!((e.error.kind(), errno(&e.error)), (ErrorKind::Input, Some(libc::EINVAL)));
            assert!(e.error.to_string().contains(word), "{}", e.error);
            e.buf
        };
        let mut block = block;
        block.clear();
        if unit > 1 {
            let mut block = refused(file.read_at(block, 1).await.unwrap_err(), "offset 1 ");
            block.extend_from_slice(&[1; 100]);
            let mut block = refused(file.write_at(block, 0).await.unwrap_err(), "length of 100 ");
            block.truncate(1);
            if file.alignment().unwrap().memory > 1 {
                refused(file.read_at(block, 0).await.unwrap_err(), "buffer");
            }
        }
        Ok(())
    });
}

#[test]
fn names_are_made_moved_listed_and_removed_beneath_a_directory() {
    let place = Place::new();
    let root = place.0.clone();
    on_one_core(move || async move {
        let dir = Dir::open(&root).await?;
        dir.create_dir("a", 0o755).await?;
        dir.create_dir("a/b", 0o755).await?;
        assert_eq!(errno(&dir.create_dir("a/b", 0o755).await.unwrap_err()), Some(libc::EEXIST));
        let making = OpenOptions::new().write(true).create(true);
        dir.open_beneath("a/b/file", making).await?.write_all_at("x", 0).await?;
        let a = dir.open_dir("a").await?;
        assert_eq!(a.stat("b/file").await?.size, 1);
        dir.rename("a/b/file", &a, "moved").await?;
        a.sync().await?;
        assert_eq!(names(&root.join("a")), ["b", "moved"]);
        let mut listed = dir.read_dir("a").await?;
        listed.sort_by(|x, y| x.name.cmp(&y.name));
        let kinds: Vec<_> = listed.iter().map(|e| (e.name.to_str().unwrap(), e.kind)).collect();
        assert_eq!(kinds, [("b", Some(FileKind::Directory)), ("moved", Some(FileKind::Regular))]);
        assert_eq!(listed[1].inode, a.stat("moved").await?.inode);
        assert_eq!(errno(&dir.remove_dir("a").await.unwrap_err()), Some(libc::ENOTEMPTY));
        assert_eq!(errno(&dir.remove_file("a/b").await.unwrap_err()), Some(libc::EISDIR));
        a.remove_file("moved").await?;
        dir.remove_dir("a/b").await?;
        dir.remove_dir("a").await?;
        assert!(dir.read_dir(".").await?.is_empty());
        Ok(())
    });
}

/// Seen to fail: with the last part of the path taken from `Path::components`, the file is removed.
#[test]
fn a_slash_at_the_end_asks_for_a_directory() {
    let place = Place::new();
    let root = place.0.clone();
    on_one_core(move || async move {
        let dir = Dir::open(&root).await?;
        dir.create_dir("d//", 0o700).await?;
        std::fs::write(root.join("d/f"), "kept")?;
        symlink("d", root.join("l"))?;
        let not_a_directory = Some(libc::ENOTDIR);
        assert_eq!(errno(&dir.remove_file("d/f/").await.unwrap_err()), not_a_directory);
        assert_eq!(errno(&dir.rename("d/f/", &dir, "g").await.unwrap_err()), not_a_directory);
        assert_eq!(errno(&dir.rename("d/f", &dir, "g/").await.unwrap_err()), not_a_directory);
        assert_eq!(errno(&dir.remove_file("d/").await.unwrap_err()), Some(libc::EISDIR));
        assert_eq!(errno(&dir.remove_dir("l/").await.unwrap_err()), not_a_directory);
        for none in ["d/f/.", "d/f/..", "d/."] {
            assert_eq!(errno(&dir.remove_file(none).await.unwrap_err()), Some(libc::EINVAL), "{none}");
        }
        assert_eq!(std::fs::read(root.join("l/f"))?, b"kept");
        dir.remove_file("d//f").await?;
        dir.rename("d/", &dir, "e/").await?;
        dir.remove_dir("e/").await?;
        assert_eq!(names(&root), ["l"]);
        Ok(())
    });
}

/// Seen to fail: with `place` giving the directory itself and the whole path to the kernel, the first call
/// reaches outside.
#[test]
fn nothing_leads_out_of_a_directory() {
    let place = Place::new();
    let root = place.0.clone();
    on_one_core(move || async move {
        std::fs::create_dir(root.join("in"))?;
        std::fs::create_dir(root.join("out"))?;
        std::fs::write(root.join("out/file"), "secret")?;
        symlink("../out", root.join("in/link"))?;
        let dir = Dir::open(root.join("in")).await?;
        let xdev = Some(libc::EXDEV);
        assert_eq!(errno(&dir.remove_file("link/file").await.unwrap_err()), xdev);
        assert_eq!(errno(&dir.create_dir("link/new", 0o700).await.unwrap_err()), xdev);
        assert_eq!(errno(&dir.rename("link/file", &dir, "mine").await.unwrap_err()), xdev);
        assert_eq!(errno(&dir.remove_file("../out/file").await.unwrap_err()), xdev);
        assert_eq!(errno(&dir.remove_file(root.join("out/file")).await.unwrap_err()), xdev);
        assert_eq!(errno(&dir.read_dir("..").await.unwrap_err()), xdev);
        assert_eq!(errno(&dir.stat("link/file").await.unwrap_err()), xdev);
        for none in ["", ".", "..", "a/..", "/"] {
            assert_eq!(errno(&dir.remove_dir(none).await.unwrap_err()), Some(libc::EINVAL), "{none:?}");
        }
        // The link itself is in the directory.
        dir.remove_file("link").await?;
        assert_eq!(names(&root.join("in")), [""; 0]);
        assert_eq!(names(&root.join("out")), ["file"]);
        Ok(())
    });
}

fn is_in_memory_only(path: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    matches!(rustix::fs::statfs(path).unwrap().f_type as u64, TMPFS | RAMFS)
}

/// Seen to fail: without `RWF_NOWAIT`, pages that were dropped are read all the same.
#[test]
fn what_is_in_memory_is_read_at_once_and_nothing_else_is() {
    let place = Place::new();
    let path = place.path("file");
    std::fs::write(&path, vec![7; 20_000]).unwrap();
    let memory_only = is_in_memory_only(&path);
    on_one_core(move || async move {
        let file = File::open(&path, OpenOptions::new().write(true)).await?;
        let mut block = Block::take().expect("a fresh pool");
        block.extend_from_slice(b"head");
        match file.read_now(&mut block, 5_000)? {
            Some(n) => {
                assert_eq!((n, block.len()), (15_000, 15_004));
                assert!(block[4..].iter().all(|&b| b == 7) && block[..4] == *b"head");
                assert_eq!(file.read_now(&mut block, 20_000)?, Some(0), "the end");
            }
            None => assert!(memory_only, "it was just written"),
        }
        assert!(file.is_cached(0, 20_000));
        if memory_only {
            println!("skipped: TMPDIR is in memory");
            return Ok(());
        }
        file.sync_all().await?;
        file.advise(0..u64::MAX, Advice::DontNeed).await?;
        assert!(!file.is_cached(0, 20_000));
        // Since it has been asked for, the kernel may begin to read it.
        assert_eq!(file.read_now(&mut block, 0)?, None);
        Ok(())
    });
}

/// Seen to fail: with `open_now` finding nothing, by a hundred SQEs.
#[test]
fn a_name_in_memory_is_opened_without_the_ring() {
    let place = Place::new();
    std::fs::write(place.path("file"), "x").unwrap();
    let root = place.0.clone();
    on_one_core(move || async move {
        let dir = Dir::open(&root).await?;
        dir.open_beneath("file", OpenOptions::new()).await?;
        annulus::yield_now().await;
        let before = annulus::cores::counters().sqes;
        for _ in 0..100 {
            dir.open_beneath("file", OpenOptions::new()).await?;
        }
        let e = dir.open_beneath("file/of/a/file", OpenOptions::new()).await.unwrap_err();
        assert_eq!(errno(&e), Some(libc::ENOTDIR));
        let sqes = annulus::cores::counters().sqes - before;
        assert!(sqes < 100, "{sqes} SQEs");
        Ok(())
    });
}

/// Seen to fail, once the FIFO has got its writer: with the name in memory opened as it was asked for, the
/// core stands still. And with `O_NONBLOCK` kept.
#[test]
fn a_fifo_whose_name_is_in_memory_holds_no_core_up() {
    let place = Place::new();
    let fifo = place.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let rescuer = std::thread::spawn(move || {
        let waited = ended.recv_timeout(std::time::Duration::from_secs(20));
        let rescued = waited == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        // Who reads and writes waits for nobody, and nobody waits for another any more.
        drop(rescued.then(|| std::fs::File::options().read(true).write(true).open(&fifo)));
        rescued
    });
    let root = place.0.clone();
    on_one_core(move || async move {
        let dir = Dir::open(&root).await?;
        for nonblock in [false, true] {
            dir.stat("fifo").await?;
            let opened = dir.open_beneath("fifo", OpenOptions::new().nonblock(nonblock)).await?;
            let flags = rustix::fs::fcntl_getfl(&opened).unwrap();
            assert_eq!(flags.contains(rustix::fs::OFlags::NONBLOCK), nonblock);
        }
        drop(done);
        Ok(())
    });
    assert!(!rescuer.join().unwrap(), "the core waited for a writer");
}

#[test]
fn a_name_tells_whether_it_stands_for_the_same_file_unchanged() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let (path, other) = (place.path("file"), place.path("other"));
    std::fs::write(&path, "x").unwrap();
    std::fs::write(&other, "y").unwrap();
    symlink("file", place.path("link")).unwrap();
    let root = place.0.clone();
    on_one_core(move || async move {
        let dir = Dir::open(&root).await?;
        let file = dir.open_beneath("file", OpenOptions::new()).await?;
        let known = file.stat_now()?;
        assert!(dir.stat_now("file")?.is_unchanged(&known));
        assert!(dir.stat_now("link")?.is_unchanged(&known), "links are followed");
        assert!(file.stat().await?.is_unchanged(&known), "statx(2) and fstat(2) agree");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400))?;
        assert!(!dir.stat_now("file")?.is_unchanged(&known));
        let known = file.stat_now()?;
        std::fs::rename(&other, &path)?;
        assert!(!dir.stat_now("file")?.is_unchanged(&known));
        std::fs::remove_file(&path)?;
        assert_eq!(errno(&dir.stat_now("file").unwrap_err()), Some(libc::ENOENT));
        Ok(())
    });
}
