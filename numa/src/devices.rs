//! The nodes that network interfaces and disks belong to: their DMA, interrupts and page cache are nearest
//! there.
//!
//! The sources are the kernel's Documentation/ABI/testing/sysfs-bus-pci (`numa_node`, -1 where the firmware
//! does not say) and sysfs-class-net.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{CpuSet, Error, NodeId, Result};

/// A network interface that has a device behind it (lo, bridges and tunnels have none).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nic {
    /// Its name, such as `eth0`.
    pub name: String,
    /// The node of its device; None where the firmware does not say.
    pub node: Option<NodeId>,
    /// The kernel's driver.
    pub driver: Option<String>,
    /// Whether it is up.
    pub up: bool,
    /// Its receive queues, each with the CPUs that software steering (RPS) spreads its packets over; empty:
    /// the interrupt's own.
    pub receive_queues: Vec<CpuSet>,
    /// Its transmit queues, each with the CPUs that use it (XPS); empty: chosen by hash.
    pub transmit_queues: Vec<CpuSet>,
    /// The numbers of its device's message-signalled interrupts.
    pub interrupts: BTreeSet<u32>,
}

impl Nic {
    /// An interface of this name that is up. Nothing else of it is known: the caller fills the fields in.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            node: None,
            driver: None,
            up: true,
            receive_queues: Vec::new(),
            transmit_queues: Vec::new(),
            interrupts: BTreeSet::new(),
        }
    }
}

/// A block device that is a whole disk with hardware behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disk {
    /// Its name, such as `nvme0n1`.
    pub name: String,
    /// The node of its device; None where the firmware does not say.
    pub node: Option<NodeId>,
}

/// The network interfaces of this machine (of this network namespace) that have a device.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when /sys cannot be read. Without /sys there are no interfaces.
pub fn nics() -> Result<Vec<Nic>> {
    nics_below(Path::new("/sys"))
}

/// The interface called `name`.
///
/// # Errors
/// [`ErrorKind::Input`](crate::ErrorKind::Input) when there is no such interface; it names those that exist.
pub fn nic(name: &str) -> Result<Nic> {
    let all = nics()?;
    let names: Vec<_> = all.iter().map(|nic| nic.name.clone()).collect();
    all.into_iter().find(|nic| nic.name == name).ok_or_else(|| {
        let there = if names.is_empty() {
            "there are none".into()
        } else {
            format!("there are {}", names.join(", "))
        };
        Error::input(format!("no network interface with a device is called {name}; {there}"))
    })
}

/// The disks of this machine that have a device.
///
/// # Errors
/// As [`nics`].
pub fn disks() -> Result<Vec<Disk>> {
    disks_below(Path::new("/sys"))
}

fn nics_below(sys: &Path) -> Result<Vec<Nic>> {
    let with_device = entries(&sys.join("class/net"))?.into_iter().filter(|dir| dir.join("device").exists());
    Ok(with_device
        .map(|dir| {
            let device = dir.join("device");
            Nic {
                name: file_name(&dir),
                node: node_of(&device),
                driver: fs::read_link(device.join("driver")).ok().map(|to| file_name(&to)),
                up: word(&dir.join("operstate")).is_some_and(|state| state != "down"),
                receive_queues: queues(&dir, "rx-", "rps_cpus"),
                transmit_queues: queues(&dir, "tx-", "xps_cpus"),
                interrupts: interrupts_of(&device),
            }
        })
        .collect())
}

fn disks_below(sys: &Path) -> Result<Vec<Disk>> {
    let with_device = entries(&sys.join("block"))?.into_iter().filter(|dir| dir.join("device").exists());
    Ok(with_device.map(|dir| Disk { name: file_name(&dir), node: node_of(&dir.join("device")) }).collect())
}

