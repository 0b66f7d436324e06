//! Files and directories.

mod common;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use annulus::ErrorKind;
use annulus::buf::Block;
use annulus::fs::{Advice, Dir, File, FileKind, OpenOptions};
use common::on_one_core;

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

#[test]
fn length_holes_and_what_is_known_of_a_file() {
    let place = Place::new();
    let path = place.path("file");
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
        match file.allocate(80_000..200_000).await {
            Ok(()) => assert_eq!(file.stat().await?.size, 200_000),
            Err(e) => assert_eq!(errno(&e), Some(libc::EOPNOTSUPP)),
        }
        match file.punch_hole(0..65_536).await {
            Ok(()) => {
                let start = file.read_exact_at(Vec::with_capacity(65_536), 65_536, 0).await?;
                assert!(start.iter().all(|byte| *byte == 0));
                assert!(file.stat().await?.size >= 80_000);
            }
            Err(e) => assert_eq!(errno(&e), Some(libc::EOPNOTSUPP)),
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
        assert_eq!(errno(&file.set_len(u64::MAX).await.unwrap_err()), Some(libc::EINVAL));
        file.set_len(1).await?;
        assert_eq!(std::fs::read(&path)?, [0]);
        Ok(())
    });
}

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

/// Seen to fail: with `place` giving the directory itself and the whole path to the kernel, the first call reaches outside.
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
