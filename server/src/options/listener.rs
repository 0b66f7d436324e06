//! What every listener can be told, whatever is done with its connections.

use clap::Args;

use crate::limits::LimitArgs;
use crate::listen::address::ListenAddress;
use crate::listen::forwarded::Field;
use crate::listen::gate::Gate;
use crate::listen::networks::{AccessList, Network};

/// What every listener has.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "Listeners")]
pub(crate) struct ListenerArgs {
    /// Where to listen, as often as wanted: HOST:PORT; PORT or :PORT for all addresses of both families;
    /// unix:PATH. Port 0 takes a free port and says which [default: 127.0.0.1:8080, for a relay
    /// 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", help_heading = None, display_order = 0)]
    pub(crate) listen: Vec<ListenAddress>,

    /// Clients that may come, as a network such as 10.0.0.0/8, an address, or "unix" for Unix sockets;
    /// several times for several. Without it all may
    #[arg(long, value_name = "NETWORK")]
    pub(crate) allow: Vec<Network>,

    /// Clients that may not come, whatever --allow says
    #[arg(long, value_name = "NETWORK")]
    pub(crate) deny: Vec<Network>,

    /// Proxies whose connections begin with a PROXY header, version 1 or 2, that names the client:
    /// networks, or "unix"
    #[arg(long, value_name = "NETWORK")]
    pub(crate) proxy_protocol_from: Vec<Network>,

    /// HTTP proxies whose requests name the client in the field --forwarded-field: networks, or "unix"
    #[arg(long, value_name = "NETWORK")]
    pub(crate) forwarded_from: Vec<Network>,

    /// The field that names the client: "x-forwarded-for" or "forwarded"; only one is believed, because a
    /// proxy that sets one passes on what clients say in the other
    #[arg(
        long,
        value_name = "x-forwarded-for|forwarded",
        default_value = "x-forwarded-for",
        hide_possible_values = true
    )]
    pub(crate) forwarded_field: Field,

    /// What this listener is called: sockets that a service manager passes find it by that (LISTEN_FDNAMES)
    #[arg(long, value_name = "NAME", value_parser = listener_name)]
    pub(crate) name: Option<String>,

    /// Permissions of the file of a Unix socket, in octal, such as 660 [default: what the umask leaves]
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub(crate) unix_mode: Option<u32>,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

impl ListenerArgs {
    /// What they say of who may connect.
    pub(crate) fn gate(&self) -> Gate {
        let access = AccessList { allow: self.allow.clone(), deny: self.deny.clone() };
        let (proxies, forwarders) = (self.proxy_protocol_from.clone(), self.forwarded_from.clone());
        Gate::new(access, proxies, forwarders, self.forwarded_field)
    }
}

/// Permissions in octal.
fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && !text.starts_with('+'));
    mode.ok_or_else(|| "write permissions in octal, such as 660".to_owned())
}

/// A name that fits between the colons of LISTEN_FDNAMES (`sd_listen_fds(3)`).
fn listener_name(text: &str) -> Result<String, String> {
    let is_one = !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if is_one {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 255 letters, digits and signs, without a colon".to_owned())
    }
}
