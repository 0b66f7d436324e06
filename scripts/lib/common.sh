# shellcheck shell=bash
# What every script here shares: where things are, how to speak, how to stop, what to install. Sourced, not run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
[[ $TARGET == /* ]] || TARGET=$ROOT/$TARGET
export CARGO_TARGET_DIR=$TARGET

# Building and linking: hwlocality asks the linker for libudev beside libhwloc. gcc brings no C library headers by itself.
# shellcheck disable=SC2034 # the scripts that source this read it
BUILD_PACKAGES=(gcc libc6-dev pkg-config libhwloc-dev libnuma-dev libudev-dev)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }
bad_usage() { say "$*"; exit 2; }

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi
}

# Whether we may install: as root, or through sudo.
can_be_root() { [[ $(id -u) == 0 ]] || command -v sudo >/dev/null; }

# need_packages NAME...: installs the Debian packages that are missing, and only those.
need_packages() {
    local missing
    if ! command -v apt-get >/dev/null; then
        say "no apt-get here: going on in the hope that the equivalents of these are installed: $*"
        return
    fi
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    can_be_root ||
        die "these packages are missing, and there is neither root nor sudo to install them: ${missing[*]}
  as root, run: apt-get update && apt-get install --no-install-recommends ${missing[*]}"
    say "installing ${missing[*]}"
    update_package_lists
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -q \
        --no-install-recommends "${missing[@]}" >&2 </dev/null
}

# need_servers NAME...: as need_packages, for packages whose service would start as they are installed: it does not
# (invoke-rc.d(8), policy-rc.d).
need_servers() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [[ -e $policy ]] || ! command -v apt-get >/dev/null || [[ -z $(missing_packages "$@") ]] || ! can_be_root; then
        need_packages "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    (need_packages "$@") || status=$?
    as_root rm -f "$policy"
    return "$status"
}

# missing_packages NAME...: those that are not installed, a line each.
missing_packages() {
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || echo "$name"
    done
}

# Fetches apt's package lists, once per script.
update_package_lists() {
    [[ -z ${lists_are_fresh:-} ]] || return 0
    say "fetching the package lists (apt-get update)"
    as_root apt-get -o DPkg::Lock::Timeout=600 update -q >&2 </dev/null
    lists_are_fresh=1
}

# The oldest compiler that Cargo.toml promises, with three numbers as rustup and rustc have it.
rust_version() {
    sed -nE 's/^rust-version = "([0-9]+\.[0-9]+)(\.[0-9]+)?"/\1\2/p' "$ROOT/Cargo.toml" | sed -E 's/^[0-9]+\.[0-9]+$/&.0/'
}

# The toolchain is the one thing that no Debian 12 package offers in a version that is new enough.
need_cargo() {
    local wanted found
    wanted=$(rust_version)
    command -v cargo >/dev/null ||
        die "no cargo in PATH. Install Rust $wanted or later with rustup (https://rustup.rs), then: . ~/.cargo/env"
    found=$(rustc --version | cut -d' ' -f2)
    [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n1) == "$wanted" ]] ||
        die "rustc $found is too old: Annulus needs $wanted or later. Run: rustup update stable"
}

need_cargo_part() {
    cargo "$1" --version >/dev/null 2>&1 ||
        die "cargo $1 is missing. Run: rustup component add ${2:-$1}"
}

# package_file NAME FILE: brings FILE out of the Debian package NAME without installing it, and prints its path.
# FILE may be a pattern. What was unpacked is kept under target/, so a second call asks nobody.
package_file() {
    local name=$1 pattern=$2 kept=$TARGET/debs/$1 found part
    found=$(compgen -G "$kept/$pattern" | head -n1) || true
    if [[ -z $found ]]; then
        say "fetching Debian package $name"
        mkdir -p "$TARGET/debs"
        part=$(mktemp -d "$TARGET/debs/part.XXXXXX")
        # apt warns when its own user cannot write to the folder; the fetch is the same without that user.
        (cd "$part" && apt-get -o APT::Sandbox::User=root download -q "$name" >&2 && dpkg -x ./*.deb . && rm ./*.deb)
        rm -rf "$kept"
        mv "$part" "$kept"
        found=$(compgen -G "$kept/$pattern" | head -n1) || die "package $name holds no $pattern"
    fi
    printf '%s\n' "$found"
}

# output_folder PROFILE: the folder below target/ that a profile builds into.
output_folder() { if [[ $1 == dev ]]; then echo debug; else echo "$1"; fi; }
