//! stand-in
use std::collections::BTreeMap;
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key(u64, u64);
pub(crate) struct Wheel<T>(BTreeMap<(u64, u64), T>, u64);
impl<T> Wheel<T> {
    pub(crate) fn new(_: u64) -> Self { Self(BTreeMap::new(), 0) }
    pub(crate) fn insert(&mut self, d: u64, v: T) -> Key { self.1 += 1; self.0.insert((d, self.1), v); Key(d, self.1) }
    pub(crate) fn cancel(&mut self, k: Key) -> Option<T> { self.0.remove(&(k.0, k.1)) }
    pub(crate) fn get_mut(&mut self, k: Key) -> Option<&mut T> { self.0.get_mut(&(k.0, k.1)) }
    pub(crate) fn next_expiry(&self) -> Option<u64> { self.0.keys().next().map(|k| k.0) }
    pub(crate) fn expire(&mut self, now: u64) -> Option<T> { let k = *self.0.keys().next()?; if k.0 <= now { self.0.remove(&k) } else { None } }
    pub(crate) fn len(&self) -> usize { self.0.len() }
}
