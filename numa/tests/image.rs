//! The program's image, copied to the node that a process runs on: same addresses, same bytes, pages of that
//! node.
//!
//! Without the test harness, whose threads stand in the way. For each node that has CPUs and memory the
//! program starts itself there.
//!
//! Seen to fail: with nothing put in place of the constants, they are still mappings of files, and not all of
//! their pages are there.

use std::{collections::BTreeMap, hint::black_box, os::fd::AsRawFd, process::Command};

use annulus_numa::{
    CpuSet, NodeId,
    image::{self, Kind},
    plan::{CorePlan, CoreSelection},
    thread::{affinity_of_current, inherited_policy, starting_at},
    topology::Topology,
    verify::{How, where_pages_lie},
};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

const NODE: &str = "ANNULUS_TEST_NODE";
const SKIPPED: &str = "skipped: a sanitizer has started a thread before main";
/// Lies among the constants, and is larger than a page.
static TABLE: [u64; 2048] = [0x0123_4567_89ab_cdef; 2048];

fn main() {
    if let Ok(node) = std::env::var(NODE) {
        return on_node(NodeId(node.parse().expect("a number")));
    }
    #[cfg(target_arch = "x86_64")]
    if let Ok(nth) = std::env::var(out_of_memory::NTH) {
        return out_of_memory::copy(nth.parse().expect("a number"));
    }
    on_each_node();
    #[cfg(target_arch = "x86_64")]
    out_of_memory::at_each_constant();
}

fn on_each_node() {
    let topology = Topology::discover().expect("a machine");
    let plan = CorePlan::new(&topology, &CoreSelection::All).expect("cores");
    let (affinity, policy) = (affinity_of_current().expect("CPUs"), inherited_policy());
    let nodes: BTreeMap<NodeId, CpuSet> = (plan.by_memory().into_iter())
        .map(|(node, cores)| (node, cores.iter().map(|core| core.cpu).collect()))
        .collect();
    assert!(!nodes.is_empty());
    for (node, cpus) in &nodes {
        let mut command = Command::new("/proc/self/exe");
        command.env(NODE, node.to_string());
        let status =
            starting_at(cpus, Some(*node), || command.status()).expect("going there").expect("starting");
        assert!(status.success(), "the process on node {node} ended with {status}");
    }
    assert_eq!(affinity_of_current().expect("CPUs"), affinity, "the starter is back where it was");
    assert_eq!(inherited_policy(), policy, "with the policy that it had");
    // With a second thread nothing is touched.
    std::thread::scope(|scope| {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || held.recv());
        // SAFETY: nothing else maps or loads anything here.
        let refused = unsafe { image::bring_here() }.expect_err("another thread runs");
        assert!(refused.to_string().contains("other threads"), "{refused}");
        drop(hold);
    });
    println!("image: copied on nodes {nodes:?}");
}

