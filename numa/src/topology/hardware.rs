//! The lines of `numactl --hardware`.

use std::fmt;

use super::Description;
use crate::NodeSet;

/// Displays a machine exactly as `numactl --hardware` does (numactl 2.0.16), so that people can read it as
/// before and scripts that parse it work unchanged. Sizes are in MB of 2^20 bytes, rounded down, as there.
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

/// Writes a number as C's `% 3d` prints it: at least three wide, and always with a space (or a sign) before
/// the digits.
fn column(f: &mut fmt::Formatter<'_>, number: u32, after: &str) -> fmt::Result {
    write!(f, " {number:>2}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CpuId, NodeId,
        topology::{CpuFacts, NodeFacts, Topology},
    };

    #[test]
    fn two_nodes_print_as_numactl_prints_them() {
        let node = |id, distances: [u32; 3]| NodeFacts {
            id: NodeId(id),
            memory_total: if id == 12 { 0 } else { (256 << 20) + 4096 },
            memory_free: if id == 12 { 0 } else { (200 << 20) - 1 },
            distances: distances.to_vec(),
        };
        let machine = Description {
            numa: true,
            cpus: (0..4)
                .map(|i| CpuFacts { id: CpuId(i), node: NodeId(i / 2), package: 0, core: i, cache: None })
                .collect(),
            nodes: vec![node(0, [10, 21, 255]), node(1, [21, 10, 9]), node(12, [255, 9, 10])],
            allowed_cpus: CpuId(0).into(),
            allowed_memory: NodeId(0).into(),
        };
        // The output of C's printf("% 3d").
        let expected = "\
available: 3 nodes (0-1,12)
node 0 cpus: 0 1
node 0 size: 256 MB
node 0 free: 199 MB
node 1 cpus: 2 3
node 1 size: 256 MB
node 1 free: 199 MB
node 12 cpus:
node 12 size: 0 MB
node 12 free: 0 MB
node distances:
node   0   1  12\x20
  0:  10  21  255\x20
  1:  21  10   9\x20
 12:  255   9  10\x20
";
        assert_eq!(Topology::new(machine).unwrap().hardware().to_string(), expected);
    }
}
