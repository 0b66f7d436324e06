//! The one table of who takes part. To add a contestant, add a line to [`contestants`].

use super::table::Kind;

/// How the address of a contestant is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// It prints a line with `listening on ADDR` on stderr.
    Line,
    /// It is told `{port}`, and is there once a connection is accepted.
    Port,
}

/// A program with a command line. `{...}` are filled in: `{bare}` the directory of our own binaries,
/// `{peers}` that of the other runtimes', `{annulus}` the program under test, `{cpu}`, `{other_cpu}`,
/// `{root}` and `{path}` and `{file}` (the directory that is served, the path of the request in it, and both
/// together), `{body}` its bytes, `{to}` the address of the backend, `{port}` a free port, `{scratch}` a
/// directory of its own, `{op}` and `{count}` the operation to measure and how often.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// As in the results.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// How its address is learned.
    pub learn: Learn,
    /// Written to `{scratch}/conf` before it is started.
    pub conf: Option<String>,
    /// It streams a cold file while it is measured ([`Load::Beside`](crate::drive::Load::Beside)).
    pub streams: bool,
}

/// All that can do work of `kind`.
#[expect(clippy::too_many_lines, reason = "a table: an entry for each contestant")]
pub fn contestants(kind: Kind) -> Vec<Contestant> {
    let mut all = Vec::new();
    let mut add = |name: &str, command: &str, learn, conf: Option<String>| {
        let command = command.split_ascii_whitespace().map(str::to_owned).collect();
        all.push(Contestant { name: name.to_owned(), command, learn, conf, streams: false });
    };
    match kind {
        Kind::Hello(_) => {
            add("bare", "{bare}/bare_http --cpu {cpu} --body {body} --buffers 128", Learn::Line, None);
            for (name, sendfile, cache) in NGINX_FILES {
                add(name, NGINX, Learn::Port, Some(nginx_files(sendfile, cache)));
            }
            add("annulus serve", ANNULUS_SERVE, Learn::Line, None);
            add("annulus hello", "{bare}/annulus_hello --cpu {cpu} --body {body}", Learn::Line, None);
            add("annulus hyper", "{bare}/annulus_hyper --cpu {cpu} --body {body}", Learn::Line, None);
            for peer in PEERS {
                let command = format!("{{peers}}/peer-{peer} hello --cpu {{cpu}} --body {{body}}");
                add(peer, &command, Learn::Line, None);
            }
            add("hyper", "{peers}/peer-tokio hyper --cpu {cpu} --body {body}", Learn::Line, None);
        }
        Kind::File(_) | Kind::Cold(_) => {
            let roads = if let Kind::Cold(_) = kind { COLD_ROADS } else { FILE_ROADS };
            for road in roads {
                let command = format!("{{bare}}/bare_file {{file}} --cpu {{cpu}} --road {road}");
                add(&format!("bare {road}"), &command, Learn::Line, None);
            }
            for (name, sendfile, cache) in NGINX_FILES {
                add(name, NGINX, Learn::Port, Some(nginx_files(sendfile, cache)));
            }
            add("annulus serve", ANNULUS_SERVE, Learn::Line, None);
            add("annulus ring", &format!("{ANNULUS_SERVE} --road ring"), Learn::Line, None);
            if kind == Kind::File(LOGGED) {
                let command = format!("{ANNULUS_SERVE} --access-log {{scratch}}/access.log");
                add("annulus logged", &command, Learn::Line, None);
            }
        }
        Kind::Site => {
            for (name, sendfile, cache) in NGINX_FILES {
                add(name, NGINX, Learn::Port, Some(nginx_files(sendfile, cache)));
            }
            let cache = format!("{CACHE} open_file_cache_errors on;");
            add("nginx errors cached", NGINX, Learn::Port, Some(nginx_files("off", &cache)));
            add("annulus serve", ANNULUS_SERVE, Learn::Line, None);
        }
        Kind::Beside => {
            for (name, sendfile, cache) in NGINX_FILES {
                add(name, NGINX, Learn::Port, Some(nginx_files(sendfile, cache)));
            }
            add("annulus serve", ANNULUS_SERVE, Learn::Line, None);
            let streaming = all.clone().into_iter().map(|who| Contestant {
                name: format!("{} beside cold", who.name),
                streams: true,
                ..who
            });
            all.extend(streaming);
        }
        Kind::Echo => {
            add("bare", "{bare}/bare_echo --cpu {cpu} --buffers 128", Learn::Line, None);
            add("annulus", "{bare}/annulus_echo --cpu {cpu}", Learn::Line, None);
            for peer in PEERS {
                add(peer, &format!("{{peers}}/peer-{peer} echo --cpu {{cpu}}"), Learn::Line, None);
            }
        }
        Kind::Redis => {
            add("annulus redis", "{bare}/annulus_redis 127.0.0.1:0 {cpu}", Learn::Line, None);
            add("redis-server", "redis-server {scratch}/conf", Learn::Port, Some(REDIS.to_owned()));
        }
        Kind::Micro | Kind::Sleepers => {
            let measure = "--count {count} --cpu {cpu} --other-cpu {other_cpu}";
            let command = format!("{{bare}}/annulus_micro {{op}} {measure}");
            add("annulus", &command, Learn::Line, None);
            if kind == Kind::Sleepers {
                add("annulus coarse", &format!("{command} --timer-slack-us 1000"), Learn::Line, None);
            }
            for peer in PEERS {
                add(peer, &format!("{{peers}}/peer-{peer} micro {{op}} {measure}"), Learn::Line, None);
            }
        }
        Kind::RelayBulk | Kind::RelaySmall => {
            let roads = if kind == Kind::RelayBulk { RELAY_ROADS } else { SMALL_ROADS };
            for road in roads {
                let command = format!("{{bare}}/bare_relay --to {{to}} --cpu {{cpu}} --road {road}");
                add(&format!("bare {road}"), &command, Learn::Line, None);
            }
            for (name, options) in HAPROXY {
                add(name, "haproxy -db -f {scratch}/conf", Learn::Port, Some(haproxy(options)));
            }
            add("annulus proxy", ANNULUS_PROXY, Learn::Line, None);
            add("annulus ring", &format!("{ANNULUS_PROXY} --road ring"), Learn::Line, None);
        }
        Kind::RelayDatagrams => {
            add("nginx stream", NGINX, Learn::Port, Some(nginx_stream()));
            add("annulus proxy", &format!("{ANNULUS_PROXY} --udp"), Learn::Line, None);
        }
    }
    all
}

