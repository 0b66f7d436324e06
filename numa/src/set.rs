//! Ordered sets of CPUs and of nodes, in the kernel's list form (`0-3,8`) and in its bit mask form.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::{
    Error, Result,
    ids::{CpuId, NodeId},
};

/// A set of CPUs. See [`IdSet`].
pub type CpuSet = IdSet<CpuId>;
/// A set of nodes. See [`IdSet`].
pub type NodeSet = IdSet<NodeId>;

/// No Linux has a CPU or node number this high (`NR_CPUS` is at most 8192 and `MAX_NUMNODES` 1024 in today's
/// kernels). The bound keeps a typing error such as `0-4000000000` from taking the machine's memory.
const BOUND: u32 = 1 << 16;

/// The word in which the kernel counts bits of a mask (`unsigned long` in `mbind(2)` and
/// `sched_setaffinity(2)`).
pub(crate) type Word = libc::c_ulong;

/// A kind of number that an [`IdSet`] holds: [`CpuId`] or [`NodeId`], nothing else.
pub trait Id: Copy + Ord + fmt::Display + sealed::Number {}

impl Id for CpuId {}
impl Id for NodeId {}

mod sealed {
    use super::{CpuId, NodeId};

    /// What sets need of a number. Nobody else sees it.
    pub trait Number {
        /// What the number names, in an error message.
        const WHAT: &'static str;
        fn from_index(index: u32) -> Self;
        fn index(self) -> u32;
    }

    impl Number for CpuId {
        const WHAT: &'static str = "CPU";
        fn from_index(index: u32) -> Self {
            Self(index)
        }
        fn index(self) -> u32 {
            self.0
        }
    }

    impl Number for NodeId {
        const WHAT: &'static str = "node";
        fn from_index(index: u32) -> Self {
            Self(index)
        }
        fn index(self) -> u32 {
            self.0
        }
    }
}

/// An ordered set of CPU or node numbers. `FromStr` and `Display` use the kernel's list form (`0-3,8`; see
/// "List format" in cpuset(7)). The empty string is the empty set, as in the `cpulist` of a node without
/// CPUs.
///
/// ```
/// use annulus_numa::{CpuId, CpuSet};
/// let set: CpuSet = "8,0-3".parse()?;
/// assert!(set.contains(CpuId(2)) && set.len() == 5);
/// assert_eq!(set.to_string(), "0-3,8");
/// assert!("0-x".parse::<CpuSet>().unwrap_err().to_string().contains("\"0-x\""));
/// # Ok::<(), annulus_numa::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdSet<I: Id>(BTreeSet<I>);

impl<I: Id> IdSet<I> {
    /// The empty set.
    pub const fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = I> + ExactSizeIterator + Clone + '_ {
        self.0.iter().copied()
    }

    /// Whether `id` is a member.
    pub fn contains(&self, id: I) -> bool {
        self.0.contains(&id)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lowest member.
    pub fn first(&self) -> Option<I> {
        self.0.first().copied()
    }

    /// The highest member.
    pub fn last(&self) -> Option<I> {
        self.0.last().copied()
    }

    /// Inserts `id`. True when it was not there.
    pub fn insert(&mut self, id: I) -> bool {
        self.0.insert(id)
    }

    /// The members that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.0.intersection(&other.0).copied().collect()
    }

    /// Whether every member is one of `other`'s too.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// The set that sysfs writes as hexadecimal words of 32 bits, the highest first: `00000001,00000003` is
    /// 0, 1 and 32. None for text that is not such a mask.
    pub fn from_hex_mask(text: &str) -> Option<Self> {
        let mut set = Self::new();
        for (index, word) in text.trim().rsplit(',').enumerate() {
            let word = u32::from_str_radix(word, 16).ok()?;
            let first = u32::try_from(index).ok()?.checked_mul(32).filter(|&first| first < BOUND)?;
            set.extend((0..32).filter(|bit| word >> bit & 1 == 1).map(|bit| I::from_index(first + bit)));
        }
        Some(set)
    }

    /// The set as the bit mask that system calls take. The highest member decides its length, so that more
    /// than 64 nodes or 1024 CPUs are no special case.
    pub(crate) fn to_mask(&self) -> Vec<Word> {
        let words = self.last().map_or(0, |last| (last.index() / Word::BITS) as usize + 1);
        let mut mask = vec![0; words];
        for id in self.iter() {
            mask[(id.index() / Word::BITS) as usize] |= 1 << (id.index() % Word::BITS);
        }
        mask
    }

    /// The set that a system call wrote as a bit mask.
    pub(crate) fn from_mask(mask: &[Word]) -> Self {
        (0..mask.len() as u32 * Word::BITS)
            .filter(|&i| mask[(i / Word::BITS) as usize] >> (i % Word::BITS) & 1 == 1)
            .map(I::from_index)
            .collect()
    }
}

