//! `annulus serve` keeps files open for a moment. Nobody may notice: what a name stands for now is what is
//! sent.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::Client;
use annulus_integration_tests::server::Launch;
use annulus_integration_tests::{cpus, procfs, watch};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const NAME: &str = "kept.txt";

/// Asks so often that the file is certainly kept open, and checks what comes.
#[track_caller]
fn warm(client: &mut Client, content: &[u8]) {
    for _ in 0..4 {
        let response = client.get("/kept.txt");
        assert_eq!((response.head.status, &*response.body), (200, content));
    }
}

/// Each of these changes is seen by the very next request, on a connection that has asked before.
///
/// Seen to fail: with `find` believing its table without a look at the name, at the first change.
#[test]
fn a_change_is_seen_by_the_next_request() {
    let tree = Tree::new();
    let path = tree.at(NAME);
    let beside = tree.at("beside");
    fs::write(&path, "first").unwrap();
    let server = Launch::serve(tree.root()).cores(&cpus::list(&cpus::allowed()[..1])).start();
    let mut client = Client::connect(server.addr());
    warm(&mut client, b"first");

    // The same size and name, another file.
    fs::write(&beside, "other").unwrap();
    fs::rename(&beside, &path).unwrap();
    warm(&mut client, b"other");

    // The same file, written to in its place: longer, shorter, and with other bytes of the same number.
    File::options().append(true).open(&path).unwrap().write_all(b" and more").unwrap();
    warm(&mut client, b"other and more");
    File::options().write(true).open(&path).unwrap().set_len(3).unwrap();
    warm(&mut client, b"oth");
    File::options().write(true).open(&path).unwrap().write_all(b"OTH").unwrap();
    warm(&mut client, b"OTH");

    // The name for another kind of thing, for nothing, and for a file again.
    fs::remove_file(&path).unwrap();
    assert_eq!(client.get("/kept.txt").head.status, 404);
    fs::create_dir(&path).unwrap();
    assert_eq!(client.get("/kept.txt").head.status, 301);
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "again").unwrap();
    warm(&mut client, b"again");

    // A link out of the root, to the very file. Moving it changes it, but in the tick of its last change
    // nobody sees that: then it is seen within a second.
    let outside = Tree::new();
    fs::rename(&path, outside.at(NAME)).unwrap();
    symlink(outside.at(NAME), &path).unwrap();
    watch::until("what lies outside is not found", || {
        (client.get("/kept.txt").head.status == 404).then_some(())
    });
    server.stop();
}

/// Permissions count for who is not root, and are looked at for everyone: a file that may not be read is not
/// sent because it could be read a moment ago.
#[test]
fn a_file_that_may_not_be_read_any_more_is_not_sent() {
    let tree = Tree::new();
    let path = tree.at(NAME);
    fs::write(&path, "secret").unwrap();
    let server = Launch::serve(tree.root()).cores(&cpus::list(&cpus::allowed()[..1])).start();
    let mut client = Client::connect(server.addr());
    warm(&mut client, b"secret");
    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    let status = client.get("/kept.txt").head.status;
    if File::open(&path).is_ok() {
        eprintln!("note: this user may read everything, so nothing is forbidden here");
        assert_eq!(status, 200);
    } else {
        assert_eq!(status, 403);
    }
    server.stop();
}

/// Seen to fail: with `sweep` not spawned, until the limit of `watch`.
#[test]
fn a_file_that_nobody_asks_for_any_more_is_closed() {
    let tree = Tree::new();
    let path = tree.at(NAME);
    fs::write(&path, "first").unwrap();
    let server = Launch::serve(tree.root()).cores(&cpus::list(&cpus::allowed()[..1])).start();
    let before = procfs::open_files(server.pid());
    let mut client = Client::connect(server.addr());
    warm(&mut client, b"first");
    // Its name is gone, so only a descriptor could keep its blocks on the disk.
    fs::remove_file(&path).unwrap();
    drop(client);
    watch::until("the server has as many open files as before anybody came", || {
        (procfs::open_files(server.pid()) == before).then_some(())
    });
    server.stop();
}

