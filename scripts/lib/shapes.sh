# shellcheck shell=bash
# The machines that scripts/numa-vm can be: one block each, and nothing else to change for a new one. Sourced, not run.

# shape_2node: two sockets of two CPUs, each with its own memory.
shape_2node() {
    cpus 4,sockets=2,cores=2,threads=1
    node 0 512M 0-1
    node 1 512M 2-3
    distance 0 1 21
}

# shape_4odd: two ordinary nodes, one that has CPUs only (its memory is node 1's) and one that has memory only (as CXL memory).
shape_4odd() {
    cpus 6,sockets=3,cores=2,threads=1
    node 0 512M 0-1
    node 1 512M 2-3
    node 2 - 4-5
    node 3 256M -
    distance 0 1 21
    distance 0 2 21
    distance 0 3 14
    distance 1 2 12
    distance 1 3 24
    distance 2 3 28
}

# shape_8node: eight small sockets of one CPU, in two boards that are far from each other.
shape_8node() {
    cpus 8,sockets=8,cores=1,threads=1
    local id other
    for id in 0 1 2 3 4 5 6 7; do
        node "$id" 256M "$id"
        for ((other = 0; other < id; other++)); do
            if ((other / 4 == id / 4)); then distance "$other" "$id" 16; else distance "$other" "$id" 28; fi
        done
    done
}

# cpus SMP: qemu's word for sockets, cores and threads.
cpus() { machine+=(-smp "$1"); }

# node ID MEMORY CPUS: `-` for MEMORY makes a node without memory, `-` for CPUS one without CPUs.
node() {
    local id=$1 memory=$2 cpus=$3 arg="node,nodeid=$1" cpu
    if [[ $cpus != - ]]; then
        arg+=",cpus=$cpus"
        for ((cpu = ${cpus%-*}; cpu <= ${cpus#*-}; cpu++)); do cpu_nodes[cpu]=$id; done
    fi
    if [[ $memory != - ]]; then
        machine+=(-object "memory-backend-ram,id=node$id,size=$memory")
        arg+=",memdev=node$id"
        memory_nodes+=("$id:$memory_mib:$((memory_mib + ${memory%M}))")
        memory_mib=$((memory_mib + ${memory%M}))
    fi
    machine+=(-numa "$arg")
}

# distance FROM TO VALUE: both ways; a node is 10 from itself, and 20 from a node that nothing is said about.
distance() {
    machine+=(-numa "dist,src=$1,dst=$2,val=$3")
    distances[$1,$2]=$3 distances[$2,$1]=$3
}

# home NODE: the nearest node that has memory; itself, if it has.
home() {
    local piece id far best=-1 least=256
    for piece in "${memory_nodes[@]}"; do
        id=${piece%%:*} far=${distances[$1,$id]:-20}
        [[ $id != "$1" ]] || far=10
        if ((far < least)); then best=$id least=$far; fi
    done
    printf '%s\n' "$best"
}

shape_names() { declare -F | sed -n 's/^declare -f shape_\([0-9].*\)$/\1/p' | tr '\n' ' '; }

# shape_arguments NAME: leaves qemu's arguments for the shape in `machine`, the node of each CPU in `cpu_nodes`, and in
# `memory_nodes` NODE:FROM:TO, the part of the machine's memory in MiB that is each node's.
shape_arguments() {
    # shellcheck disable=SC2034 # meter.sh reads cpu_nodes
    machine=() cpu_nodes=() memory_nodes=()
    declare -gA distances=()
    memory_mib=0
    declare -F "shape_$1" >/dev/null || return 1
    "shape_$1"
    machine+=(-m "${memory_mib}M")
}
