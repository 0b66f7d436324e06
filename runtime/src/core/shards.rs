//! The values that a core has of each [`Sharded`](super::sharded::Sharded).

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use crate::contained::contained;

/// The shards of a core, by number, in ascending order. There are few, and they change seldom.
#[derive(Default)]
pub(crate) struct Shards(RefCell<Vec<(u64, Rc<dyn Any>)>>);

impl Shards {
    pub(super) fn insert(&self, id: u64, shard: Rc<dyn Any>) {
        let mut shards = self.0.borrow_mut();
        let at = shards.partition_point(|(other, _)| *other < id);
        shards.insert(at, (id, shard));
    }

    pub(super) fn get<S: 'static>(&self, id: u64) -> Option<Rc<S>> {
        let shards = self.0.borrow();
        let at = shards.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Rc::downcast(Rc::clone(&shards[at].1)).ok()
    }

    pub(super) fn remove<S: 'static>(&self, id: u64) -> Option<Rc<S>> {
        let removed = {
            let mut shards = self.0.borrow_mut();
            let at = shards.binary_search_by_key(&id, |(id, _)| *id).ok()?;
            shards.remove(at).1
        };
        Rc::downcast(removed).ok()
    }

    /// At the end of the core: drops the values that were not stopped, here, one by one.
    pub(crate) fn clear(&self) {
        loop {
            // The borrow ends first, because a destructor may look for another shard.
            let next = self.0.borrow_mut().pop();
            let Some(shard) = next else { return };
            contained("the destructor of a shard", || drop(shard));
        }
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        // Drops the values that destructors have made since.
        self.clear();
    }
}
