//! The command line: what is refused as bad input, with exit code 2 and one line that names it.

use annulus_integration_tests::cpus;
use annulus_integration_tests::files::Tree;
use annulus_integration_tests::server::Launch;
use std::path::Path;

#[test]
fn a_root_that_is_no_directory() {
    let tree = Tree::new();
    tree.file("file.txt", 10);
    tree.fifo("fifo");
    tree.link("nowhere", "not-there");
    for name in ["missing", "file.txt", "fifo", "nowhere", "file.txt/below"] {
        let root = tree.at(name);
        let ended = Launch::serve(&root).run();
        let line = ended.one_line(2);
        assert!(line.contains(&root.display().to_string()), "{line:?} names {}", root.display());
    }
}

#[test]
fn a_root_that_may_not_be_entered() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        eprintln!("note: root may enter every directory; run the tests as another user to see this one");
        return;
    }
    let tree = Tree::new();
    tree.dir("closed");
    let mode = std::fs::Permissions::from_mode;
    std::fs::set_permissions(tree.at("closed"), mode(0o000)).expect("chmod of our own directory");
    let ended = Launch::serve(&tree.at("closed")).run();
    std::fs::set_permissions(tree.at("closed"), mode(0o700)).expect("chmod of our own directory");
    ended.one_line(2);
}

#[test]
fn flags_and_commands_that_are_not_there() {
    let tree = Tree::new();
    let wrong: &[&[&str]] = &[
        &["serve", "--no-such-flag"],
        &["serve", "--road", "rail"],
        &["serve", "--road"],
        &["serve", "--steer", "left"],
        &["serve", "--cores"],
        &["serve", "one", "two"],
        &["proxy"],
        &["proxy", "--to"],
        &["proxy", "--to", "127.0.0.1:1", "--road", "rail"],
        &["topology", "--no-such-flag"],
        &["no-such-command"],
        &["--no-such-flag"],
    ];
    for args in wrong {
        let ended = args.iter().fold(Launch::new().within(tree.root()), |launch, arg| launch.arg(arg)).run();
        let line = ended.one_line(2);
        let last = args.last().expect("an argument");
        assert!(line.contains(last) || *last == "two" || line.contains("--to"), "{line:?} is about {args:?}");
        assert!(ended.out.is_empty(), "{ended:#?}");
    }
    assert_eq!(Launch::new().run().code(), 2, "no command at all");
}

#[test]
fn addresses_that_are_none() {
    let tree = Tree::new();
    for addr in ["", "nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", "300.0.0.1:80", "[::1:80"] {
        let line = Launch::serve(tree.root()).listen(addr).run().one_line(2).to_owned();
        assert!(line.contains(addr), "{line:?} names {addr:?}");
        let line = Launch::new()
            .arg("proxy")
            .arg("--to")
            .arg(addr)
            .listen("127.0.0.1:0")
            .run()
            .one_line(2)
            .to_owned();
        assert!(line.contains(addr), "{line:?} names {addr:?}");
    }
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let tree = Tree::new();
    // TEST-NET-1 (RFC 5737): nobody has it.
    let line = Launch::serve(tree.root()).listen("192.0.2.1:0").run().one_line(2).to_owned();
    assert!(line.contains("192.0.2.1"), "{line:?} names the address");
}

#[test]
fn cpus_that_do_not_exist() {
    let tree = Tree::new();
    for list in ["4096", "0,4096", "0-4096"] {
        let line = Launch::serve(tree.root()).cores(list).run().one_line(2).to_owned();
        let first_missing = if list == "0-4096" { "" } else { "4096" };
        assert!(line.contains(first_missing), "{line:?} names the CPU of {list:?} that is missing");
    }
}

#[test]
fn cpus_that_may_not_be_used() {
    let all = cpus::allowed();
    let [first, second, ..] = all[..] else {
        eprintln!("note: only one CPU may be used here, so none can be forbidden");
        return;
    };
    let tree = Tree::new();
    let (first, second) = (first.to_string(), second.to_string());
    let narrow = ["taskset", "-c", &first];
    let line = Launch::serve(tree.root()).cores(&second).under(&narrow).run().one_line(2).to_owned();
    assert!(line.contains(&second), "{line:?} names CPU {second}");
    let both = format!("{first},{second}");
    Launch::serve(tree.root()).cores(&both).under(&narrow).run().one_line(2);
    // What is allowed is taken, and `all` means all that is allowed.
    for list in [first.as_str(), "all"] {
        let server = Launch::serve(tree.root()).cores(list).under(&narrow).start();
        assert_eq!(annulus_integration_tests::procfs::listeners(server.port()), 1, "--cores {list}");
        server.stop();
    }
}

#[test]
fn cpu_lists_that_are_none() {
    let tree = Tree::new();
    for list in ["", "x", "0-", "-1", "1-0", "0,,1", "0;1", "0x1", "99999999999999999999", "some"] {
        let launch = Launch::serve(tree.root()).arg(format!("--cores={list}"));
        let line = launch.run().one_line(2).to_owned();
        assert!(list.is_empty() || line.contains(list), "{line:?} names {list:?}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (args, says) in [
        (&["--help"][..], "serve"),
        (&["serve", "--help"], "--listen"),
        (&["serve", "--help"], "--road"),
        (&["serve", "--help"], "--steer"),
        (&["proxy", "--help"], "--to"),
        (&["topology", "--help"], "--verify"),
        (&["--version"], "annulus"),
    ] {
        let ended = args.iter().fold(Launch::new(), |launch, arg| launch.arg(arg)).run();
        assert_eq!(ended.code(), 0, "{args:?}");
        assert!(ended.err.is_empty(), "{ended:#?}");
        assert!(ended.out.iter().any(|line| line.contains(says)), "{args:?} says {says}: {ended:#?}");
    }
}

/// The order of the checks must not matter: two mistakes are still one line.
#[test]
fn two_mistakes_are_one_line() {
    Launch::serve(Path::new("/no/such/directory")).cores("4096").listen("nonsense").run().one_line(2);
}
