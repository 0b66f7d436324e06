//! The page size that a region is backed with: fewer, larger pages take fewer entries of the TLB and shorter
//! walks.

use std::{fmt, fs, str::FromStr};

use crate::{Error, NodeId};

/// Bytes of a huge page (x86-64, and aarch64 with 4 KiB pages).
pub(super) const HUGE: usize = 2 << 20;

/// What a region is backed by.
///
/// ```
/// use annulus_numa::region::Backing;
/// assert_eq!("thp".parse::<Backing>()?, Backing::Transparent);
/// assert_eq!(Backing::default().to_string(), "system");
/// # Ok::<(), annulus_numa::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backing {
    /// What the administrator chose for all programs (/sys/kernel/mm/transparent_hugepage/enabled).
    #[default]
    System,
    /// Base pages only (4 KiB).
    Small,
    /// Transparent huge pages where the kernel has some (MADV_HUGEPAGE).
    Transparent,
    /// Reserved huge pages of 2 MiB (MAP_HUGETLB). Where the node has not enough of them free they are
    /// transparent ones, and the placement has the reason.
    Reserved,
    /// Reserved ones if the node has enough free, else transparent ones.
    Auto,
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::Small => "4k",
            Self::Transparent => "thp",
            Self::Reserved => "hugetlb",
            Self::Auto => "auto",
        })
    }
}

impl FromStr for Backing {
    type Err = Error;

    /// # Errors
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) for any other word.
    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "system" => Self::System,
            "4k" => Self::Small,
            "thp" => Self::Transparent,
            "hugetlb" => Self::Reserved,
            "auto" => Self::Auto,
            _ => {
                let what = format!("{text:?} is no size of pages; write system, 4k, thp, hugetlb or auto");
                return Err(Error::input(what));
            }
        })
    }
}

impl Backing {
    /// The multiple, in bytes, to which the length of a region with this backing may be rounded up.
    pub fn multiple(self) -> usize {
        if self == Self::Auto { HUGE } else { self.granule(crate::sys::page_size()) }
    }

    /// The multiple to which lengths and addresses of such regions are rounded up.
    pub(super) fn granule(self, page: usize) -> usize {
        if matches!(self, Self::Transparent | Self::Reserved) { HUGE } else { page }
    }

    /// What is to be tried on a node, since `Auto` and `Reserved` depend on what is free there. Where that is
    /// not what was asked, the reason and the remedy come with it.
    pub(super) fn on(self, node: NodeId, len: usize) -> (Self, Option<(String, String)>) {
        let wanted = len.div_ceil(HUGE);
        let free = || free_pages(node).unwrap_or(0);
        match self {
            Self::Auto | Self::Reserved if free() >= wanted => (Self::Reserved, None),
            Self::Auto => (Self::Transparent, None),
            Self::Reserved => (Self::Transparent, Some(lacking(node, wanted, free()))),
            other => (other, None),
        }
    }
}

/// Why there are no reserved huge pages, and how to have some.
pub(super) fn lacking(node: NodeId, wanted: usize, free: usize) -> (String, String) {
    let why = format!(
        "node {node} has {free} reserved huge pages free of the {wanted} wanted: transparent ones instead"
    );
    (why, format!("as root: echo {wanted} > {}/nr_hugepages", dir(node)))
}

fn dir(node: NodeId) -> String {
    format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB")
}

fn free_pages(node: NodeId) -> Option<usize> {
    fs::read_to_string(format!("{}/free_hugepages", dir(node))).ok()?.trim().parse().ok()
}
