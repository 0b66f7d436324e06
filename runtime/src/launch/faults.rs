//! Faults of a core outside its tasks.

use crate::contained::{Payload, bury, panic_text};
use crate::{Error, ErrorKind, Result};

/// The faults of a core outside its tasks. The first is the core's error. The panic hook has reported each.
#[derive(Default)]
pub(super) struct Faults(Option<Error>);

impl Faults {
    pub(super) fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|e| self.0.get_or_insert(e)).ok()
    }

    pub(super) fn any(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn first(self) -> Option<Error> {
        self.0
    }
}

/// The error that names a panic of `what`.
pub(super) fn panicked(what: &str, payload: Payload) -> Error {
    let e = Error::new(ErrorKind::Panicked, format!("{what} panicked: {}", panic_text(&payload)));
    bury(payload);
    e
}