fn on_node(node: NodeId) {
    let table = black_box(&TABLE).as_ptr().addr() + 8192;
    let sum = || black_box(&TABLE).iter().fold(0u64, |sum, word| sum.wrapping_mul(31).wrapping_add(*word));
    let before = sum();
    if std::fs::read_dir("/proc/self/task").expect("threads").count() > 1 {
        println!("{SKIPPED}");
        return;
    }
    // As one whose file has capabilities: what of it in /proc is readable for its user only is root's then.
    // Seen to fail, as nobody: with /proc/self/mem opened.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).expect("it may");
    let foreign = MappedFile::new();
    // SAFETY: the only thread; no handler of a signal is installed.
    let image = unsafe { image::bring_here() }.expect("one thread");
    foreign.must_be_its_file_still(&image);
    assert_eq!(sum(), before, "the constants hold what they held");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    for segment in &image {
        let range = segment.addresses.clone();
        let pages = where_pages_lie(std::ptr::without_provenance(range.start), range.len()).expect("a look");
        // What the kernel cannot tell is no failure of ours; it says so.
        let told = pages.how != How::Blind && pages.unknown == 0;
        match segment.kind {
            Kind::Code => continue,
            Kind::Constants => {
                let line = maps.lines().find(|line| holds(line, range.start)).unwrap_or("nothing");
                assert!(line.contains(" r--p ") && !line.contains('/'), "{segment}: {line}");
                assert!(!told || pages.all_on(node), "{segment} on node {node}: {pages}");
            }
            _ => assert!(!told || pages.all_on(node), "{segment} on node {node}: {pages}"),
        }
    }
    let ours = |kind| image.iter().any(|segment| segment.kind == kind && segment.file.starts_with("image"));
    assert!(ours(Kind::Constants) && ours(Kind::Variables) && ours(Kind::Code), "{image:?}");
    assert!(
        image.iter().any(|segment| segment.kind == Kind::Constants && segment.addresses.contains(&table)),
        "the table was copied: {table:x}"
    );
    // Unwinding reads tables that were copied, and names are still found.
    let caught = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(7)));
    assert_eq!(caught.expect_err("it panicked").downcast_ref::<i32>(), Some(&7));
    // A thread reads the loader's records of the image.
    assert_eq!(std::thread::spawn(|| TABLE[17]).join().expect("a thread"), TABLE[17]);
}

/// A private mapping of a file, to be read only, that is not the loader's: as debug files and locale archives
/// are mapped.
struct MappedFile(usize);

impl MappedFile {
    fn new() -> Self {
        let file = std::fs::File::open("/proc/self/exe").expect("this program");
        // SAFETY: a new mapping at an address of the kernel's choice; it stays until the process ends.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), 8192, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        assert_ne!(memory, libc::MAP_FAILED);
        Self(memory.addr())
    }

    /// Seen to fail: with every private mapping of a file taken for a part of the image.
    fn must_be_its_file_still(&self, image: &[image::Segment]) {
        assert!(image.iter().all(|segment| !segment.addresses.contains(&self.0)), "{image:x?}");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let line = maps.lines().find(|line| holds(line, self.0)).unwrap_or("nothing");
        assert!(line.contains(" r--p ") && line.contains('/'), "it was copied: {line}");
    }
}

/// Whether a line of /proc/self/maps is the mapping that holds `address`.
fn holds(line: &str, address: usize) -> bool {
    let ends = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
    let number = |text| usize::from_str_radix(text, 16).expect("an address");
    ends.is_some_and(|(start, end)| (number(start)..number(end)).contains(&address))
}

