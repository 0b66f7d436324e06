//! What two listeners cannot have both.

use std::ops::Range;

use super::Listener;
use super::fault::Fault;

/// What two listeners cannot have both: an address, a name.
pub(super) fn check(listeners: &[(Listener, Range<usize>)], faults: &mut Vec<Fault>) {
    let mut addresses = Vec::new();
    let mut names = Vec::new();
    for (listener, span) in listeners {
        for address in listener.addresses() {
            if address.place().is_one_socket() && addresses.contains(address.place()) {
                faults.push(Fault::new(span.clone(), format!("another listener has {address} already")));
            }
            addresses.push(address.place().clone());
        }
        if let Some(name) = &listener.args.name {
            if names.contains(name) {
                faults.push(Fault::new(
                    span.clone(),
                    format!("another listener has the name {name:?} already"),
                ));
            }
            names.push(name.clone());
        }
    }
}
