//! The kernel's own accounts of this process's memory, for where move_pages(2) is refused: proc(5), /proc/pid/numa_maps,
//! /proc/pid/maps and /proc/pid/pagemap.

use std::{collections::BTreeMap, fs, io::Read, io::Seek, io::SeekFrom, ops::Range};

use super::{How, PageMap};
use crate::{NodeId, sys};

/// None when the accounts cannot be read or do not make sense; the caller then tries the next way.
pub(super) fn look(range: Range<usize>) -> Option<PageMap> {
    // numa_maps gives only where a mapping starts, maps also where it ends.
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
                // All on one node and no page missing: so is the part.
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
    /// `7f0000000000 bind:0 anon=3 dirty=3 N0=2 N1=1 kernelpagesize_kB=4`; counts are in the mapping's own page size.
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

/// `7f0000000000-7f0000003000 rw-p ...`
fn mapping(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// How many pages of the range have memory, from /proc/self/pagemap (bit 63 of each entry; readable without privilege).
pub(super) fn present_pages(range: Range<usize>) -> Option<usize> {
    let page = sys::page_size();
    let mut file = fs::File::open("/proc/self/pagemap").ok()?;
    file.seek(SeekFrom::Start((range.start / page * 8) as u64)).ok()?;
    let mut entries = vec![0; range.len() / page * 8];
    file.read_exact(&mut entries).ok()?;
    Some(entries.chunks_exact(8).filter(|entry| entry[7] & 0x80 != 0).count())
}
