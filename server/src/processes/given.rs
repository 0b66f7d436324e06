//! What the first process finds and opens for members that have given up their rights: directories to serve,
//! and what names stand for.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};

use crate::config::Configuration;
use crate::exit::Failure;
use crate::proxy::names;
use crate::serve::roots::Roots;

/// What a member gets with a configuration.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Directories, by the paths of the configuration. The descriptors are `O_PATH`: a member opens what lies
    /// beneath by its own rights.
    roots: Vec<(PathBuf, OwnedFd)>,
    names: Vec<(String, u16, Vec<SocketAddr>)>,
}

impl Given {
    /// What `config` needs where its members have given up their rights, and nothing otherwise. The names
    /// were looked up when the configuration was read.
    ///
    /// # Errors
    /// A directory does not exist.
    pub(super) fn find(config: &Configuration) -> Result<Self, Failure> {
        if !config.program.rights.is_asked() {
            return Ok(Given::default());
        }
        let open = |root: PathBuf| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::open(&root, flags, Mode::empty());
            let failed = |errno: rustix::io::Errno| {
                let error = std::io::Error::from(errno);
                Failure::input(format!("cannot serve {}: {error}", root.display()))
            };
            Ok((root.clone(), opened.map_err(failed)?))
        };
        let roots = config.roots().into_iter().map(open).collect::<Result<_, Failure>>()?;
        Ok(Given { roots, names: names::found() })
    }

    /// A value of JSON, and descriptors of the roots in the order in which the value names them.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn copy(&self) -> std::io::Result<(Value, Vec<OwnedFd>)> {
        let paths: Vec<Option<&str>> = self.roots.iter().map(|(path, _)| path.to_str()).collect();
        let addresses = |all: &[SocketAddr]| all.iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        let names: Vec<Value> =
            self.names.iter().map(|(name, port, all)| json!([name, port, addresses(all)])).collect();
        let copies = self.roots.iter().map(|(_, root)| root.try_clone()).collect::<Result<_, _>>()?;
        Ok((json!({"roots": paths, "names": names}), copies))
    }

    /// Takes it in, in a member. From now on the names are known there.
    pub(super) fn take(value: &Value, descriptors: &mut impl Iterator<Item = OwnedFd>) -> Option<Roots> {
        let mut roots = Roots::default();
        for path in value["roots"].as_array()? {
            let root = descriptors.next()?;
            // A root whose path is no text is opened by the member itself.
            if let Some(path) = path.as_str() {
                roots.insert(path.into(), root);
            }
        }
        for name in value["names"].as_array()? {
            let port = u16::try_from(name[1].as_u64()?).ok()?;
            let addresses = name[2].as_array()?.iter().map(|text| text.as_str()?.parse().ok());
            names::know(name[0].as_str()?, port, addresses.collect::<Option<Vec<_>>>()?);
        }
        Some(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_taken() {
        let root = rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let addresses: Vec<SocketAddr> = vec!["192.0.2.7:80".parse().unwrap(), "[::1]:80".parse().unwrap()];
        let given = Given {
            roots: vec![("/a".into(), root)],
            names: vec![("given.example".to_owned(), 80, addresses.clone())],
        };
        let (value, copies) = given.copy().unwrap();
        let roots = Given::take(&value, &mut copies.into_iter()).unwrap();
        assert!(roots.get("/a".as_ref()).is_some() && roots.get("/b".as_ref()).is_none());
        assert_eq!(names::found_at_start("given.example", 80), addresses);
        assert!(Given::take(&value, &mut std::iter::empty()).is_none());
        assert!(Given::take(&json!({}), &mut std::iter::empty()).is_none());
    }
}
