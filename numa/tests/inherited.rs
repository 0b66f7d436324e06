//! What the process came with (taskset, numactl, a cpuset) bounds what is planned and placed.

use annulus_numa::{
    CpuId, CpuSet, ErrorKind, NodeId, NodeSet,
    plan::{CorePlan, CoreSelection},
    pool::NodePool,
    region::{Region, Rung},
    thread::{self, InheritedPolicy, PolicyState},
    topology::Topology,
    verify,
};

/// On a thread of its own, because what it does to itself cannot be undone.
fn apart(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(test).join().unwrap();
}

fn set_policy(mode: i32, nodes: &NodeSet) {
    let mut mask = [0_u64; 16];
    nodes.iter().for_each(|n| mask[n.0 as usize / 64] |= 1 << (n.0 % 64));
    // SAFETY: the kernel reads 1024 bits of the mask, which lives across the call.
    let rc = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask.as_ptr(), 1025) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn an_affinity_mask_bounds_the_plan() {
    let all = Topology::discover().unwrap();
    let last = all.cpus().last().unwrap().id;
    apart(move || {
        let mut mask = rustix::thread::CpuSet::new();
        mask.set(last.0 as usize);
        rustix::thread::sched_setaffinity(None, &mask).unwrap();
        let topology = Topology::discover().unwrap();
        assert_eq!(topology.cpus().iter().map(|c| c.id).collect::<CpuSet>(), last.into());
        let plan = CorePlan::new(&topology, &CoreSelection::All).unwrap();
        assert_eq!(plan.cores().len(), 1);
        let wish = |list: &str| CorePlan::new(&topology, &list.parse().unwrap()).unwrap_err();
        if last != CpuId(0) {
            let error = wish("0");
            assert_eq!(error.kind(), ErrorKind::Input);
            assert!(error.to_string().starts_with("CPU 0 is not allowed"), "{error}");
        }
        assert!(wish("60000").to_string().starts_with("CPU 60000 does not exist"));
        // Nobody is sent to a CPU that the plan does not know either.
        let mut core = plan.cores()[0].clone();
        core.cpu = CpuId(8000);
        let error = thread::spawn_pinned("nowhere".into(), &core, || ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert_eq!(thread::affinity_of_current().unwrap(), last.into(), "and the creator is back");
    });
}

#[test]
fn a_binding_bounds_pools_and_threads_and_is_kept() {
    let all = Topology::discover().unwrap();
    if !all.numa_available() {
        println!("skipped: this kernel has no NUMA, hence no memory binding");
        return;
    }
    for node in all.memory_nodes().iter() {
        let others: Vec<NodeId> = all.memory_nodes().iter().filter(|&n| n != node).collect();
        apart(move || {
            set_policy(libc::MPOL_BIND, &node.into());
            assert_eq!(thread::inherited_policy(), InheritedPolicy::Bind(node.into()));
            let topology = Topology::discover().unwrap();
            assert_eq!(topology.memory_nodes(), NodeSet::from(node));
            let plan = CorePlan::new(&topology, &CoreSelection::All).unwrap();
            assert!(plan.cores().iter().all(|c| c.memory == node));
            for core in plan.cores() {
                let state = thread::spawn_pinned("bound".into(), core, move || {
                    assert_eq!(thread::inherited_policy(), InheritedPolicy::Bind(node.into()));
                    let stack = verify::stack_of_current_thread().unwrap();
                    let pages = verify::where_pages_lie(stack.start as *const u8, stack.len()).unwrap();
                    assert_eq!(pages.off(node), 0, "{pages}");
                    thread::placement_of_current().unwrap().life
                });
                assert_eq!(state.unwrap().join().unwrap(), PolicyState::Bound(node.into()));
            }
            let pool = NodePool::new(plan.cores(), 1 << 20).unwrap();
            let pages = verify::where_pages_lie(pool.region().as_ptr(), pool.region().len()).unwrap();
            assert!(pool.region().placement().rung == Rung::Bound && pages.all_on(node), "{pages}");
            for other in others {
                let error = Region::new(other, 4096).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Input);
                assert!(error.to_string().contains("memory binding"), "{error}");
            }
            assert_eq!(thread::inherited_policy(), InheritedPolicy::Bind(node.into()), "kept");
        });
    }
}