/// On a file system that is not known to be local a look at a name could wait for a server: nothing there is
/// kept. procfs stands for those, its files are empty to `stat`.
///
/// Seen to fail: with `keep` not asking for the device.
#[test]
fn a_file_of_a_file_system_that_is_not_local_is_not_kept() {
    let root = Path::new("/proc/sys/kernel");
    let server = Launch::serve(root).cores(&cpus::list(&cpus::allowed()[..1])).start();
    let mut client = Client::connect(server.addr());
    assert_eq!(client.get("/none").head.status, 404);
    let before = procfs::open_files(server.pid());
    for _ in 0..4 {
        assert_eq!(client.get("/ostype").head.status, 200);
    }
    // With the next answer the last one is over and done with.
    assert_eq!(client.get("/none").head.status, 404);
    assert_eq!(procfs::open_files(server.pid()), before);
    server.stop();
}

/// What is held is neither opened nor read again: a second of requests reads what one request reads.
///
/// Seen to fail: with `find` that finds nothing.
#[test]
fn what_is_held_is_not_read_again() {
    let tree = Tree::new();
    let content = vec![b'x'; 4000];
    fs::write(tree.at(NAME), &content).unwrap();
    let server = Launch::serve(tree.root()).cores(&cpus::list(&cpus::allowed()[..1])).start();
    let mut client = Client::connect(server.addr());
    warm(&mut client, &content);
    let before = procfs::read_by_calls(server.pid());
    let begun = std::time::Instant::now();
    for _ in 0..1000 {
        assert_eq!(client.get("/kept.txt").body, content);
    }
    // It is looked at each second, by a stat that reads nothing; a tag that settles has it read once more.
    let most = 4001 * (2 + begun.elapsed().as_secs());
    let read = procfs::read_by_calls(server.pid()) - before;
    assert!(read <= most, "{read} bytes were read for 1000 requests");
    server.stop();
}

/// Asks for the file, and has something happen to it while it is sent: the sockets' buffers hold a few MiB of
/// it.
#[track_caller]
fn half_sent(server: &annulus_integration_tests::server::Server, len: u64) -> Client {
    let mut client = Client::connect(server.addr());
    client.send(annulus_integration_tests::http::get("/large.bin")).unwrap();
    assert_eq!(client.head().unwrap().content_length(), len);
    client
}

/// Seen to fail: without the look at the file after each step.
#[test]
fn a_file_that_is_written_to_while_it_is_sent_is_cut() {
    use std::os::unix::fs::FileExt;
    const LEN: u64 = 64 << 20;
    for road in ["ring", "inline"] {
        let tree = Tree::new();
        tree.sparse("large.bin", LEN);
        let file = File::options().write(true).open(tree.at("large.bin")).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60)).unwrap();
        let server = Launch::serve(tree.root()).road(road).start();
        let mut client = half_sent(&server, LEN);
        file.write_all_at(b"another version", LEN / 2).unwrap();
        let came = client.read_to_close().unwrap();
        assert!(came < LEN, "{came} bytes by {road}");
        let ended = server.stop();
        assert!(ended.err.iter().any(|line| line.contains("large.bin")), "{ended:#?}");
    }
}

#[test]
fn a_file_that_is_replaced_or_removed_while_it_is_sent_is_sent_as_it_was() {
    const LEN: u64 = 64 << 20;
    let tree = Tree::new();
    let sample = tree.file("large.bin", LEN);
    tree.file("other.bin", LEN);
    let server = Launch::serve(tree.root()).start();
    let mut replaced = half_sent(&server, LEN);
    fs::rename(tree.at("other.bin"), tree.at("large.bin")).unwrap();
    let mut removed = half_sent(&server, LEN);
    fs::remove_file(tree.at("large.bin")).unwrap();
    assert_eq!(replaced.body_sum(LEN).unwrap(), sample.sum);
    assert_ne!(removed.body_sum(LEN).unwrap(), sample.sum);
    // Both connections are in step.
    for client in [&mut replaced, &mut removed] {
        assert_eq!(client.get("/large.bin").head.status, 404);
    }
    server.stop();
}

/// More files than may be held, small and large, asked for again and again: each answer is right, and
/// descriptors stay few.
#[test]
fn a_cache_that_is_too_small_serves_as_well() {
    let tree = Tree::new();
    let samples: Vec<_> = (0..200)
        .map(|i| tree.file(&format!("{i}.bin"), if i % 3 == 0 { 100_000 } else { 3000 + i }))
        .collect();
    for size in ["0", "0,0", "64K,20000", "64M,10", "1M,100"] {
        let server = Launch::serve(tree.root()).args(["--cache", size]).start();
        let before = procfs::open_files(server.pid());
        let mut client = Client::connect(server.addr());
        for round in 0..4 {
            for (i, sample) in samples.iter().enumerate().skip(round) {
                let body = client.get(&sample.path).body;
                assert_eq!(annulus_integration_tests::digest::of(&body), sample.sum, "{i} with {size}");
            }
        }
        let open = procfs::open_files(server.pid());
        let most = if size.starts_with('0') { 0 } else { 100 };
        assert!(open <= before + most + 8, "{open} open files with {size}, {before} before");
        server.stop();
    }
}

