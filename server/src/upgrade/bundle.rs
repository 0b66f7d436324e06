//! What the running program hands to the program that takes its place: its listening sockets.

use std::os::fd::OwnedFd;

use serde_json::{Value, json};

use crate::listen::inherited::Inherited;

/// The sockets of a program, and what they are for.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    /// Sockets from a service manager, with their names.
    pub(crate) passed: Vec<(String, OwnedFd)>,
    /// The sockets of its endpoints, except those from a service manager.
    pub(crate) endpoints: Vec<Inherited>,
    /// The address of the admin interface, as it was written, and its socket.
    pub(crate) admin: Option<(String, OwnedFd)>,
}

impl Bundle {
    /// The payload of its frame, and the sockets beside it.
    pub(super) fn into_frame(self) -> (Vec<u8>, Vec<OwnedFd>) {
        let names: Vec<&String> = self.passed.iter().map(|(name, _)| name).collect();
        let endpoint = |of: &Inherited| json!({"address": of.address, "only_v6": of.only_v6, "sockets": of.sockets.len()});
        let endpoints: Vec<Value> = self.endpoints.iter().map(endpoint).collect();
        let admin = self.admin.as_ref().map(|(address, _)| address);
        let payload = json!({"passed": names, "endpoints": endpoints, "admin": admin}).to_string();
        let passed = self.passed.into_iter().map(|(_, socket)| socket);
        let endpoints = self.endpoints.into_iter().flat_map(|of| of.sockets);
        let admin = self.admin.map(|(_, socket)| socket);
        (payload.into_bytes(), passed.chain(endpoints).chain(admin).collect())
    }

    /// What a frame holds; `None` if another version of this program has encoded it in another way.
    pub(super) fn of_frame(payload: &[u8], sockets: Vec<OwnedFd>) -> Option<Self> {
        let payload: Value = serde_json::from_slice(payload).ok()?;
        let mut sockets = sockets.into_iter();
        let mut bundle = Bundle::default();
        for name in payload["passed"].as_array()? {
            bundle.passed.push((name.as_str()?.to_owned(), sockets.next()?));
        }
        for endpoint in payload["endpoints"].as_array()? {
            let count = usize::try_from(endpoint["sockets"].as_u64()?).ok()?;
            let own: Vec<OwnedFd> = sockets.by_ref().take(count).collect();
            bundle.endpoints.push(Inherited {
                address: endpoint["address"].as_str()?.to_owned(),
                only_v6: endpoint["only_v6"].as_bool()?,
                sockets: if own.len() == count && count > 0 { own } else { return None },
            });
        }
        if let Some(address) = payload["admin"].as_str() {
            bundle.admin = Some((address.to_owned(), sockets.next()?));
        }
        sockets.next().is_none().then_some(bundle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn what_is_given_is_taken() {
        let of = |address: &str, count: usize| Inherited {
            address: address.to_owned(),
            only_v6: address.starts_with('['),
            sockets: (0..count).map(|_| socket()).collect(),
        };
        let bundle = Bundle {
            passed: vec![("web".to_owned(), socket())],
            endpoints: vec![of("[::]:80", 2), of("unix:/x", 1)],
            admin: Some(("9000".to_owned(), socket())),
        };
        let (payload, sockets) = bundle.into_frame();
        assert_eq!(sockets.len(), 5);
        let copies = |count: usize| (0..count).map(|_| socket()).collect::<Vec<_>>();
        let taken = Bundle::of_frame(&payload, sockets).unwrap();
        assert_eq!(taken.passed[0].0, "web");
        let endpoints: Vec<_> =
            taken.endpoints.iter().map(|it| (it.address.as_str(), it.only_v6, it.sockets.len())).collect();
        assert_eq!(endpoints, [("[::]:80", true, 2), ("unix:/x", false, 1)]);
        assert_eq!(taken.admin.unwrap().0, "9000");
        for count in [0, 4, 6] {
            assert!(Bundle::of_frame(&payload, copies(count)).is_none(), "{count}");
        }
        assert!(Bundle::of_frame(b"{}", Vec::new()).is_none());
    }
}
