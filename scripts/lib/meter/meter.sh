# shellcheck shell=bash disable=SC2154 # scripts/numa-vm sets what this reads: guest, work, memory_mib, cpu_nodes, memory_nodes
# The locality meter's part of scripts/numa-vm: builds plugin and marks, tells the plugin how the machine's memory lies,
# and prints what it counted. Sourced, not run. docs/locality.md says what the figures mean.

METER_SOURCES=$ROOT/scripts/lib/meter

# meter_prepare page|code: adds the plugin to `machine`, and /bin/meter and /bin/mark to the guest.
meter_prepare() {
    local plugin cpu piece id from to arguments
    need_packages gcc libc6-dev binutils
    plugin=$(meter_plugin)
    gcc -O2 -Wall -Wextra -static -o "$guest/bin/mark" "$METER_SOURCES/mark.c"
    cp "$METER_SOURCES/meter" "$guest/bin/meter"
    arguments="out=$work/counts,by=$1"
    for cpu in "${cpu_nodes[@]}"; do arguments+=",cpu=$(home "$cpu")"; done
    for piece in "${memory_nodes[@]}"; do
        IFS=: read -r id from to <<<"$piece"
        arguments+=$(physical_ranges "$id" "$from" "$to")
        # The blocks of the nodes lie one after the other in QEMU's numbering, and so do their places in the machine's
        # memory: an old QEMU adds the two.
        arguments+=$(printf ',offset=%x:%x:%d' $((2 * from << 20)) $(((from + to) << 20)) "$id")
    done
    # -erms, -fsrm: else the guest's kernel copies byte by byte, and a copied byte would weigh as much as any other access.
    # shellcheck disable=SC2054 # the commas are qemu's
    machine+=(-plugin "$plugin,$arguments" -cpu max,-erms,-fsrm)
    # The guest's clock runs by what its CPUs do, 32 ns an instruction, and not by ours: else a busy host has the timers' work outweigh the
    # server's. A CPU so slow gives the kernel's NUMA balancing time for what it does on real machines.
    # shellcheck disable=SC2054 # as above
    machine+=(-icount shift=5,sleep=off)
}

# physical_ranges NODE FROM TO: MiB of the machine's memory to addresses. x86 leaves a hole for devices below 4 GiB: a q35
# machine with less than 2.75 GiB ends below it, a larger one goes on above 4 GiB after its first 2 GiB.
physical_ranges() {
    local below=$((memory_mib < 2816 ? memory_mib : 2048))
    if (($2 < below)); then printf ',range=%x:%x:%d' $(($2 << 20)) $((($3 < below ? $3 : below) << 20)) "$1"; fi
    if (($3 > below)); then
        printf ',range=%x:%x:%d' $(((($2 > below ? $2 : below) - below + 4096) << 20)) $((($3 - below + 4096) << 20)) "$1"
    fi
}

# The plugin for the installed QEMU, which takes plugins of some versions of its interface only: tried until one is taken.
meter_plugin() {
    local api told built=$TARGET/numa-vm/meter
    mkdir -p "$built"
    for api in 1 2 3 4 5 6; do
        gcc -O2 -Wall -Wextra -std=gnu11 -fPIC -shared -DAPI=$api -o "$built/locality-$api.so" "$METER_SOURCES/locality.c"
        if told=$(qemu-system-x86_64 -plugin "$built/locality-$api.so" -machine none -display none -nodefaults \
            -monitor stdio <<<quit 2>&1); then
            printf '%s\n' "$built/locality-$api.so"
            return
        fi
    done
    die "this QEMU takes no plugin of ours ($(qemu-system-x86_64 --version | head -n1)); it said: $told"
}

# Prints the table; the maps of the processes came over the line that also brings the status.
meter_report() {
    if [[ ! -s $work/counts ]]; then
        say "the guest set no two marks (meter start, meter stop): nothing was counted"
        return
    fi
    local file
    sed -n 's/\r*$//; s/^map //p' "$work/told" >"$work/maps"
    # The sections of what was mapped, so that a page has a name.
    awk '$2 == "at" && $8 ~ /^\// { print $8 }' "$work/maps" | sort -u | while read -r file; do
        [[ -f $guest$file ]] || continue
        readelf -SW "$guest$file" 2>/dev/null |
            sed -nE 's/^ *\[ *[0-9]+\] (\.[^ ]+) +[^ ]+ +([0-9a-f]+) [0-9a-f]+ ([0-9a-f]+) .*/\1 \2 \3/p' |
            while read -r name address size; do printf 'section %s %s %s %s\n' "$file" "$name" "$address" "$size"; done
    done >"$work/sections"
    awk -f "$METER_SOURCES/report.awk" "$work/sections" "$work/maps" "$work/counts"
}
