//! The kernel's own accounts of this process's memory, for where move_pages(2) is refused: proc(5),
//! /proc/pid/numa_maps, /proc/pid/maps and /proc/pid/pagemap.

use std::{collections::BTreeMap, fs, io::Read, io::Seek, io::SeekFrom, ops::Range};

use super::{How, PageMap};
use crate::{NodeId, sys};

/// The pages of a range by the accounts. None when they cannot be read or do not make sense; the caller then
/// tries the next way.
pub(super) fn read(range: Range<usize>) -> Option<PageMap> {
    // numa_maps has only the start of a mapping; maps has its end too.
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let accounts = fs::read_to_string("/proc/self/numa_maps").ok()?;
    account(&maps, &accounts, range, sys::page_size())
}

pub(super) fn account(maps: &str, accounts: &str, range: Range<usize>, page: usize) -> Option<PageMap> {
    let accounts: BTreeMap<usize, Pages> =
        accounts.lines().filter_map(|line| Pages::read(line, page)).collect();
    let mut map = PageMap::new(How::NumaMaps);
    let mut mapped = 0;
    for mapping in maps.lines().filter_map(mapping) {
        let part = mapping.start.max(range.start)..mapping.end.min(range.end);
        if part.is_empty() {
            continue;
        }
        let pages = part.len() / page;
        mapped += pages;
        // A mapping that changed between the two reads has no account.
        let Some(account) = accounts.get(&mapping.start) else {
            map.unknown += pages;
            continue;
        };
        let present: usize = account.0.values().sum();
        if part == mapping {
            for (&node, &count) in &account.0 {
                map.count(node, count);
            }
            map.absent += pages.saturating_sub(present);
        } else {
            match account.0.iter().next() {
                None => map.absent += pages,
                // All pages are on one node and none is missing, so the same is true of a part.
                Some((&node, _)) if account.0.len() == 1 && present == mapping.len() / page => {
                    map.count(node, pages);
                }
                _ => map.unknown += pages,
            }
        }
    }
    map.absent += range.len() / page - mapped;
    Some(map)
}

/// Pages of one mapping by node.
struct Pages(BTreeMap<NodeId, usize>);

impl Pages {
    /// Reads a line such as `7f0000000000 bind:0 anon=3 dirty=3 N0=2 N1=1 kernelpagesize_kB=4`. The counts
    /// are in the mapping's own page size.
    fn read(line: &str, page: usize) -> Option<(usize, Self)> {
        let mut words = line.split_whitespace();
        let start = usize::from_str_radix(words.next()?, 16).ok()?;
        let (mut pages, mut scale) = (BTreeMap::new(), 1);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            if let Some(node) = key.strip_prefix('N').and_then(|n| n.parse().ok()) {
                pages.insert(NodeId(node), value.parse().ok()?);
            } else if key == "kernelpagesize_kB" {
                scale = (value.parse::<usize>().ok()? * 1024 / page).max(1);
            }
        }
        pages.values_mut().for_each(|count| *count *= scale);
        Some((start, Self(pages)))
    }
}

/// The addresses in a line such as `7f0000000000-7f0000003000 rw-p ...`.
pub(crate) fn mapping(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// How many pages of the range have memory, from /proc/self/pagemap (bit 63 of each entry; readable without
/// privilege).
pub(super) fn present_pages(range: Range<usize>) -> Option<usize> {
    let page = sys::page_size();
    let mut file = fs::File::open("/proc/self/pagemap").ok()?;
    file.seek(SeekFrom::Start((range.start / page * 8) as u64)).ok()?;
    let mut entries = vec![0; range.len() / page * 8];
    file.read_exact(&mut entries).ok()?;
    Some(entries.chunks_exact(8).filter(|entry| entry[7] & 0x80 != 0).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;
    const MAPS: &str = "\
10000-14000 rw-p 00000000 00:00 0
14000-18000 rw-p 00000000 00:00 0
20000-22000 rw-p 00000000 00:00 0    [heap]
400000-800000 rw-p 00000000 00:00 0
";
    const ACCOUNTS: &str = "\
10000 bind:0 anon=4 dirty=4 active=0 N0=4 kernelpagesize_kB=4
14000 default anon=3 dirty=3 N0=2 N1=1 kernelpagesize_kB=4
400000 bind:1 file=/anon_hugepage huge anon=1 dirty=1 N1=1 kernelpagesize_kB=2048
";

    fn at(range: Range<usize>) -> PageMap {
        account(MAPS, ACCOUNTS, range, PAGE).unwrap()
    }

    #[test]
    fn whole_mappings_are_exact() {
        let map = at(0x10000..0x18000);
        assert_eq!((map.on(NodeId(0)), map.on(NodeId(1)), map.absent, map.unknown), (6, 1, 1, 0));
        assert_eq!(map.pages(), 8);
        assert!(!map.all_on(NodeId(0)));
        assert_eq!(map.off(NodeId(0)), 1);
    }

    #[test]
    fn a_part_is_known_when_the_whole_leaves_no_choice() {
        let full = at(0x11000..0x13000);
        assert_eq!((full.on(NodeId(0)), full.unknown), (2, 0));
        assert!(full.all_on(NodeId(0)));
        let mixed = at(0x15000..0x16000);
        assert_eq!((mixed.unknown, mixed.pages()), (1, 1));
    }

    #[test]
    fn huge_pages_count_as_base_pages_and_gaps_as_absent() {
        let huge = at(0x400000..0x800000);
        assert_eq!((huge.on(NodeId(1)), huge.absent), (512, 512));
        let gap = at(0x18000..0x20000);
        assert_eq!((gap.absent, gap.pages()), (8, 8));
    }

    #[test]
    fn a_mapping_without_account_is_unknown() {
        assert_eq!(at(0x20000..0x22000).unknown, 2);
    }
}
