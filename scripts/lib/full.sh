# shellcheck shell=bash
# The slow steps of scripts/test --full. Sourced, not run. What is built with other flags has a folder of its own
# under target/, so that it does not throw out what the quick steps built.

# shellcheck disable=SC2034 # scripts/test reads it
FULL_STEPS=(guest guest-6.1 guest-4odd guest-4odd-6.1 guest-8node guest-8node-6.1 relays meter instructions asan asan-hostile tsan loom provenance
    aarch64 fuzz upgrade package image chart)
HOST=x86_64-unknown-linux-gnu

# All of them, as nobody.
FULL_STEPS+=(unprivileged-all)
step_unprivileged_all() {
    as_nobody_without '^$'
}

# The step played for ten minutes more.
FULL_STEPS+=(played-long)
step_played_long() {
    build_tests
    play "${SECONDS_OF_PLAY:-600}"
}

# Faults that were mended, put back one at a time: a play finds each.
FULL_STEPS+=(refind)
step_refind() { scripts/refind; }

step_guest_6.1() { on_shape 6.1 2node; }
step_guest_4odd() { on_shape 6.12 4odd; }
step_guest_4odd_6.1() { on_shape 6.1 4odd; }
step_guest_8node() { on_shape 6.12 8node; }
step_guest_8node_6.1() { on_shape 6.1 8node; }

on_shape() {
    guest_tests --kernel "$1" "$2"
    DRIVEN=10000 guest_serve --kernel "$1" "$2"
}

# The tests of relays that take minutes: two thousand connections at once for a minute, ten GiB with pauses, ten minutes of
# all kinds of connections, as root and as nobody.
step_relays() {
    build_tests -p annulus-server -p annulus-integration-tests --bin annulus --test proxy_churn --test proxy_long
    local program programs
    mapfile -t programs < <(test_programs integration-tests | grep -E '/proxy_(churn|long)-[0-9a-f]*$')
    for program in "${programs[@]}"; do
        ANNULUS_BIN=$TARGET/debug/annulus "$program" --ignored --test-threads=1
    done
    [[ $(id -u) == 0 ]] || return 0
    place=$(mktemp -d) # not local: the trap runs after this function
    trap 'rm -rf "$place"' EXIT
    copy_for_nobody "$place" "${programs[@]}"
    for program in "${programs[@]}"; do
        as_nobody "$place" "$place/${program##*/}" --ignored --test-threads=1
    done
}

# What of the running server's work leaves its node, beside nginx, and where its pages lie: a short run of the locality meter.
step_meter() { scripts/meter --check; }

# What spans, the stall sampler's word and the times of polls cost while nobody asks for them.
step_instructions() { scripts/instructions --check; }

# Nightly, because the sanitizers are not in stable Rust.
need_nightly() {
    cargo +nightly --version >/dev/null 2>&1 ||
        cannot "no nightly toolchain, and $1 is not in stable Rust" "rustup toolchain install nightly"
}

# Memory errors of the unsafe code: use after free, out of bounds. Leaks are not looked for: what the kernel may still
# write to, and a task of a core that has ended, are leaked by design. Locals stay on the real stack, because the
# tests look where a thread's stack lies.
step_asan() {
    need_nightly "the address sanitizer"
    ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 RUSTFLAGS=-Zsanitizer=address \
        sanitized_tests asan -p annulus-numa -p annulus --lib --tests --no-fail-fast
}

# The same for the test programs of the runtime on the hostile host.
step_asan_hostile() {
    need_nightly "the address sanitizer"
    export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0
    local programs
    mapfile -t programs < <(RUSTFLAGS=-Zsanitizer=address sanitized_tests asan -p annulus --tests --no-run \
        --message-format=json-render-diagnostics |
        jq -r 'select(.profile.test and .executable and .target.kind == ["test"]).executable')
    PATIENCE=600 scripts/lib/hostile "${programs[@]}"
}

