//! How this machine looks names up, as far as this program can do the same and get the TTL.
//!
//! The C library follows nsswitch.conf(5), hosts(5), resolv.conf(5) and gai.conf(5), and tells no TTL. Nearly
//! every machine has "the hosts file, then DNS", and that is done here, with the TTL. Whatever else an
//! operator has set up is left to the C library: where a file says something that is not known here, the
//! answer of this module is [`Way::System`], with the reason.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use resolv_conf::{Config, ScopedIp};

/// The port of DNS.
pub(super) const PORT: u16 = 53;
/// Where systemd-resolved answers questions of DNS (systemd-resolved.service(8)).
const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// How a name is to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// By the hosts file, which has these addresses.
    Hosts(Vec<IpAddr>),
    /// By DNS.
    Dns(Dns),
    /// By the C library, for this reason.
    System(String),
}

/// What is asked of DNS, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dns {
    pub(super) servers: Vec<SocketAddr>,
    /// The names that may be meant, in the order in which they are tried.
    pub(super) names: Vec<String>,
    /// How long one answer of one server is waited for.
    pub(super) timeout: Duration,
    /// How often each server is asked.
    pub(super) attempts: u32,
    /// Whether each look-up begins with another server.
    pub(super) rotate: bool,
    /// Whether all questions go by TCP.
    pub(super) tcp: bool,
    /// Whether only IPv4 addresses are asked for.
    pub(super) only_v4: bool,
}

impl Dns {
    /// These servers are asked for this name as it is.
    pub(super) fn of(servers: &[SocketAddr], name: &str) -> Self {
        Self { servers: servers.to_vec(), ..Self::new(vec![name.to_owned()]) }
    }

    /// The defaults of resolv.conf(5).
    fn new(names: Vec<String>) -> Self {
        let servers = vec![(Ipv4Addr::LOCALHOST, PORT).into()];
        let timeout = Duration::from_secs(5);
        Self { servers, names, timeout, attempts: 2, rotate: false, tcp: false, only_v4: false }
    }
}

/// The text of a machine's files, and the machine's name. A file that is not there is empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Setup {
    pub(super) nsswitch: String,
    pub(super) hosts: String,
    pub(super) resolv: String,
    pub(super) gai: String,
    pub(super) host_name: String,
    /// Whether a variable of the environment changes the resolver.
    pub(super) has_environment: bool,
}

impl Setup {
    /// Reads this machine's files.
    ///
    /// # Errors
    /// A file exists and cannot be read.
    pub(super) fn read(etc: &Path) -> io::Result<Self> {
        let text = |name: &str| match std::fs::read(etc.join(name)) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error),
        };
        Ok(Self {
            nsswitch: text("nsswitch.conf")?,
            hosts: text("hosts")?,
            resolv: text("resolv.conf")?,
            gai: text("gai.conf")?,
            host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            // resolv.conf(5), hostname(7).
            has_environment: ["LOCALDOMAIN", "RES_OPTIONS", "HOSTALIASES"]
                .iter()
                .any(|name| std::env::var_os(name).is_some()),
        })
    }

    /// How `name` is looked up.
    pub(super) fn way(&self, name: &str) -> Way {
        match self.known_way(name) {
            Ok(way) => way,
            Err(why) => Way::System(why),
        }
    }

    /// The way, where it is the hosts file or DNS; else the reason why it is not.
    fn known_way(&self, name: &str) -> Result<Way, String> {
        if self.has_environment {
            return Err("the environment has settings of the resolver".to_owned());
        }
        if lines(&self.gai).next().is_some() {
            return Err("/etc/gai.conf orders addresses".to_owned());
        }
        let config = Config::parse(&self.resolv).map_err(|error| format!("/etc/resolv.conf: {error}"))?;
        let servers = servers(&config)?;
        self.check_sources(name, &servers)?;
        let addresses = in_hosts(&self.hosts, name);
        if !addresses.is_empty() {
            return Ok(Way::Hosts(addresses));
        }
        let dns = Dns::new(self.names(&config, name));
        Ok(Way::Dns(Dns {
            servers: if servers.is_empty() { dns.servers } else { servers },
            names: dns.names,
            timeout: Duration::from_secs(config.timeout.clamp(1, 30).into()),
            attempts: config.attempts.clamp(1, 5),
            rotate: config.rotate,
            tcp: config.use_vc,
            only_v4: config.no_aaaa,
        }))
    }

    /// Whether the hosts file and DNS are all that is asked for `name` before it is found.
    fn check_sources(&self, name: &str, servers: &[SocketAddr]) -> Result<(), String> {
        let hosts = lines(&self.nsswitch).find_map(|line| line.strip_prefix("hosts:"));
        let spaced = hosts.unwrap_or("files dns").replace('[', " [").replace(']', "] ");
        let mut words = spaced.split_whitespace();
        let other = |word: &str| Err(format!("/etc/nsswitch.conf has {word} among the hosts"));
        match words.next() {
            Some("files") => {}
            first => return other(first.unwrap_or("nothing")),
        }
        let has_dot = name.contains('.');
        let mut was_files = true;
        for word in words {
            match word {
                "dns" => return Ok(()),
                // These answer for names of one link, which are below .local (nss-mdns).
                "mdns_minimal" | "mdns4_minimal" | "mdns6_minimal" if !ends_with(name, "local") => {}
                // This answers for names of this machine (nss-myhostname(8)).
                "myhostname" if has_dot && !self.is_own(name) => {}
                // This answers for names of containers, which have no dot (nss-mymachines(8)).
                "mymachines" if has_dot => {}
                // DNS gives the same answers where systemd-resolved is the server (nss-resolve(8)).
                "resolve" if has_dot && are_stubs(servers) && !ends_with(name, "local") => {}
                // This says what to do if the source before has nothing. None of those above leaves a name to
                // DNS that it would have answered, so it changes nothing.
                "[NOTFOUND=return]" | "[!UNAVAIL=return]" if !was_files => {}
                _ => return other(word),
            }
            was_files = false;
        }
        other("no dns")
    }

    fn is_own(&self, name: &str) -> bool {
        let own = ["localhost", "localdomain", self.host_name.as_str()];
        own.iter().any(|own| !own.is_empty() && ends_with(name, own))
    }

    /// The names that may be meant by `name`, by its dots and the search list.
    fn names(&self, config: &Config, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let listed = config.get_last_search_or_domain().cloned();
        let mut suffixes: Vec<String> = listed.collect();
        if suffixes.is_empty()
            && let Some((_, domain)) = self.host_name.split_once('.')
        {
            suffixes.push(domain.to_owned());
        }
        suffixes.retain(|suffix| !suffix.trim_matches('.').is_empty());
        let with = |suffix: &String| format!("{name}.{}", suffix.trim_matches('.'));
        let mut names: Vec<String> = suffixes.iter().map(with).collect();
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let place = if dots >= config.ndots as usize { 0 } else { names.len() };
        names.insert(place, name.to_owned());
        names
    }
}

