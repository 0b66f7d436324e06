//! What happens where a container refuses the calls: each rung of the ladder, reached by a seccomp filter,
//! with its reason and its remedy, and the pages on their node all the same, because the thread that touches
//! them is pinned.

#[path = "common/seccomp.rs"]
mod seccomp;

use annulus_numa::{
    NodeId,
    plan::{CorePlan, CoreSelection, PlannedCore},
    pool::NodePool,
    region::{Region, Rung},
    thread::{self, InheritedPolicy, PolicyState},
    topology::Topology,
    verify::{self, How},
};
use seccomp::Deny;

const LEN: usize = 1 << 20;

/// Everything that Docker's default profile refuses of what we call.
fn containers_default() -> [Deny; 4] {
    [libc::SYS_mbind, libc::SYS_set_mempolicy, libc::SYS_get_mempolicy, libc::SYS_move_pages].map(Deny::call)
}

/// Runs `test` on a thread of its own with the filter in force, once for each core.
fn under(calls: &[Deny], test: fn(PlannedCore)) {
    let topology = Topology::discover().unwrap();
    if !topology.numa_available() {
        println!("skipped: this kernel has no NUMA, hence no call to refuse");
        return;
    }
    for core in CorePlan::new(&topology, &CoreSelection::All).unwrap().cores().to_vec() {
        let calls = calls.to_vec();
        let filtered = std::thread::spawn(move || {
            seccomp::refuse(&calls);
            test(core);
        });
        filtered.join().unwrap();
    }
}

fn region_on(core: &PlannedCore) -> Region {
    let node = core.memory;
    let made = thread::spawn_pinned("region".into(), core, move || Region::new(node, LEN));
    made.unwrap().join().unwrap().unwrap()
}

/// Both halves of a sentence that tells a person what to do.
fn assert_told(reason: Option<&str>, remedy: Option<&str>, call: &str) {
    let (reason, remedy) = (reason.unwrap(), remedy.unwrap());
    assert!(
        reason.contains(call) && reason.contains("not permitted") && reason.contains("seccomp"),
        "{reason}"
    );
    assert!(remedy.contains("CAP_SYS_NICE") && remedy.contains("seccomp profile"), "{remedy}");
}

fn assert_all_on(region: &Region, node: NodeId, how: How) {
    let pages = verify::where_pages_lie(region.as_ptr(), region.len()).unwrap();
    assert_eq!(pages.how, how, "{pages}");
    assert!(pages.all_on(node), "{pages}");
}

#[test]
fn without_mbind_the_first_touch_of_a_pinned_thread_decides() {
    under(&[Deny::call(libc::SYS_mbind)], |core| {
        let region = region_on(&core);
        let placement = region.placement();
        assert_eq!(placement.rung, Rung::FirstTouch);
        assert_told(placement.reason.as_deref(), placement.remedy.as_deref(), "mbind");
        assert!(placement.to_string().contains("first touch"), "{placement}");
        assert_all_on(&region, core.memory, How::MovePages);
    });
}

#[test]
fn where_only_binding_is_refused_the_region_stays_preferred() {
    under(&[Deny::when(libc::SYS_mbind, 2, libc::MPOL_BIND as u32)], |core| {
        let region = region_on(&core);
        let placement = region.placement();
        assert_eq!(placement.rung, Rung::Preferred);
        assert_told(placement.reason.as_deref(), placement.remedy.as_deref(), "mbind(MPOL_BIND)");
        assert_all_on(&region, core.memory, How::MovePages);
    });
}

#[test]
fn where_nobody_may_move_pages_the_kernels_accounts_are_read() {
    under(&[Deny::call(libc::SYS_move_pages)], |core| {
        let region = region_on(&core);
        let placement = region.placement();
        assert_eq!((placement.rung, &placement.reason), (Rung::Bound, &None), "{placement}");
        assert_eq!(placement.pages.refused, Some(libc::EPERM));
        assert!(placement.to_string().contains("move_pages being refused"), "{placement}");
        assert_all_on(&region, core.memory, How::NumaMaps);
    });
}

#[test]
fn under_a_containers_default_profile_everything_still_lies_right() {
    under(&containers_default(), |core| {
        let pool = NodePool::new(std::slice::from_ref(&core), LEN).unwrap();
        let placement = pool.region().placement();
        assert_eq!(placement.rung, Rung::FirstTouch, "{placement}");
        assert_told(placement.reason.as_deref(), placement.remedy.as_deref(), "mbind");
        assert_all_on(pool.region(), core.memory, How::NumaMaps);
        assert_eq!(thread::inherited_policy(), InheritedPolicy::Unknown(libc::EPERM));
        // The machine is still known.
        let topology = Topology::discover().unwrap();
        assert!(topology.cpu(core.cpu).is_some() && topology.numa_available());
    });
}

#[test]
fn a_refused_policy_does_not_keep_a_thread_from_starting_and_is_recorded() {
    for (call, name) in
        [(libc::SYS_set_mempolicy, "set_mempolicy"), (libc::SYS_get_mempolicy, "get_mempolicy")]
    {
        let check: fn(PlannedCore) = |core| {
            let before = thread::affinity_of_current().unwrap();
            let started = thread::spawn_pinned("refused".into(), &core, || {
                let stack = verify::stack_of_current_thread().unwrap();
                let pages = verify::where_pages_lie(stack.start as *const u8, stack.len()).unwrap();
                (thread::placement_of_current().unwrap(), thread::affinity_of_current().unwrap(), pages)
            });
            let (placement, affinity, stack) = started.unwrap().join().unwrap();
            assert_eq!(affinity, core.cpu.into());
            assert_eq!(thread::affinity_of_current().unwrap(), before);
            assert_eq!(stack.off(core.memory), 0, "the pinned creator touched it first: {stack}");
            for state in [placement.birth, placement.life] {
                let PolicyState::Refused { reason, remedy } = state else { panic!("{state} is no refusal") };
                assert_told(Some(&reason), Some(&remedy), "et_mempolicy");
            }
        };
        println!("{name}");
        under(&[Deny::call(call)], check);
    }
}