/// The kernel unmaps what is at the new address before it moves a mapping there, and then may have no memory
/// for the move: a filter traps the call, and the handler does this.
#[cfg(target_arch = "x86_64")]
mod out_of_memory {
    use std::{
        ffi::{c_int, c_void},
        os::unix::process::ExitStatusExt,
        process::Command,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use annulus_numa::image;

    use super::SKIPPED;

    pub(super) const NTH: &str = "ANNULUS_TEST_NO_MEMORY";
    /// What the handler's own calls have where mremap(2) has no argument.
    const OWN: u32 = 0x616e_6e75;
    static LEFT: AtomicUsize = AtomicUsize::new(0);
    static HAS_FIRED: AtomicBool = AtomicBool::new(false);
    /// What a process says that runs on after a move that had no memory.
    const RAN_ON: &[u8] = b"ran on\n";

    /// The process ends at once, whichever mapping is gone: it never runs on without it. Seen to fail, by
    /// SIGSEGV at the first: with the error returned and nothing looked at; and by the mark of one that ran
    /// on until it fell over the mapping that is gone.
    pub(super) fn at_each_constant() {
        if std::env::var_os("ASAN_OPTIONS").is_some() {
            return println!(
                "image: not ended by lack of memory: the address sanitizer needs its constants to end"
            );
        }
        for nth in 0.. {
            let output = Command::new("/proc/self/exe").env(NTH, nth.to_string()).output().expect("starting");
            let (status, said) = (output.status, String::from_utf8_lossy(&output.stderr));
            assert!(
                !output.stdout.ends_with(RAN_ON),
                "it ran on without mapping {nth}, and ended with {status}"
            );
            if status.success() {
                if String::from_utf8_lossy(&output.stdout).contains(SKIPPED) {
                    println!("{SKIPPED}");
                    return;
                }
                assert!(nth > 2, "the program, its C library and its loader have constants: {nth}");
                println!("image: ended by lack of memory at each of {nth} mappings");
                return;
            }
            // What the C library reads when a call fails may be what is gone: then the process ends by that.
            assert!(
                matches!(status.signal(), Some(libc::SIGABRT | libc::SIGSEGV)),
                "at mapping {nth}: {status}: {said}"
            );
            if nth == 0 {
                assert_eq!(status.signal(), Some(libc::SIGABRT), "{said}");
                assert!(said.contains("out of memory while the program's constants were moved"), "{said}");
            }
        }
    }

    /// Copies the image, and has no memory for the move of the `nth` mapping.
    pub(super) fn copy(nth: usize) {
        if std::fs::read_dir("/proc/self/task").expect("threads").count() > 1 {
            println!("{SKIPPED}");
            return;
        }
        // No core file.
        super::set_dumpable_behavior(super::DumpableBehavior::NotDumpable).expect("it may");
        LEFT.store(nth, Ordering::Relaxed);
        // Made before: the constants may be what is gone then.
        let ran_on = RAN_ON.to_vec();
        trap();
        // SAFETY: the only thread; the handler maps what the kernel would.
        let copied = unsafe { image::bring_here() };
        if HAS_FIRED.load(Ordering::Relaxed) {
            // By no function of a library: what those read may be gone. SAFETY: write(2) reads a vector of
            // ours of this length; the instruction overwrites rax, rcx and r11, nothing else.
            unsafe {
                std::arch::asm!("syscall", inout("rax") libc::SYS_write => _, in("rdi") i64::from(libc::STDOUT_FILENO),
                    in("rsi") ran_on.as_ptr(), in("rdx") ran_on.len(), out("rcx") _, out("r11") _, options(nostack));
            }
        }
        copied.expect("one thread");
    }

    fn trap() {
        const NUMBER: u32 = 0;
        const LAST_ARGUMENT: u32 = 16 + 5 * 8;
        let step = |code: u32, k: u32, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
        let answer = |what| step(libc::BPF_RET | libc::BPF_K, what, 0, 0);
        let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
        let is = |value, jt, jf| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, jt, jf);
        let filter = [
            load(NUMBER),
            is(libc::SYS_mremap as u32, 0, 3),
            load(LAST_ARGUMENT),
            is(OWN, 1, 0),
            answer(libc::SECCOMP_RET_TRAP),
            answer(libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: plain calls on memory of ours that outlives them; the handler makes system calls and uses
        // an atomic, nothing else.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = trapped as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()), 0);
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
        }
    }

    extern "C" fn trapped(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: the kernel gives a handler with SA_SIGINFO the registers of the call that was trapped. The
        // calls are those that the kernel would make for it: the whole of it, or only the first half.
        unsafe {
            let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
            let [from, len, new_len, flags, to] =
                [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8]
                    .map(|register| registers[register as usize]);
            let left = LEFT.load(Ordering::Relaxed);
            LEFT.store(left.wrapping_sub(1), Ordering::Relaxed);
            registers[libc::REG_RAX as usize] = if left == 0 {
                HAS_FIRED.store(true, Ordering::Relaxed);
                libc::munmap(std::ptr::without_provenance_mut(to as usize), new_len as usize);
                -i64::from(libc::ENOMEM)
            } else {
                libc::syscall(libc::SYS_mremap, from, len, new_len, flags, to, i64::from(OWN))
            };
        }
    }
}