/// Bytes of the file for which the cost of an access log is measured: the smaller the answer, the more a line
/// of it weighs.
const LOGGED: u64 = 1 << 10;

/// The program as it comes out of its box.
const ANNULUS_SERVE: &str = "{annulus} serve {root} --listen 127.0.0.1:0 --cores {cpu}";
const ANNULUS_PROXY: &str = "{annulus} proxy --to {to} --listen 127.0.0.1:0 --cores {cpu}";

/// The other runtimes, each a program `peer-NAME` of benches/peers.
const PEERS: &[&str] = &["compio", "glommio", "monoio", "tokio"];

/// 60 KiB because 64 KiB is 53 bytes more than a segment of loopback holds: BENCHMARKS.md, "Sixty-four is one
/// page too many".
const FILE_ROADS: &[&str] = &[
    "read-send:64k",
    "sendfile:64k",
    "sendfile:1m",
    "sendfile:all",
    "inline-splice:60k",
    "inline-splice:64k",
    "inline-splice:1m",
    "splice-sqe:64k",
    "splice-sqe:1m",
    "read-fixed-send:64k",
    "read-fixed-send:256k",
    "read-fixed-send-zc:64k",
    "read-fixed-send-zc:256k",
];

/// One of each manner: where the disk is, the size of a step matters less.
const COLD_ROADS: &[&str] = &[
    "read-send:64k",
    "sendfile:all",
    "inline-splice:60k",
    "splice-sqe:64k",
    "splice-sqe:1m",
    "read-fixed-send:256k",
];