/// Lines with something in them, without comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split('#').next().unwrap_or("").trim()).filter(|line| !line.is_empty())
}

/// Whether `name` is `end`, or below it.
fn ends_with(name: &str, end: &str) -> bool {
    let name = name.trim_end_matches('.');
    let Some(at) = name.len().checked_sub(end.len()) else { return false };
    let is_end = name.get(at..).is_some_and(|found| found.eq_ignore_ascii_case(end));
    is_end && (at == 0 || name.as_bytes()[at - 1] == b'.')
}

fn are_stubs(servers: &[SocketAddr]) -> bool {
    !servers.is_empty() && servers.iter().all(|server| STUBS.iter().any(|stub| server.ip() == *stub))
}

/// The servers of a resolv.conf, at most three, as the C library takes them.
fn servers(config: &Config) -> Result<Vec<SocketAddr>, String> {
    if !config.sortlist.is_empty() {
        return Err("/etc/resolv.conf has a sortlist".to_owned());
    }
    let address = |server: &ScopedIp| match server {
        ScopedIp::V4(ip) => Ok((*ip, PORT).into()),
        ScopedIp::V6(ip, None) => Ok((*ip, PORT).into()),
        ScopedIp::V6(..) => Err(format!("/etc/resolv.conf has the server {server} of one link")),
    };
    config.nameservers.iter().take(3).map(address).collect()
}