impl<I: Id> Default for IdSet<I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Id> FromIterator<I> for IdSet<I> {
    fn from_iter<T: IntoIterator<Item = I>>(ids: T) -> Self {
        Self(ids.into_iter().collect())
    }
}

impl<I: Id> Extend<I> for IdSet<I> {
    fn extend<T: IntoIterator<Item = I>>(&mut self, ids: T) {
        self.0.extend(ids);
    }
}

impl<I: Id> From<I> for IdSet<I> {
    fn from(id: I) -> Self {
        [id].into_iter().collect()
    }
}

impl<I: Id> fmt::Display for IdSet<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids = self.iter().map(I::index).peekable();
        let mut comma = "";
        while let Some(from) = ids.next() {
            let mut to = from;
            while let Some(next) = ids.next_if_eq(&(to + 1)) {
                to = next;
            }
            if from == to {
                write!(f, "{comma}{from}")?
            } else {
                write!(f, "{comma}{from}-{to}")?
            }
            comma = ",";
        }
        Ok(())
    }
}

impl<I: Id> FromStr for IdSet<I> {
    type Err = Error;

    /// # Errors
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) when a piece between two commas is not a number or a
    /// range; it names the piece.
    fn from_str(list: &str) -> Result<Self> {
        let list = list.trim();
        let mut set = Self::new();
        if list.is_empty() {
            return Ok(set);
        }
        for piece in list.split(',') {
            let bad = |why: &str| {
                Error::input(format!(
                    "{piece:?} in the {} list {list:?} {why}; write numbers and ranges such as 0-3,8",
                    I::WHAT
                ))
            };
            let number = |text: &str| match text.parse::<u32>() {
                // `parse` takes a leading plus sign, the kernel does not.
                Ok(n) if text.starts_with(|c: char| c.is_ascii_digit()) && n < BOUND => Ok(n),
                Ok(n) if n >= BOUND => Err(bad("is a higher number than any Linux machine has")),
                _ => Err(bad("is not a number or a range")),
            };
            let (from, to) = match piece.split_once('-') {
                Some((from, to)) => (number(from)?, number(to)?),
                None => (number(piece)?, number(piece)?),
            };
            if from > to {
                return Err(bad("runs backwards"));
            }
            set.extend((from..=to).map(I::from_index));
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for (list, same) in [("", ""), ("0\n", "0"), ("0-3,8", "0-3,8"), ("8,1,0", "0-1,8"), ("5-5", "5")] {
            assert_eq!(list.parse::<CpuSet>().unwrap().to_string(), same);
        }
    }

    #[test]
    fn a_bad_piece_is_named() {
        for (list, piece) in [
            ("0,x", "\"x\""),
            ("0-", "\"0-\""),
            ("1,,2", "\"\""),
            ("3-1", "\"3-1\""),
            ("-1", "\"-1\""),
            ("+1", "\"+1\""),
            ("0 1", "\"0 1\""),
            ("0-4000000000", "\"0-4000000000\""),
            ("99999999999", "\"99999999999\""),
        ] {
            let error = list.parse::<NodeSet>().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Input);
            assert!(error.to_string().contains(piece), "{list}: {error}");
            assert!(error.to_string().contains("node list"), "{error}");
        }
    }

    #[test]
    fn a_mask_has_as_many_words_as_its_highest_member_needs() {
        assert_eq!(NodeSet::new().to_mask(), Vec::<Word>::new());
        assert_eq!(NodeSet::from(NodeId(63)).to_mask(), [1 << 63]);
        assert_eq!(NodeSet::from(NodeId(64)).to_mask(), [0, 1]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_on_the_way(ids in proptest::collection::btree_set(0_u32..1100, 0..40)) {
            let set: CpuSet = ids.iter().copied().map(CpuId).collect();
            prop_assert_eq!(&set.to_string().parse::<CpuSet>().unwrap(), &set);
            prop_assert_eq!(&CpuSet::from_mask(&set.to_mask()), &set);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _either = text.parse::<CpuSet>();
        }
    }
}
