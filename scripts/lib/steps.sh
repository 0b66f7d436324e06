# shellcheck shell=bash
# The steps of scripts/test. Sourced, not run.
#
# Each builds with the same profile, flags and features as the ones before it, so that nothing is compiled twice:
# `--workspace` everywhere (a lone package would resolve other features of the dependencies), no RUSTFLAGS.

# shellcheck disable=SC2034 # scripts/test reads both
STEPS=(fmt shellcheck layers clippy msrv doc test no-c-libs played hostile unprivileged embed crates deny)
# shellcheck disable=SC2034
TEST_PACKAGES=(curl patch wrk shellcheck iproute2 numactl util-linux procps jq qemu-system-x86 python3-prometheus-client systemd
    openssl nghttp2-client bind9-dnsutils python3-websockets strace bsdutils)
# Servers of others, and their tools, that stand before and behind the program in tests.
# shellcheck disable=SC2034
TEST_SERVERS=(nginx libnginx-mod-stream haproxy redis-server redis-tools postgresql)

step_fmt() {
    need_cargo_part fmt rustfmt
    cargo fmt --all --check
    local manifest
    for manifest in fuzz/Cargo.toml benches/peers/Cargo.toml; do
        cargo fmt --all --check --manifest-path "$manifest"
    done
}

# Every script of ours: those that begin with a shell's line, and those that are sourced and say so.
step_shellcheck() {
    local scripts
    mapfile -t scripts < <(git grep -lE '^#!.*[ /](ba)?sh$|^# shellcheck shell=' -- scripts .ci)
    shellcheck --version | sed -n 2p
    shellcheck --external-sources "${scripts[@]}"
    echo "${#scripts[@]} scripts"
}

# Crates depend on those that they may, arrows between files point down, circles are few, files short, comments narrow, and
# files and flags that pages name are there.
step_layers() {
    cargo test -q -p annulus-layers
    cargo run -q -p annulus-layers
}

step_clippy() {
    need_cargo_part clippy
    cargo clippy --workspace --all-targets -- -D warnings
    # The fuzzer's targets take in files of ours. Nothing is linked, so its C++ library need not be built.
    CUSTOM_LIBFUZZER_PATH=/none/libfuzzer.a RUSTFLAGS="--cfg fuzzing" \
        cargo clippy --manifest-path fuzz/Cargo.toml --locked --target-dir "$TARGET/fuzz-clippy" -- -D warnings
}

# With exactly the compiler that Cargo.toml promises, in a target folder of its own.
step_msrv() {
    local version
    version=$(rust_version)
    if ! RUSTUP_TOOLCHAIN=$version cargo --version 2>/dev/null | grep -qF "cargo $version"; then
        command -v rustup >/dev/null ||
            not_needed "no rustup here, so Rust $version, which Cargo.toml promises, cannot be had beside $(rustc -V)" \
                "install rustup (https://rustup.rs)"
        rustup toolchain install "$version" --profile minimal ||
            not_needed "Rust $version, which Cargo.toml promises, cannot be had here" "rustup toolchain install $version"
    fi
    # What people build; tests and benches are ours alone, and checking them twice would cost a minute.
    RUSTUP_TOOLCHAIN=$version cargo check --workspace --locked --target-dir "$TARGET/msrv"
}

step_doc() {
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps
    scripts/lib/cancellation
}

# Unit, integration and doc tests; the integration tests drive the program annulus, which is built here for them.
step_test() {
    build_tests
    PROMTOOL=$(promtool) ANNULUS_BIN=$TARGET/debug/annulus ANNULUS_PEERS=required cargo test --workspace --no-fail-fast
}

# Where Prometheus' checker is. Its package would bring a server that starts by itself, so one program is taken out of it.
promtool() {
    type -P promtool || { command -v apt-get >/dev/null && package_file prometheus usr/bin/promtool; } || echo promtool
}