/// The addresses of `name` in a hosts file.
fn in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let mut addresses = Vec::new();
    for line in lines(hosts) {
        let mut words = line.split_whitespace();
        let address = words.next().and_then(|word| word.parse().ok());
        if let Some(address) = address
            && words.any(|word| word.eq_ignore_ascii_case(name))
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOLV: &str = "nameserver 192.0.2.1\nnameserver 2001:db8::1\n";

    fn setup(nsswitch: &str, resolv: &str) -> Setup {
        Setup { nsswitch: nsswitch.to_owned(), resolv: resolv.to_owned(), ..Setup::default() }
    }

    #[track_caller]
    fn dns(setup: &Setup, name: &str) -> Dns {
        match setup.way(name) {
            Way::Dns(dns) => dns,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn why_system(setup: &Setup, name: &str) -> String {
        match setup.way(name) {
            Way::System(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_most_machines_have_is_asked_of_dns() {
        for nsswitch in [
            "",
            "passwd: files\nhosts: files dns # all\n",
            "hosts:\tfiles mdns4_minimal [NOTFOUND=return] dns\n",
            "hosts: files mymachines myhostname dns\n",
            "hosts: files dns myhostname\n",
        ] {
            let dns = dns(&setup(nsswitch, RESOLV), "a.example");
            let servers: Vec<String> = dns.servers.iter().map(ToString::to_string).collect();
            assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53"], "{nsswitch:?}");
            assert_eq!(dns.names, ["a.example"]);
            assert_eq!((dns.timeout.as_secs(), dns.attempts), (5, 2));
        }
        let stub = setup("hosts: files resolve [!UNAVAIL=return] dns", "nameserver 127.0.0.53\n");
        assert_eq!(dns(&stub, "a.example").servers, [(STUBS[0], PORT).into()]);
        // Without a server this machine is the server (resolv.conf(5)).
        assert_eq!(dns(&setup("", ""), "a.example").servers, [(Ipv4Addr::LOCALHOST, PORT).into()]);
    }

    #[test]
    fn what_is_not_known_here_is_the_systems() {
        for (nsswitch, resolv, name, word) in [
            ("hosts: dns files", RESOLV, "a.example", "dns"),
            ("hosts: files", RESOLV, "a.example", "no dns"),
            ("hosts: files sss dns", RESOLV, "a.example", "sss"),
            ("hosts: files [NOTFOUND=return] dns", RESOLV, "a.example", "[NOTFOUND=return]"),
            ("hosts: files mdns4_minimal[SUCCESS=continue] dns", RESOLV, "a.example", "[SUCCESS=continue]"),
            ("hosts: files mdns4_minimal dns", RESOLV, "a.local", "mdns4_minimal"),
            ("hosts: files myhostname dns", RESOLV, "a", "myhostname"),
            ("hosts: files myhostname dns", RESOLV, "a.localhost", "myhostname"),
            ("hosts: files mymachines dns", RESOLV, "a", "mymachines"),
            ("hosts: files resolve dns", RESOLV, "a.example", "resolve"),
            ("hosts: files resolve dns", "nameserver 127.0.0.53", "a", "resolve"),
            ("", "nameserver fe80::1%eth0", "a.example", "one link"),
            ("", "sortlist 192.0.2.0/255.255.255.0", "a.example", "sortlist"),
            ("", "nameserver 192.0.2", "a.example", "/etc/resolv.conf"),
        ] {
            let why = why_system(&setup(nsswitch, resolv), name);
            assert!(why.contains(word), "{nsswitch:?}, {resolv:?}, {name}: {why}");
        }
        let gai = Setup { gai: "# none\nprecedence ::ffff:0:0/96 100\n".to_owned(), ..Setup::default() };
        assert!(why_system(&gai, "a.example").contains("gai.conf"));
        let gai = Setup { gai: "# none\n\n".to_owned(), ..Setup::default() };
        dns(&gai, "a.example");
        let env = Setup { has_environment: true, ..Setup::default() };
        assert!(why_system(&env, "a.example").contains("environment"));
        let own =
            Setup { host_name: "me.example".to_owned(), ..setup("hosts: files myhostname dns", RESOLV) };
        assert!(why_system(&own, "Me.Example").contains("myhostname"));
    }

    #[test]
    fn the_hosts_file_comes_first_with_all_its_lines() {
        let hosts = "127.0.0.1 localhost\n# 192.0.2.7 a.example\n192.0.2.8 b A.example #c.example\n\
                     2001:db8::8 a.example\n192.0.2.8 a.example\nnonsense a.example\n";
        let setup = Setup { hosts: hosts.to_owned(), ..setup("", RESOLV) };
        let both: Vec<IpAddr> = vec!["192.0.2.8".parse().unwrap(), "2001:db8::8".parse().unwrap()];
        assert_eq!(setup.way("a.example"), Way::Hosts(both.clone()));
        assert_eq!(setup.way("a.EXAMPLE."), Way::Hosts(both));
        dns(&setup, "c.example");
    }

    #[test]
    fn the_search_list_is_before_or_behind_the_name_by_its_dots() {
        let names = |resolv: &str, name: &str| dns(&setup("", resolv), name).names;
        let search = "search one.test two.test.\noptions ndots:2 timeout:1 attempts:3 rotate use-vc\n";
        assert_eq!(names(search, "a"), ["a.one.test", "a.two.test", "a"]);
        assert_eq!(names(search, "a.b"), ["a.b.one.test", "a.b.two.test", "a.b"]);
        assert_eq!(names(search, "a.b.c"), ["a.b.c", "a.b.c.one.test", "a.b.c.two.test"]);
        assert_eq!(names(search, "a.b."), ["a.b"]);
        assert_eq!(names("domain one.test\n", "a"), ["a.one.test", "a"]);
        let all = dns(&setup("", search), "a");
        assert_eq!((all.timeout.as_secs(), all.attempts, all.rotate, all.tcp), (1, 3, true, true));
        let own = Setup { host_name: "me.here.test".to_owned(), ..setup("", RESOLV) };
        assert_eq!(dns(&own, "a").names, ["a.here.test", "a"]);
    }
}