#[test]
fn a_preference_is_overridden_on_our_threads_and_reported() {
    let all = Topology::discover().unwrap();
    if !all.numa_available() {
        println!("skipped: this kernel has no NUMA, hence no policy");
        return;
    }
    for node in all.memory_nodes().iter() {
        let all = all.clone();
        apart(move || {
            set_policy(libc::MPOL_PREFERRED, &node.into());
            let plan = CorePlan::new(&all, &CoreSelection::All).unwrap();
            for core in plan.cores() {
                let memory = core.memory;
                let placed = thread::spawn_pinned("placed".into(), core, move || {
                    let stack = verify::stack_of_current_thread().unwrap();
                    let pages = verify::where_pages_lie(stack.start as *const u8, stack.len()).unwrap();
                    assert_eq!(pages.off(memory), 0, "not where the wrapper would have it: {pages}");
                    thread::placement_of_current().unwrap()
                });
                let placed = placed.unwrap().join().unwrap();
                assert_eq!(placed.inherited, InheritedPolicy::Preferred(node.into()));
                assert!(matches!(placed.life, PolicyState::Local | PolicyState::Preferred(_)), "{placed:?}");
            }
            assert_eq!(thread::inherited_policy(), InheritedPolicy::Preferred(node.into()), "kept");
        });
    }
}

#[test]
fn interleaving_is_overridden_on_our_threads_and_reported() {
    let all = Topology::discover().unwrap();
    if !all.numa_available() {
        println!("skipped: this kernel has no NUMA, hence no policy");
        return;
    }
    apart(move || {
        set_policy(libc::MPOL_INTERLEAVE, &all.memory_nodes());
        let plan = CorePlan::new(&all, &CoreSelection::All).unwrap();
        let placed = thread::spawn_pinned("placed".into(), &plan.cores()[0], || {
            thread::placement_of_current().unwrap()
        });
        let placed = placed.unwrap().join().unwrap();
        assert_eq!(placed.inherited, InheritedPolicy::Interleave(all.memory_nodes()));
        assert!(matches!(placed.life, PolicyState::Local | PolicyState::Preferred(_)), "{placed:?}");
        assert_eq!(thread::inherited_policy(), placed.inherited, "the creator keeps its own");
    });
}

#[test]
fn every_node_with_memory_takes_a_region_and_others_are_refused() {
    let all = Topology::discover().unwrap();
    // Also nodes without CPUs, and those numbered above 63, whose mask has a second word.
    for node in all.memory_nodes().iter() {
        let region = Region::new(node, 600 << 10).unwrap();
        println!("{}", region.placement());
        assert!(region.placement().pages.all_on(node), "{}", region.placement());
        if all.numa_available() {
            assert_eq!(region.placement().rung, Rung::Bound, "{}", region.placement());
        }
        assert_eq!(region.len(), 600 << 10);
        assert_eq!(region.as_ptr() as usize % 4096, 0);
    }
    let missing = Region::new(NodeId(999), 4096).unwrap_err();
    assert!(missing.kind() == ErrorKind::Input && missing.to_string().contains("node 999"), "{missing}");
    for node in all.nodes().iter().filter(|n| n.memory_total == 0) {
        assert!(Region::new(node.id, 4096).unwrap_err().to_string().contains("has no memory"));
    }
    assert_eq!(Region::new(NodeId(0), 0).unwrap_err().kind(), ErrorKind::Input);
    assert_eq!(Region::new(NodeId(0), usize::MAX).unwrap_err().kind(), ErrorKind::Input);
}
