# shellcheck shell=bash
# The contestants that are not ours: built, and named by version. Sourced, not run.

PEERS=(compio glommio monoio tokio)

# Builds each by itself: one that does not build is left out and named, and the others go on.
build_peers() {
    local peer
    for peer in "${PEERS[@]}"; do
        say "building the peer $peer"
        cargo build --release --locked --manifest-path benches/peers/Cargo.toml --target-dir "$TARGET/peers" \
            -p "peer-$peer" || say "$peer does not build here: it is left out"
    done
}

# versions: one line that says what is compared.
versions() {
    local peer
    printf 'annulus %s' "$(git describe --always --dirty 2>/dev/null || echo 'not in git')"
    for peer in "${PEERS[@]}" hyper; do
        printf ', %s %s' "$peer" "$(locked_version "$peer")"
    done
    ! command -v nginx >/dev/null || printf ', nginx %s' "$(nginx -v 2>&1 | sed 's|.*/||')"
    ! command -v haproxy >/dev/null || printf ', HAProxy %s' "$(haproxy -v | sed -nE '1s/^HAProxy version ([^ ]+).*/\1/p')"
    ! command -v redis-server >/dev/null || printf ', Redis %s' "$(redis-server --version | sed -nE 's/.* v=([^ ]+).*/\1/p')"
    printf ', %s\n' "$(rustc --version)"
}

locked_version() {
    sed -n "/^name = \"$1\"\$/{n;s/version = \"\(.*\)\"/\1/p}" benches/peers/Cargo.lock
}

# choose_cpus: sets cpu and drive_cpu to the first two CPUs that we may use.
choose_cpus() {
    local list piece first last cpus=()
    list=$(sed -n 's/^Cpus_allowed_list:\s*//p' /proc/self/status)
    for piece in ${list//,/ }; do
        first=${piece%-*} last=${piece#*-}
        while [[ $first -le $last && ${#cpus[@]} -lt 2 ]]; do cpus+=("$((first++))"); done
    done
    [[ ${#cpus[@]} == 2 ]] || die "there is one CPU only: contestant and driver would share it, and nothing could be measured"
    # shellcheck disable=SC2034 # scripts/bench reads both
    cpu=${cpus[0]} drive_cpu=${cpus[1]}
}
