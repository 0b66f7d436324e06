//! Files that are wrong, and files that equal command lines.

use std::ffi::OsString;
use std::path::Path;
use std::sync::LazyLock;

use clap::builder::PossibleValue;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
use proptest::prelude::*;

use super::command_line::Serving;
use super::keys::{Keys, name, takes_none};
use super::{Configuration, Listener, ServiceConfig, fault, read, write};
use crate::options::listener::ListenerArgs;
use crate::options::program::{ProgramArgs, Verbosity};
use crate::proxy::options::ProxyArgs;
use crate::serve::options::ServeArgs;

/// What is wrong with a text, without the file's name.
fn wrong(text: &str) -> Vec<String> {
    let faults = read::read(text).map(|_| Vec::new()).unwrap_or_else(|faults| faults);
    let lines = fault::lines(Path::new("F"), text, faults);
    lines.into_iter().map(|line| line.strip_prefix("F:").expect("the file's name").to_owned()).collect()
}

/// Each line of a text stands with what is wrong in it, at which column; nothing else is wrong.
#[test]
fn every_fault_is_told_with_its_place_and_the_nearest_right_word() {
    let lines: &[(&str, &[(usize, &str)])] = &[
        ("grace = \"x\"", &[(9, "\"x\" is no value for `grace`: write a whole number")]),
        ("core = \"all\"", &[(1, "did you mean `cores`?")]),
        ("stats = 1", &[(9, "write true or false")]),
        ("listen = \"127.0.0.1:1\"", &[(1, "write [[listener]]")]),
        ("pool = \"16X\"", &[(8, "such as 16M")]),
        ("steer = \"hsh\"", &[(9, "did you mean \"hash\"?")]),
        ("nic = [\"a\", \"b\"]", &[(1, "takes one value")]),
        ("pages = {}", &[(9, "a table")]),
        ("[[listener]]", &[]),
        ("name = \"a:b\"", &[(8, "without a colon")]),
        ("listen = [\"127.0.0.1:0\", \"nonsense\", 70000]", &[(26, "HOST:PORT"), (38, "HOST:PORT")]),
        ("root = \"/no/such\"", &[(8, "No such file")]),
        ("grace = 3", &[(1, "before the first [[listener]]")]),
        ("lisen = 1", &[(1, "did you mean `listen`?")]),
        ("[[listener]]", &[]),
        ("to = \"127.0.0.1:1\"", &[]),
        ("root = \".\"", &[(1, "leave out one")]),
        ("[[listener]]", &[]),
        ("to = 1979-05-27", &[(6, "datetime")]),
        ("tls = true", &[(1, "later version")]),
        ("[[listener]]", &[(1, "`root`, to serve files, or `to`")]),
        ("[[listener]]", &[]),
        ("[[listener.site]]", &[]),
        ("host = [\"a b\", \"x.org\"]", &[(9, "without port")]),
        ("root = \".\"", &[]),
        ("[[listener.site.path]]", &[]),
        ("match = \"x\"", &[(9, "such as /assets/")]),
        ("listen = 1", &[(1, "belongs to a listener")]),
        ("[[listener.site.path]]", &[(1, "`match` is missing")]),
    ];
    let text: String = lines.iter().map(|(line, _)| format!("{line}\n")).collect();
    let mut told = wrong(&text).into_iter();
    for (number, (line, faults)) in lines.iter().enumerate() {
        for (column, word) in *faults {
            let told = told.next().unwrap_or_default();
            assert!(
                told.starts_with(&format!("{}:{column}: ", number + 1)) && told.contains(word),
                "{line}: {told}"
            );
        }
    }
    assert_eq!(told.next(), None);
}

#[test]
fn what_goes_together_is_looked_at_when_each_is_right() {
    assert_eq!(
        wrong("sqpoll-cpus = \"0\"\n[[listener]]\nto = \"127.0.0.1:1\"\n"),
        ["1:1: `sqpoll` is missing"]
    );
    let twice =
        "[[listener]]\nlisten = 80\nroot = \".\"\n[[listener]]\nlisten = \":80\"\nto = \"127.0.0.1:1\"\n";
    assert_eq!(wrong(twice), ["4:1: another listener has :80 already"]);
    let names = "[[listener]]\nlisten = 0\nname = \"a\"\nroot = \".\"\n".repeat(2);
    assert_eq!(wrong(&names), ["5:1: another listener has the name \"a\" already"]);
    assert_eq!(wrong("grace = 1\n"), ["2:1: there is no listener: write [[listener]]"]);
    assert!(wrong("").len() == 1);
}

#[test]
fn what_is_no_toml_is_told_once_a_line_with_what_stands_before_it() {
    let told = wrong("core = 1\na = \nb = [1\n[[listener]]\nx = \"a");
    assert!(told[0].starts_with("1:1: there is no `core`"), "{told:#?}");
    // `a` is no key either, and is not told of: the line is no TOML.
    assert!(told[1].starts_with("2:5: "), "{told:#?}");
    assert!(told.len() > 2 && told.iter().all(|line| !line.contains("no listener")), "{told:#?}");
    assert_eq!(wrong("grace = 1\ngrace = 2\n").len(), 1);
}