/// Half of the descriptors are for connections, and files whose content is in memory are kept open with no
/// more than half of the rest.
#[test]
fn open_files_take_no_more_than_half_of_the_descriptors() {
    const FILES: u64 = 256;
    let tree = Tree::new();
    for (len, most) in [(70_000, FILES / 2), (3000, FILES / 4)] {
        let samples: Vec<_> = (0..300).map(|i| tree.file(&format!("{len}-{i}.bin"), len + i)).collect();
        let server = Launch::serve(tree.root()).open_files(FILES).start();
        let mut client = Client::connect(server.addr());
        for sample in &samples {
            assert_eq!(client.get(&sample.path).body.len() as u64, sample.sum.len);
        }
        // The last one that was sent, and is not kept, is closed a little later than its client has it.
        let open = watch::until("no more files are open than may be kept", || {
            let open = procfs::open_under(server.pid(), tree.root());
            (open <= most as usize).then_some(open)
        });
        assert!(open > 0, "no file of {len} bytes is kept open");
        server.stop();
    }
}

/// The budget is one of all cores of a node: a core alone may use all of it, and together they use no more.
/// Open files tell, since each core has its own, also of what both of them hold.
#[test]
fn the_budget_of_a_node_is_shared_by_its_cores() {
    const MOST: usize = 100;
    // The two are on one node, or the test has nothing to say: there each node has its own budget.
    let cpus = cpus::of_one_node(2);
    if cpus.len() < 2 {
        eprintln!("note: no node has two CPUs for this test");
        return;
    }
    let tree = Tree::new();
    let files = |name: &str| -> Vec<String> {
        (0..MOST).map(|i| tree.file(&format!("{name}{i}.bin"), 20_000).path).collect()
    };
    let (here, there) = (files("here"), files("there"));
    let size = format!("64M,{MOST}");
    let launch = Launch::serve(tree.root()).cores(&cpus::list(&cpus)).args(["--cache", &size]);
    let server = launch.open_files(1024).start();
    let ask = |client: &mut Client, paths: &[String]| {
        for path in paths {
            assert_eq!(client.get(path).body.len(), 20_000);
        }
    };
    let open = || procfs::open_files(server.pid());

    let mut first = Client::connect(server.addr());
    ask(&mut first, &here[..1]);
    // What the first core holds open, another one opens for itself.
    let mut others = Vec::new();
    let mut second = loop {
        let before = open();
        let mut client = Client::connect(server.addr());
        ask(&mut client, &here[..1]);
        if open() > before + 1 {
            break client;
        }
        assert!(others.len() < 64, "all connections come to one core");
        others.push(client);
    };
    drop(others);

    ask(&mut first, &here);
    ask(&mut first, &here);
    let alone = procfs::open_under(server.pid(), tree.root());
    assert!(alone > MOST * 3 / 4, "one core holds {alone} of {MOST}");
    for _ in 0..3 {
        ask(&mut second, &there);
    }
    // Files that had to leave are closed within a second or two.
    watch::until("both cores hold no more than one budget", || {
        (procfs::open_under(server.pid(), tree.root()) <= MOST + 8).then_some(())
    });
    server.stop();
}

/// A directory that is moved away, with what is in it, and another in its place.
#[test]
fn a_directory_that_is_replaced_is_seen() {
    let tree = Tree::new();
    for dir in ["a", "b"] {
        tree.dir(&format!("{dir}/sub"));
        fs::write(tree.at(&format!("{dir}/sub/{NAME}")), dir).unwrap();
    }
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    for _ in 0..4 {
        assert_eq!(client.get("/a/sub/kept.txt").body, b"a");
    }
    fs::rename(tree.at("a"), tree.at("gone")).unwrap();
    fs::rename(tree.at("b"), tree.at("a")).unwrap();
    watch::until("the other directory is served", || {
        (client.get("/a/sub/kept.txt").body == b"b").then_some(())
    });
    server.stop();
}
