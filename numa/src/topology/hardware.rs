//! The lines of `numactl --hardware`.

use std::fmt;

use super::Description;
use crate::NodeSet;

/// Displays a machine exactly as `numactl --hardware` does (numactl 2.0.16), so that what people know how to read, and scripts
/// that parse it, work unchanged. Sizes are in MB of 2^20 bytes, rounded down, as there.
#[derive(Clone, Copy, Debug)]
pub struct Hardware<'a>(pub(super) &'a Description);

impl fmt::Display for Hardware<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Description { numa, cpus, nodes, .. } = self.0;
        if !numa {
            return writeln!(f, "No NUMA available on this system");
        }
        let ids: NodeSet = nodes.iter().map(|n| n.id).collect();
        writeln!(f, "available: {} nodes ({ids})", nodes.len())?;
        for node in nodes {
            write!(f, "node {} cpus:", node.id)?;
            for cpu in cpus.iter().filter(|c| c.node == node.id) {
                write!(f, " {}", cpu.id)?;
            }
            writeln!(f)?;
            writeln!(f, "node {} size: {} MB", node.id, node.memory_total >> 20)?;
            writeln!(f, "node {} free: {} MB", node.id, node.memory_free >> 20)?;
        }
        writeln!(f, "node distances:")?;
        write!(f, "node ")?;
        for id in ids.iter() {
            column(f, id.0, " ")?;
        }
        writeln!(f)?;
        for from in ids.iter() {
            column(f, from.0, ": ")?;
            for to in ids.iter() {
                column(f, self.0.distance(from, to), " ")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A number as C's `% 3d` prints it: at least three wide, and always with a space (or a sign) before the digits.
fn column(f: &mut fmt::Formatter<'_>, number: u32, after: &str) -> fmt::Result {
    write!(f, " {number:>2}{after}")
}