# Data races. An uninstrumented standard library hides its fences and the lock that a Condvar takes again, so that correct code
# is reported. Its source comes with nightly's rust-src, or from Debian, which packages a compiler with the source it is built
# from. Without either, only the lock-free modules are looked at, which use nothing of it.
step_tsan() {
    need_nightly "the thread sanitizer"
    export RUSTFLAGS=-Zsanitizer=thread
    if [[ -d $(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library ]] || use_debian_rust; then
        # The one test left out counts how often a core sleeps while a thread starts: the sanitizer's pthread_create(3) waits
        # for the new thread.
        sanitized_tests tsan -Zbuild-std -p annulus-numa -p annulus --lib --tests --no-fail-fast -- \
            --skip a_step_does_not_hold_its_core_up
        return
    fi
    echo "only the lock-free modules; for the rest: rustup component add --toolchain nightly rust-src"
    unset RUSTC RUSTC_BOOTSTRAP LD_LIBRARY_PATH
    export TSAN_OPTIONS="suppressions=$ROOT/scripts/lib/tsan-suppressions"
    RUSTFLAGS+=" -Cunsafe-allow-abi-mismatch=sanitizer"
    # The one test left out ends in thread::scope, whose last wait is such a hidden one.
    sanitized_tests tsan -p annulus --lib -- sync::mailbox:: buf::returns:: --skip tasks_woken_from_other_threads
}

# Makes cargo use Debian's compiler, unpacked under target/ and not installed, with the sanitizer's runtime of nightly, which
# Debian leaves out. False where it cannot be had, or is older than what we need.
use_debian_rust() {
    local place=$TARGET/debs/rustc-web names part wanted
    command -v apt-get >/dev/null || return 1
    # What its LLVM is linked with.
    need_packages libedit2 libxml2 libz3-4
    if [[ ! -d $place ]]; then
        names=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
            --no-enhances rustc-web | grep -xE 'rustc-web|libstd-rust-web-[0-9a-z.]+|libllvm[0-9]+' | sort -u)
        mkdir -p "$TARGET/debs"
        part=$(mktemp -d "$TARGET/debs/part.XXXXXX")
        # shellcheck disable=SC2086 # names of packages
        (cd "$part" && apt-get -o APT::Sandbox::User=root download -q $names rust-web-src >&2 &&
            for deb in ./*.deb; do dpkg -x "$deb" . && rm "$deb" || exit; done &&
            cp "$(rustc +nightly --print target-libdir)/librustc-nightly_rt.tsan.a" \
                "usr/lib/rustlib/$HOST/lib/librustc-stable_rt.tsan.a") || { rm -rf "$part"; return 1; }
        mv "$part" "$place"
    fi
    export RUSTC=$place/usr/bin/rustc RUSTC_BOOTSTRAP=1 LD_LIBRARY_PATH=$place/usr/lib/x86_64-linux-gnu
    wanted=$(rust_version)
    [[ $(printf '%s\n' "$wanted" "$("$RUSTC" -V | cut -d' ' -f2)" | sort -V | head -n1) == "$wanted" ]]
}

# With --target, so that the flags reach neither build scripts nor macros. Doc tests run without sanitizers in step test.
sanitized_tests() {
    cargo +nightly test --target "$HOST" --target-dir "$TARGET/$1" "${@:2}"
}

# Every order of steps that the threads of the lock-free parts can take, up to so many preemptions.
step_loom() {
    # Without a warning, so that nothing is left over that only other builds use.
    RUSTFLAGS="--cfg loom -D warnings" cargo check -p annulus --lib --tests --target-dir "$TARGET/loom-check"
    # Optimised, because the orders are many; not linked as for a release, because that takes longer than the tests.
    LOOM_MAX_PREEMPTIONS=${LOOM_MAX_PREEMPTIONS:-4} RUSTFLAGS="--cfg loom" \
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo test --release -p annulus --lib --target-dir "$TARGET/loom" loom
}

# No pointer is made from an integer, nor the other way, without saying where its provenance comes from.
step_provenance() {
    need_nightly "the lint for strict provenance"
    local package
    for package in annulus-numa annulus annulus-server; do
        cargo +nightly rustc -p "$package" --profile check --target-dir "$TARGET/provenance" -- \
            "-Zcrate-attr=feature(strict_provenance_lints)" -D lossy_provenance_casts -D fuzzy_provenance_casts
    done
}

# The other architecture that people run servers on: it has other widths of C types. Checked, not linked, because the C
# libraries of that architecture are not at hand.
step_aarch64() {
    rustup target add aarch64-unknown-linux-gnu ||
        not_needed "rustup cannot add the target aarch64-unknown-linux-gnu" "rustup target add aarch64-unknown-linux-gnu"
    PKG_CONFIG_ALLOW_CROSS=1 cargo check --workspace --target aarch64-unknown-linux-gnu --target-dir "$TARGET/aarch64"
}

# Each target of fuzz/ for some seconds, from what fuzz/corpus/ holds: that they build and still find nothing.
# FUZZ_SECONDS=600 is for a change of what they look at.
step_fuzz() {
    need_nightly "what the fuzzer builds with"
    command -v cargo-fuzz >/dev/null || cargo install --locked --root "$TARGET/tools" cargo-fuzz
    local name names found=$TARGET/fuzz-found
    mapfile -t names < <(sed -n '/^\[\[bin\]\]/,$s/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml)
    for name in "${names[@]}"; do
        mkdir -p "$found/$name" "fuzz/corpus/$name"
        # What it finds new goes to the first folder, which is not in the repository.
        (cd fuzz && PATH=$TARGET/tools/bin:$PATH cargo +nightly fuzz run --target-dir "$TARGET/fuzz" "$name" \
            "$found/$name" "corpus/$name" -- -max_total_time="${FUZZ_SECONDS:-10}" -print_final_stats=1)
    done
}

# An application on a Debian tree that has a Rust toolchain and no library of ours, without default features and with them.
FULL_STEPS+=(embed-alone)
step_embed_alone() {
    [[ $(id -u) == 0 ]] || cannot "making a Debian tree needs root" "run scripts/test as root"
    scripts/fresh-tree scripts/lib/embed-alone
}

# All crates that can be published, the program too.
FULL_STEPS+=(crates-all)
step_crates_all() { pack_crates annulus-libraries annulus-numa annulus-macros annulus annulus-server; }

# Whether a public item went away, or changed, that the last release had.
FULL_STEPS+=(semver)
step_semver() {
    local last
    last=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null) ||
        not_needed "nothing has been released: there is no tag v1.2.3 to compare with" "tag what is published"
    cargo semver-checks --version >/dev/null 2>&1 ||
        not_needed "cargo-semver-checks is not installed, and building it takes minutes" "cargo install --locked cargo-semver-checks"
    cargo semver-checks --baseline-rev "$last" -p annulus-numa -p annulus
}