/// The directories below `dir` in the order of their names; none where there is no `dir`.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed =
        |e| Error::io(format_args!("cannot list {}", dir.display()), e, "is /sys mounted and readable?");
    let listed = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in listed {
        found.push(entry.map_err(failed)?.path());
    }
    found.sort();
    Ok(found)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn word(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// A device and the buses above it. A virtio device is a child of the PCI device that has the node and the
/// interrupts.
fn device_and_parents(device: &Path) -> Vec<PathBuf> {
    // Four levels. The levels above those are bridges, which many devices share.
    fs::canonicalize(device)
        .map_or_else(|_| Vec::new(), |real| real.ancestors().take(4).map(Path::to_path_buf).collect())
}

fn node_of(device: &Path) -> Option<NodeId> {
    // The firmware leaves -1 where it knows no node, and -1 is no u32.
    device_and_parents(device).iter().find_map(|dir| word(&dir.join("numa_node"))?.parse().ok().map(NodeId))
}

fn interrupts_of(device: &Path) -> BTreeSet<u32> {
    let listed = device_and_parents(device)
        .iter()
        .find_map(|dir| entries(&dir.join("msi_irqs")).ok().filter(|l| !l.is_empty()));
    listed.unwrap_or_default().iter().filter_map(|path| file_name(path).parse().ok()).collect()
}

fn queues(dir: &Path, prefix: &str, mask: &str) -> Vec<CpuSet> {
    let queues = entries(&dir.join("queues")).unwrap_or_default();
    let ours = queues.iter().filter(|queue| file_name(queue).starts_with(prefix));
    ours.map(|queue| {
        word(&queue.join(mask)).and_then(|text| CpuSet::from_hex_mask(&text)).unwrap_or_default()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory that goes away with the test.
    struct Fixture(PathBuf);

    impl Fixture {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("annulus-devices-{}-{name}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn an_interface_is_on_the_node_of_the_bus_device_above_it() {
        let sys = Fixture::new("nic");
        sys.file("devices/pci0/0000:03/numa_node", "1\n");
        sys.file("devices/pci0/0000:03/msi_irqs/37", "msix\n");
        sys.file("devices/pci0/0000:03/msi_irqs/38", "msix\n");
        sys.file("devices/pci0/0000:03/virtio2/vendor", "x\n");
        sys.file("class/net/eth0/operstate", "up\n");
        sys.file("class/net/eth0/queues/rx-0/rps_cpus", "00000003\n");
        sys.file("class/net/eth0/queues/tx-0/xps_cpus", "00000001,00000000\n");
        sys.file("class/net/lo/operstate", "unknown\n");
        symlink(sys.0.join("devices/pci0/0000:03/virtio2"), sys.0.join("class/net/eth0/device")).unwrap();
        let nics = nics_below(&sys.0).unwrap();
        let [nic] = &nics[..] else { panic!("lo has no device: {nics:?}") };
        assert_eq!((nic.name.as_str(), nic.node, nic.up), ("eth0", Some(NodeId(1)), true));
        assert_eq!(nic.receive_queues[0].to_string(), "0-1");
        assert_eq!(nic.transmit_queues[0].to_string(), "32");
        assert_eq!(nic.interrupts, BTreeSet::from([37, 38]));
    }

    #[test]
    fn a_disk_whose_node_the_firmware_does_not_know() {
        let sys = Fixture::new("disk");
        sys.file("devices/pci0/nvme/numa_node", "-1\n");
        sys.file("block/nvme0n1/size", "1\n");
        sys.file("block/loop0/size", "1\n");
        symlink(sys.0.join("devices/pci0/nvme"), sys.0.join("block/nvme0n1/device")).unwrap();
        assert_eq!(disks_below(&sys.0).unwrap(), [Disk { name: "nvme0n1".into(), node: None }]);
    }

    #[test]
    fn without_sysfs_there_are_none() {
        assert_eq!(nics_below(Path::new("/no/such/place")).unwrap(), []);
        let error = nic("no-such-nic").unwrap_err().to_string();
        assert!(error.contains("no-such-nic") && error.contains("there "), "{error}");
    }
}