# Cores that are played, each from a number that no run before had: completions in any order, faults at any byte. A failure
# prints the number; `scripts/play NUMBER` shows its steps. For a minute, or as long as SECONDS_OF_PLAY says; --full plays ten minutes more.
step_played() {
    # The faults that scripts/refind puts back still fit the code.
    local fault
    for fault in runtime/src/played/faults/*.patch; do
        patch --dry-run --silent --force -p1 <"$fault" || { echo "$fault does not fit the code any more" && return 1; }
    done
    build_tests
    play "${SECONDS_OF_PLAY:-60}"
}

# play SECONDS: new seeds for so long, a fourth of it of the server's connections. What a run began with follows from its time.
play() {
    local runtime server
    runtime=$(test_programs runtime | grep -E '/annulus-[0-9a-f]*$')
    server=$(test_programs server | grep -E '/annulus-[0-9a-f]*$')
    export PLAY_SEED=$(($(date +%s) * 100000))
    PLAY_SECONDS=$(($1 * 3 / 4)) "$runtime" --exact --ignored --nocapture played::tests::for_a_while
    PLAY_SECONDS=$(($1 / 4)) "$server" --exact --ignored --nocapture serve::played::for_a_while
}

# The test programs of the runtime, once more on a host whose subscriber and wakers spawn, submit, drop and panic.
step_hostile() {
    build_tests
    local programs
    mapfile -t programs < <(test_programs runtime | grep -v '/annulus-[0-9a-f]*$')
    scripts/lib/hostile "${programs[@]}"
}

# Test programs that ask for nothing that root alone has, nor reach a limit that does not bind root: step unprivileged leaves
# them to unprivileged-all, of --full.
SAME_FOR_NOBODY='/(proxy_(bulk|churn|ends|faults|itself|limits|long|names|overload|peers|reload|towards|udp|upstreams)|serve_(clients|conditions|directories|heads|ranges|refusals|rules)|samples|upgrade|reload|clients|examples(_with_crates)?|tls|deploy)-'

# The tests that touch the kernel, once more as a user whom pipe, memlock and mbind limits bind, as they do not bind root.
step_unprivileged() {
    as_nobody_without "$SAME_FOR_NOBODY"
}

# as_nobody_without PATTERN: runs the test programs whose path does not match. They and the program under test are copied out
# of the checkout, because that may lie where only root can read.
as_nobody_without() {
    [[ $(id -u) == 0 ]] ||
        not_needed "step test ran as user $(id -un) already, who is not root" "run scripts/test as root to see both"
    build_tests
    local program programs status=0
    place=$(mktemp -d) # not local: the trap runs after this function
    trap 'rm -rf "$place"' EXIT
    mapfile -t programs < <(test_programs 'numa|runtime|integration-tests' | grep -vE "$1")
    copy_for_nobody "$place" "${programs[@]}"
    for program in "$place"/*; do
        [[ -f $program && $program != "$place/annulus" ]] || continue
        echo "-- as nobody: ${program##*/}"
        as_nobody "$place" "$program" || status=1
    done
    return "$status"
}

# copy_for_nobody PLACE PROGRAM...: these, the program under test and the examples, and a home for nobody.
copy_for_nobody() {
    local place=$1
    mkdir "$place/home" "$place/examples" "$place/tools"
    install "$(type -P "$(promtool)")" "$place/tools/promtool"
    install "${@:2}" "$TARGET/debug/annulus" "$place"
    find "$TARGET/debug/examples" -maxdepth 1 -type f -executable ! -name '*-*' -exec install -t "$place/examples" {} +
    chown nobody: "$place/home"
    chmod 755 "$place"
}

# as_nobody PLACE COMMAND...: in PLACE/home, with the memlock limit that Linux gives everyone but root (8 MiB).
as_nobody() (
    cd "$1/home" || exit
    ulimit -l 8192
    exec env HOME="$1/home" TMPDIR="$1/home" ANNULUS_BIN="$1/annulus" ANNULUS_EXAMPLES="$1/examples" \
        PROMTOOL="$1/tools/promtool" ANNULUS_PEERS=required \
        setpriv --reuid=nobody --regid=nogroup --clear-groups --no-new-privs --inh-caps=-all "${@:2}"
)

