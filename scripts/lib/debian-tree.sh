# shellcheck shell=bash
# A Debian 12 tree with next to nothing in it. Sourced, not run.

# The apt sources of this machine for SUITE, else Debian's own.
mirror() {
    local found
    # shellcheck disable=SC2016 # apt expands these
    found=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
        awk -v suite="$1" '$2 == suite && $3 == "main" { print $1; exit }')
    printf '%s\n' "${found:-$2}"
}

# make_debian_tree TREE PACKAGES: with these packages, separated by commas, and this machine's ways to apt's mirrors.
make_debian_tree() {
    local tree=$1 codename=bookworm debian security name
    debian=$(mirror "$codename" http://deb.debian.org/debian)
    security=$(mirror "$codename-security" http://deb.debian.org/debian-security)
    say "making a Debian 12 tree in $tree from $debian"
    debootstrap --variant=minbase --include="$2" "$codename" "$tree" "$debian" >"$tree.log" 2>&1 ||
        { tail -n 20 "$tree.log" >&2; die "debootstrap failed; its whole output is in $tree.log"; }
    rm "$tree.log"
    cat >"$tree/etc/apt/sources.list" <<EOF
deb $debian $codename main
deb $debian $codename-updates main
deb $security $codename-security main
EOF
    # How the mirror is reached (proxy, checks of its dates), not what this machine does besides.
    grep -lEi 'Acquire::(Check-|https?::|.*Proxy)' /etc/apt/apt.conf /etc/apt/apt.conf.d/* 2>/dev/null |
        while read -r name; do cp "$name" "$tree/etc/apt/apt.conf.d/"; done || true
    cp /etc/resolv.conf /etc/hosts "$tree/etc/"
    cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/"
}

# in_namespaces COMMAND [ARGS...]: runs it with mounts and processes of its own, which end when it does, whatever of it is
# left. SIGINT and SIGTERM end all of it too, and then this shell. Nothing is on its standard input.
in_namespaces() {
    # A job has a process group of its own: it is not sent what a terminal sends us, and does not ignore SIGINT as
    # other children in the background do.
    set -m
    unshare --mount --propagation private --pid --fork --kill-child "$@" </dev/null &
    namespaces=$! # not local: the traps run after this function, too
    set +m
    trap 'end_namespaces 130' INT
    trap 'end_namespaces 143' TERM
    wait "$namespaces"
}

# end_namespaces STATUS: the first process of the namespace is killed, the kernel kills the others before that ends, and
# its parent ends last.
end_namespaces() {
    trap '' INT TERM
    local first
    read -r first <"/proc/$namespaces/task/$namespaces/children" 2>/dev/null || first=$namespaces
    kill -KILL "$first" 2>/dev/null || true
    wait "$namespaces" 2>/dev/null || true
    exit "$1"
}
