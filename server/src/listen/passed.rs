//! Sockets that a service manager has opened for the program (`sd_listen_fds(3)`).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::SocketType;
use rustix::net::sockopt::{socket_acceptconn, socket_type};

use super::inherited::Inherited;
use crate::exit::Failure;

/// Sockets that this process was given by another.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// By a service manager, now or once, and what they are called.
    sockets: Vec<(String, OwnedFd)>,
    /// By the program whose place this one takes, until they are taken.
    inherited: Mutex<Vec<Inherited>>,
    /// The same, for operators: the address as it was written.
    admin: Mutex<Option<(String, OwnedFd)>>,
}

/// Where the sockets of a listener come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// It opens its addresses.
    Own,
    /// These were passed.
    Passed(Vec<usize>),
}

impl Passed {
    /// Takes what was passed to this process. Call it first: nothing may have been opened yet.
    ///
    /// # Errors
    /// What was promised is not there, or is no socket that connections can be accepted from.
    pub(crate) fn take() -> Result<Self, Failure> {
        // SAFETY: nothing of this program has been opened before, and no other library of it speaks the
        // protocol.
        let sockets = unsafe { annulus::net::inherited_sockets() }?;
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut passed = Vec::new();
        for socket in sockets {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned());
            let is_stream = socket_type(&socket) == Ok(SocketType::STREAM);
            if !is_stream || socket_acceptconn(&socket) != Ok(true) {
                let what =
                    format!("the socket {name:?} that was passed is no listening stream; use ListenStream=");
                return Err(Failure::input(what));
            }
            passed.push((name, socket));
        }
        Ok(Passed { sockets: passed, ..Passed::default() })
    }

    /// Those of a program whose place this one takes.
    pub(crate) fn of_another(
        sockets: Vec<(String, OwnedFd)>,
        inherited: Vec<Inherited>,
        admin: Option<(String, OwnedFd)>,
    ) -> Self {
        Passed { sockets, inherited: Mutex::new(inherited), admin: Mutex::new(admin) }
    }

    /// The sockets that the program before had at this address, once.
    pub(super) fn inherit(&self, address: &str, only_v6: bool) -> Option<Inherited> {
        let mut all = lock(&self.inherited);
        let at = all.iter().position(|it| it.address == address && it.only_v6 == only_v6)?;
        Some(all.remove(at))
    }

    /// Closes those that the program before had and nobody has taken.
    pub(super) fn close_others(&self) {
        lock(&self.inherited).clear();
    }

    /// The socket that the program before had for operators, once, if it was at this address; else it is
    /// closed.
    pub(crate) fn admin(&self, address: Option<&str>) -> Option<OwnedFd> {
        let (written, socket) = lock(&self.admin).take()?;
        (Some(written.as_str()) == address).then_some(socket)
    }

    /// A descriptor of each that a service manager has passed, with their names.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn copies(&self) -> std::io::Result<Vec<(String, OwnedFd)>> {
        self.sockets.iter().map(|(name, socket)| Ok((name.clone(), socket.try_clone()?))).collect()
    }

    /// Divides them among listeners with these names. Each gets those that have its name. Those whose name no
    /// listener has go to the listeners without a name, one each in order and the rest to the last.
    ///
    /// # Errors
    /// One belongs to nobody.
    pub(crate) fn deal(&self, listeners: &[Option<&str>]) -> Result<Vec<Source>, Failure> {
        let mut dealt = vec![Vec::new(); listeners.len()];
        let nameless: Vec<usize> = (0..listeners.len()).filter(|at| listeners[*at].is_none()).collect();
        let mut next = 0;
        for (index, (name, _)) in self.sockets.iter().enumerate() {
            if let Some(at) = listeners.iter().position(|listener| *listener == Some(name)) {
                dealt[at].push(index);
                continue;
            }
            let Some(at) = nameless.get(next).or(nameless.last()) else {
                let what = format!(
                    "the socket {name:?} that was passed belongs to no listener: give one this `name`"
                );
                return Err(Failure::input(what));
            };
            dealt[*at].push(index);
            next += 1;
        }
        let source =
            |passed: Vec<usize>| if passed.is_empty() { Source::Own } else { Source::Passed(passed) };
        Ok(dealt.into_iter().map(source).collect())
    }

    /// A descriptor of socket `index` for each of `cores` cores.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn clones(&self, index: usize, cores: usize) -> std::io::Result<Vec<OwnedFd>> {
        let (_, socket) = &self.sockets[index];
        (0..cores).map(|_| socket.as_fd().try_clone_to_owned()).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(names: &[&str], listeners: &[Option<&str>]) -> Option<Vec<Vec<usize>>> {
        let socket = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let sockets = names.iter().map(|name| ((*name).to_owned(), socket())).collect();
        let passed = Passed { sockets, ..Passed::default() };
        let of = |source| match source {
            Source::Own => Vec::new(),
            Source::Passed(passed) => passed,
        };
        Some(passed.deal(listeners).ok()?.into_iter().map(of).collect())
    }

    #[test]
    fn sockets_go_by_name_and_else_in_order() {
        let (a, b) = (Some("a"), Some("b"));
        assert_eq!(dealt(&[], &[a, None]), Some(vec![vec![], vec![]]));
        assert_eq!(dealt(&["b", "a", "b"], &[a, b]), Some(vec![vec![1], vec![0, 2]]));
        assert_eq!(dealt(&["x", "y"], &[None]), Some(vec![vec![0, 1]]));
        assert_eq!(dealt(&["x", "a", "y", "z"], &[None, a, None]), Some(vec![vec![0], vec![1], vec![2, 3]]));
        assert_eq!(dealt(&["x"], &[a]), None);
        assert_eq!(dealt(&["a"], &[a, b]), Some(vec![vec![0], vec![]]));
    }
}