# build_tests [ARGUMENTS OF cargo build]: libraries, programs and tests of the workspace, or what the arguments name. Notes
# which test programs were built.
build_tests() {
    [[ $# -gt 0 ]] || set -- --workspace --lib --bins --examples --tests
    cargo build "$@" --message-format=json-render-diagnostics |
        jq -r 'select(.reason == "compiler-artifact" and .profile.test and .executable)
            | "\(.manifest_path | split("/")[-2]) \(.executable)"' >"$LOGS/test-programs"
}

# The test programs of step no-c-libs.
test_programs_without_c() {
    cargo test -p annulus-numa --no-default-features --no-run --message-format=json-render-diagnostics |
        jq -r 'select(.profile.test and .executable).executable'
}

# test_programs PATTERN: those of the packages whose folder matches.
test_programs() { sed -nE "s/^($1) //p" "$LOGS/test-programs"; }

# The same code without the C libraries: what they say and do, /sys and the system calls say and do.
step_no_c_libs() {
    cargo clippy -p annulus-numa --no-default-features --all-targets -- -D warnings
    cargo test -p annulus-numa --no-default-features
}

# A small application outside the workspace that depends on the crate by path: shows that what the linker needs
# travels with the crate, and that the public face is enough for a stranger. The program of the documentation's front page is
# built beside it, as it stands there, and has to echo. Both once more without default features, and so without a C library.
step_embed() {
    app=$(mktemp -d) # not local: the trap runs after this function
    trap 'rm -rf "$app"' EXIT
    make_app "$app/with" ''
    run_app "$app/with"
    refuse_app "$app/with"
    make_app "$app/without" ', default-features = false'
    run_app "$app/without"
    [[ -z $(c_libraries "$TARGET/debug/embed") ]] || die "linked with $(c_libraries "$TARGET/debug/embed")"
}

# The libraries that can be published, packed as they would be and each built from what was packed. The program is left to --full.
step_crates() { pack_crates annulus-libraries annulus-numa annulus-macros annulus; }

# pack_crates NAME...: with the debug information of the workspace, so that what it has built is used again.
pack_crates() {
    local version
    version=$(cargo --version | cut -d' ' -f2)
    [[ $(printf '%s\n' 1.90.0 "$version" | sort -V | head -n1) == 1.90.0 ]] ||
        not_needed "cargo $version cannot build packages from each other before they are published" "install Rust 1.90 or later"
    CARGO_PROFILE_DEV_DEBUG=line-tables-only cargo package --locked --allow-dirty "${@/#/--package=}"
}

# Licences, bans and sources, by deny.toml; the advisories need a database that cargo-deny would fetch from outside. Not
# offline: to see the licences of other platforms' crates it has cargo fetch them.
step_deny() {
    command -v cargo-deny >/dev/null ||
        not_needed "cargo-deny is not installed, and building it takes longer than all the rest" "cargo install --locked cargo-deny"
    cargo deny --locked check bans licenses sources
}

# Modules that are state machines without a kernel: a guest can say nothing new of them, and emulated, their thousands
# of random cases would take minutes.
PURE=(time::wheel:: op::slots:: sync::mailbox:: buf::returns:: buf::fragments:: played::tests::)

step_guest() {
    guest_tests --kernel 6.12 2node
    guest_serve --kernel 6.12 2node
}

# guest_tests [OPTIONS OF numa-vm] SHAPE: the tests of numa and runtime, and of numa without C libraries, on machines of that shape, one after the other with as
# many test programs as a machine of 1 GiB has room for; all of them even if one fails.
guest_tests() {
    build_tests
    local program with=() list=() size=0 status=0
    while read -r program; do
        with+=(--with "$program")
        list+=("/with/${program##*/}")
        # As numa-vm packs it, without debug information, it is about a third of this.
        size=$((size + $(stat -c %s "$program") / 1048576))
        if ((size >= 450)); then
            guest_part "$@" || status=1
            with=() list=() size=0
        fi
    done < <(test_programs 'numa|runtime' && test_programs_without_c)
    ((size == 0)) || guest_part "$@" || status=1
    return "$status"
}

# guest_part [OPTIONS OF numa-vm] SHAPE: the test programs of guest_tests that are in `with` and `list`.
guest_part() {
    LIMIT=${LIMIT:-900} in_guest "${with[@]}" --with "$(type -P numactl)" --env RUST_BACKTRACE=1 \
        --env "LEAVE_OUT=${PURE[*]/#/--skip=}" "$@" scripts/lib/run-test-programs "${list[@]}"
}

# in_guest ARGUMENTS OF numa-vm: once more when the machine died without a status (99). Seen once in some fifty boots: the
# emulation trips over the kernel's patching of its own code (a panic by int3), which is no fault of what is tested.
in_guest() {
    local status=0
    scripts/numa-vm "$@" || status=$?
    [[ $status == 99 ]] || return "$status"
    say "the guest died without a status: once more"
    scripts/numa-vm "$@"
}

# guest_serve [OPTIONS OF numa-vm] SHAPE: the program at work on one machine of that shape; DRIVEN: so many requests more.
guest_serve() {
    [[ -x $TARGET/debug/annulus && -x $TARGET/debug/drive ]] || build_tests
    in_guest --with "$TARGET/debug/annulus" --with "$TARGET/debug/drive" --with scripts/lib/strays --with scripts/lib/guest-stacks \
        --with scripts/lib/guest-operate --env "DRIVEN=${DRIVEN:-1000}" \
        --with "$(type -P numactl)" --with "$(type -P numastat)" "$@" scripts/lib/guest-serve
}
