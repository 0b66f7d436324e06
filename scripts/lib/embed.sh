# shellcheck shell=bash
# An application outside the workspace that depends on the crate by path. Sourced, not run.

# make_app FOLDER MORE: two programs, `embed` and the documentation's front page as it stands there, which listens on
# $front_port. MORE is what Cargo.toml says of the crate beside its path, such as ', default-features = false'.
make_app() {
    mkdir -p "$1/src/bin"
    cp "$ROOT/scripts/embed/main.rs" "$1/src"
    # A port that nobody listens on, in place of the page's.
    front_port=7000
    while (exec 3<>"/dev/tcp/127.0.0.1/$front_port") 2>/dev/null; do front_port=$((front_port + 1)); done
    front_page | sed "s/127\.0\.0\.1:7000/127.0.0.1:$front_port/" >"$1/src/bin/front-page.rs"
    grep -q "127.0.0.1:$front_port" "$1/src/bin/front-page.rs"
    cp "$ROOT/Cargo.lock" "$1"
    cat >"$1/Cargo.toml" <<TOML
[package]
name = "embed"
version = "0.0.0"
edition = "2024"
[dependencies]
annulus = { path = "$ROOT/runtime"$2 }
[profile.dev]
debug = "line-tables-only" # as in the workspace, so that what it has built is used again
TOML
}

# The program of the front page.
# shellcheck disable=SC2016 # backquotes are the page's
front_page() {
    sed -n '/^\/\/! `src\/main.rs`, the whole of it:/,/^\/\/! ```$/p' "$ROOT/runtime/src/lib.rs" |
        sed '1,/```no_run/d; /```$/d; s,^//! \{0\,1\},,'
}

# run_app FOLDER: builds both programs; the first has to talk to itself, the second to echo.
run_app() {
    local server status=0
    (cd "$1" && cargo run --bin embed && cargo build --bin front-page)
    "$TARGET/debug/front-page" &
    server=$!
    echoes "$front_port" "$server" || status=1
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    return "$status"
}

# refuse_app FOLDER: the compiler refuses borrowed memory, and says what to give in its place.
refuse_app() {
    local said hint
    cp "$ROOT/scripts/embed/refused.rs" "$1/src/bin"
    said=$(cd "$1" && cargo build --bin refused 2>&1) && die "scripts/embed/refused.rs compiles"
    # shellcheck disable=SC2016 # backquotes are the compiler's
    for hint in 'not a buffer that the kernel can read from' '`Vec<u8>` (`slice.to_vec()`' \
        'not a buffer that the kernel can fill' 'give `Vec::with_capacity(n)` or a `Block`'; do
        grep -qF "$hint" <<<"$said" || die "the compiler does not say: $hint; it says: $said"
    done
    rm "$1/src/bin/refused.rs"
}

# echoes PORT PID: a line to the server, and back.
echoes() {
    local back
    until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        kill -0 "$2" || return 1
        sleep 0.1
    done
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    echo "hello from the front page" >&3
    read -r -t 30 back <&3 || return 1
    exec 3>&-
    [[ $back == "hello from the front page" ]] || return 1
    echo "heard: $back"
}

# c_libraries PROGRAM: which of the C libraries that are features it is linked with, a line each.
c_libraries() { LC_ALL=C ldd "$1" | awk '$1 ~ /^lib(hwloc|numa|udev)\./ { print $1 }'; }
