//! Packages, cores and caches from sysfs alone, for builds without hwloc.
//!
//! Sources: Documentation/ABI/stable/sysfs-devices-system-cpu (`physical_package_id`, `core_cpus_list`) and
//! Documentation/ABI/testing/sysfs-devices-system-cpu (`cache/index*/{level,type,shared_cpu_list}`) of the
//! kernel. hwloc reads the same files; the tests of `agreement.rs` hold the two together.

use std::path::{Path, PathBuf};

use super::{
    parts::{Parts, Pu},
    sysfs::{Sysfs, read_if_there},
};
use crate::{CpuId, CpuSet, Result};

impl Sysfs {
    /// The CPUs of `online` with package, core and cache. A CPU of which sysfs says nothing is a core of its
    /// own in package 0, as on kernels and in sandboxes that show no `topology` folder.
    pub(super) fn parts(&self, online: &CpuSet) -> Result<Parts> {
        let cpus = online.iter().map(|id| self.cpu(id)).collect::<Result<Vec<_>>>()?;
        // Numbered through the machine, in the order of their lowest CPUs.
        let mut first: Vec<CpuId> = cpus.iter().map(|cpu| cpu.first_sibling).collect();
        first.sort_unstable();
        first.dedup();
        let number_of = |sibling| first.partition_point(|&earlier| earlier < sibling) as u32;
        let pu = |cpu: Seen| Pu {
            id: cpu.id,
            package: cpu.package,
            core: number_of(cpu.first_sibling),
            cache: cpu.first_of_cache.map(|id| id.0),
            node: None,
        };
        Ok(Parts { cpus: cpus.into_iter().map(pu).collect(), ..Parts::default() })
    }

    fn cpu(&self, id: CpuId) -> Result<Seen> {
        let dir = self.0.join(format!("devices/system/cpu/cpu{id}"));
        let topology = dir.join("topology");
        let package = read_if_there(&topology.join("physical_package_id"))?;
        // The name that it has since Linux 5.3; the other one is older and deprecated.
        let siblings = match list(&topology.join("core_cpus_list"))? {
            Some(siblings) => Some(siblings),
            None => list(&topology.join("thread_siblings_list"))?,
        };
        Ok(Seen {
            id,
            // -1 where the firmware does not say.
            package: package.and_then(|number| number.trim().parse().ok()).unwrap_or(0),
            first_sibling: lowest(id, siblings),
            first_of_cache: last_cache(&dir.join("cache"))?.map(|sharing| lowest(id, Some(sharing))),
        })
    }
}

/// A CPU as its folder describes it. Cores and caches are told apart by their lowest online CPU.
struct Seen {
    id: CpuId,
    package: u32,
    first_sibling: CpuId,
    first_of_cache: Option<CpuId>,
}

fn lowest(id: CpuId, sharing: Option<CpuSet>) -> CpuId {
    sharing.and_then(|cpus| cpus.first()).map_or(id, |first| first.min(id))
}

/// Who shares the highest level of cache for data; None where there is no cache to see.
fn last_cache(dir: &Path) -> Result<Option<CpuSet>> {
    let mut last: Option<(u32, PathBuf)> = None;
    // The kernel numbers them from 0 without holes (drivers/base/cacheinfo.c).
    for index in (0..).map(|index| dir.join(format!("index{index}"))) {
        let Some(level) = read_if_there(&index.join("level"))? else { break };
        let Ok(level) = level.trim().parse() else { continue };
        // Data, Instruction or Unified.
        let kind = read_if_there(&index.join("type"))?;
        let for_data = kind.is_some_and(|kind| kind.trim() != "Instruction");
        if for_data && last.as_ref().is_none_or(|(highest, _)| level > *highest) {
            last = Some((level, index));
        }
    }
    let Some((_, index)) = last else { return Ok(None) };
    // An empty list is a cache of which the firmware does not say who shares it.
    Ok(list(&index.join("shared_cpu_list"))?.filter(|sharing| !sharing.is_empty()))
}

fn list(path: &Path) -> Result<Option<CpuSet>> {
    read_if_there(path)?.map(|list| list.parse()).transpose()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    type Numbers = (u32, u32, u32, Option<u32>);

    /// A folder that goes away with the test.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("annulus-numa-{}-cores-{name}", std::process::id())))
        }

        /// A file below the folder of a CPU.
        fn file(&self, cpu: u32, path: &str, text: &str) {
            let path = self.0.join(format!("devices/system/cpu/cpu{cpu}/{path}"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }

        /// CPU, package, core and cache of each.
        fn read(&self, online: &str) -> Result<Vec<Numbers>> {
            let parts = Sysfs::at(&self.0).parts(&online.parse().unwrap())?;
            Ok(parts.cpus.iter().map(|pu| (pu.id.0, pu.package, pu.core, pu.cache)).collect())
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _best_effort = fs::remove_dir_all(&self.0);
        }
    }

    /// Cores that begin anew in each package, siblings far apart, and a third level that two cores share.
    #[test]
    fn siblings_packages_and_caches_are_found() {
        let machine = Machine::new("smt");
        for cpu in [0_u32, 1, 2, 3] {
            let core = cpu % 2;
            machine.file(cpu, "topology/physical_package_id", &core.to_string());
            machine.file(cpu, "topology/core_id", "0");
            machine.file(cpu, "topology/core_cpus_list", &format!("{core},{}", core + 2));
            machine.file(cpu, "cache/index0/level", "1");
            machine.file(cpu, "cache/index0/type", "Data");
            machine.file(cpu, "cache/index0/shared_cpu_list", &cpu.to_string());
            machine.file(cpu, "cache/index1/level", "3");
            machine.file(cpu, "cache/index1/type", "Unified");
            machine.file(cpu, "cache/index1/shared_cpu_list", "0-3");
            machine.file(cpu, "cache/index2/level", "4");
            machine.file(cpu, "cache/index2/type", "Instruction");
            machine.file(cpu, "cache/index2/shared_cpu_list", &cpu.to_string());
        }
        let seen = machine.read("0-3").unwrap();
        assert_eq!(seen, [(0, 0, 0, Some(0)), (1, 1, 1, Some(0)), (2, 0, 0, Some(0)), (3, 1, 1, Some(0))]);
        // Offline ones are in no list, and their cores leave no hole in the numbers.
        for cpu in [2, 3] {
            machine.file(cpu, "topology/core_cpus_list", &cpu.to_string());
        }
        let seen = machine.read("2-3").unwrap();
        assert_eq!(seen.iter().map(|pu| pu.2).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_machine_that_says_nothing_has_cores_in_one_package() {
        let machine = Machine::new("silent");
        machine.file(1, "topology/physical_package_id", "-1");
        machine.file(1, "cache/index0/level", "2");
        machine.file(1, "cache/index0/shared_cpu_list", "");
        // As kernels before 5.3 name it.
        machine.file(2, "topology/thread_siblings_list", "2-3");
        machine.file(3, "topology/thread_siblings_list", "2-3");
        let seen = machine.read("0-3").unwrap();
        assert_eq!(seen, [(0, 0, 0, None), (1, 0, 1, None), (2, 0, 2, None), (3, 0, 2, None)]);
    }

    #[test]
    fn a_broken_list_is_an_error_and_no_panic() {
        let machine = Machine::new("broken");
        machine.file(0, "topology/core_cpus_list", "zero");
        assert!(machine.read("0").unwrap_err().to_string().contains("zero"));
    }
}
