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
