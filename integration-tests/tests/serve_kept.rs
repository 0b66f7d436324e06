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