#[test]
fn a_site_inherits_what_its_listener_says_and_a_path_what_its_site_says() {
    let text = "[[listener]]\nroot = \"/\"\n[[listener.site]]\nhost = \"a.org\"\nroot = \"/usr\"\n[[listener.site.path]]\n\
        match = [\"/x/\", \"*.css\"]\n[[listener.site]]\nhost = \"b.org\"\n";
    let config = read::read(text).unwrap().config;
    let ServiceConfig::Files(sites) = &config.listeners[0].service else { panic!("files") };
    let roots: Vec<_> = sites.iter().map(|site| site.args.root.to_str().unwrap()).collect();
    assert_eq!(roots, ["/usr", "/", "/"]);
    assert_eq!(sites[0].paths[0].args.root.to_str(), Some("/usr"));
    assert!(sites[2].hosts.is_empty());
}

/// The commands that serve, as the command line has them.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    serving: Serving,
}

/// Values that one flag or another takes.
const VALUES: [&str; 31] = [
    "a.example=127.0.0.1:1",
    "client",
    "tcp",
    "200-399",
    "1",
    "2",
    "16M",
    "0-0",
    "127.0.0.1:0",
    "127.0.0.1:53",
    "0",
    "all",
    "off",
    "/",
    "a",
    "660",
    "10.0.0.0/8",
    "5s",
    "1000",
    "100",
    "a:b",
    "a=b",
    "/a=/b",
    "*",
    "127.0.0.1:1,127.0.0.1:2",
    "*.css=a",
    "*: X: y",
    "404=/a",
    "unix:/a \"b\\",
    "4k",
    "ring",
];

/// A flag with a value that it takes, in as many ways as there are.
fn flags(keys: &Keys, skip: &[&str]) -> Vec<Vec<OsString>> {
    let mut flags = Vec::new();
    for argument in keys.arguments().filter(|argument| !skip.contains(&name(argument).as_str())) {
        let flag = format!("--{}", name(argument));
        match argument.get_action() {
            ArgAction::SetTrue | ArgAction::SetFalse | ArgAction::Count => flags.push(vec![flag.into()]),
            _ if takes_none(argument) => flags.push(vec![flag.into()]),
            action => {
                let listed = argument.get_possible_values();
                let listed = listed.iter().map(PossibleValue::get_name).chain(VALUES);
                let listed = listed.map(|value| OsString::from(format!("{flag}={value}")));
                let taken: Vec<OsString> = listed.filter(|word| keys.takes(word)).collect();
                assert!(!taken.is_empty(), "add a value that {flag} takes to VALUES");
                let twice = matches!(action, ArgAction::Append) && taken.len() > 1;
                flags.extend(twice.then(|| taken.clone()));
                flags.extend(taken.into_iter().map(|word| vec![word]));
            }
        }
    }
    flags
}

/// What both notations come to.
fn shown(config: &Configuration, verbose: u8) -> String {
    let addresses: Vec<_> = config.listeners.iter().map(Listener::addresses).collect();
    let mut config = config.clone();
    // Where nothing is said the file says the default.
    config.listeners.iter_mut().for_each(|listener| listener.args.listen.clear());
    format!("{config:?} {addresses:?} {verbose}")
}

/// All flags with values that they take: of a server of files, of a relay.
static FLAGS: LazyLock<[Vec<Vec<OsString>>; 2]> = LazyLock::new(|| {
    let mut common = flags(&Keys::of::<ProgramArgs>(), &[]);
    common.extend(flags(&Keys::of::<ListenerArgs>(), &[]));
    common.push(vec!["-v".into()]);
    let with = |own: Vec<Vec<OsString>>| common.iter().cloned().chain(own).collect();
    [with(flags(&Keys::of::<ServeArgs>(), &["root"])), with(flags(&Keys::of::<ProxyArgs>(), &["to"]))]
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_command_line_and_the_file_that_equals_it_are_the_same_settings(
        relays in any::<bool>(), chosen in prop::collection::vec(any::<prop::sample::Index>(), 0..6)
    ) {
        let all = &FLAGS[usize::from(relays)];
        let mut words: Vec<OsString> = vec!["annulus".into()];
        words.extend(if relays { vec!["proxy".into(), "--to=127.0.0.1:9".into()] } else { vec!["serve".into(), "/".into()] });
        words.extend(chosen.iter().flat_map(|index| index.get(all).clone()));
        // Some are given twice that may be given once, or stand against each other: then there is nothing
        // to compare.
        if let Ok(matches) = Line::command().try_get_matches_from(&words) {
            let line = Line::from_arg_matches(&matches).unwrap();
            let verbose = line.verbosity.verbose;
            let config = line.serving.configuration();
            let text = write::write(matches.subcommand().unwrap().1, &config).unwrap();
            if config.check().is_err() {
                prop_assert!(read::read(&text).is_err(), "what cannot be by flags cannot be by a file:\n{}", text);
                return Ok(());
            }
            let read = read::read(&text).map_err(|faults| fault::lines(Path::new("F"), &text, faults));
            let read = read.unwrap_or_else(|lines| panic!("{words:?} gave\n{text}\n{lines:#?}"));
            prop_assert_eq!(shown(&config, verbose), shown(&read.config, read.verbose), "{:?} gave\n{}", words, text);
        }
    }

    /// Whatever stands in a file, it is read or told.
    #[test]
    fn no_text_is_too_much(text in "(\\[\\[listener(\\.site(\\.path)?)?\\]\\]\n|(root|listen|to|match|host|cores|x) ?= ?[\"\\[\\]{},0-9a-z./*:]{0,12}\n){0,8}") {
        if let Err(faults) = read::read(&text) {
            prop_assert!(!faults.is_empty());
            fault::lines(Path::new("F"), &text, faults);
        }
    }
}