const RELAY_ROADS: &[&str] = &[
    "recv-send:64k",
    "recv-send:256k",
    "splice-sqe:64k",
    "splice-sqe:1m",
    "inline-splice:64k",
    "inline-splice:1m",
    "mshot",
];

const SMALL_ROADS: &[&str] = &["mshot", "recv-send:64k", "inline-splice:64k"];

const NGINX: &str = "nginx -p {scratch} -c {scratch}/conf -e stderr";

/// As it comes, but that nothing goes to a disk: the example has none either.
const REDIS: &str = "bind 127.0.0.1
port {port}
dir {scratch}
save \"\"
appendonly no
";

/// Descriptors kept open and not checked for an hour: what nginx's own tuning pages advise for static
/// files, and what it does not do unless it is told to.
const CACHE: &str = "open_file_cache max=20000 inactive=1h; open_file_cache_valid 1h;";

/// nginx as a server of files: the name, `sendfile`, and what is kept open.
const NGINX_FILES: [(&str, &str, &str); 3] =
    [("nginx sendfile on", "on", CACHE), ("nginx sendfile off", "off", CACHE), ("nginx uncached", "on", "")];

/// One process, no log.
fn nginx_files(sendfile: &str, cache: &str) -> String {
    format!(
        "daemon off; master_process off; worker_processes 1; pid {{scratch}}/pid; error_log stderr crit;
events {{ worker_connections 20000; }}
http {{
  access_log off; log_not_found off; server_tokens off; default_type application/octet-stream;
  sendfile {sendfile}; tcp_nopush on; tcp_nodelay on;
  keepalive_timeout 300s; keepalive_requests 1000000000;
  {cache}
  client_body_temp_path {{scratch}}/a; proxy_temp_path {{scratch}}/b; fastcgi_temp_path {{scratch}}/c;
  uwsgi_temp_path {{scratch}}/d; scgi_temp_path {{scratch}}/e;
  server {{ listen 127.0.0.1:{{port}}; root {{root}}; }}
}}
"
    )
}

/// nginx as a relay of datagrams, and of connections, by which it is seen to listen. One process, no log.
fn nginx_stream() -> String {
    "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; worker_processes 1; pid {scratch}/pid; error_log stderr crit;
events { worker_connections 20000; }
stream {
  proxy_timeout 300s;
  server { listen 127.0.0.1:{port} udp; proxy_pass {to}; }
  server { listen 127.0.0.1:{port}; proxy_pass {to}; }
}
"
    .to_owned()
}

/// Out of the box; with splicing named (`splice-auto` never engaged on 2.6); the same with pipes of 1 MiB.
const HAPROXY: &[(&str, (&str, &str))] = &[
    ("haproxy", ("", "")),
    ("haproxy splice", ("", "option splice-request\n  option splice-response")),
    ("haproxy splice 1m", ("tune.pipesize 1048576", "option splice-request\n  option splice-response")),
];

fn haproxy((global, listen): &(&str, &str)) -> String {
    format!(
        "global
  nbthread 1
  maxconn 4000
  {global}
listen relay
  mode tcp
  bind 127.0.0.1:{{port}}
  timeout connect 10s
  timeout client 300s
  timeout server 300s
  {listen}
  server backend {{to}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_roads_are_roads() {
        for road in FILE_ROADS.iter().chain(COLD_ROADS) {
            road.parse::<crate::bare::FileRoad>().unwrap();
        }
        for road in RELAY_ROADS.iter().chain(SMALL_ROADS) {
            road.parse::<crate::bare::RelayRoad>().unwrap();
        }
    }
}
