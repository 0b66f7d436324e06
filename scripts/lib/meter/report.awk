# Prints the locality meter's table. Reads sections of the mapped files, maps of the processes, counts of the plugin.

function hex(text,    value, i) {
    value = 0
    for (i = 1; i <= length(text); i++) value = value * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1
    return value
}
function share(part, whole) { return whole ? sprintf("%.3f %%", 100 * part / whole) : "-" }
function base(path) { sub(/.*\//, "", path); return path }

# The mapping that holds the address, or -1; sorted, so halving finds it.
function mapping(address,    low, high, middle) {
    low = 0; high = map_count - 1
    while (low <= high) {
        middle = int((low + high) / 2)
        if (address < from[middle]) high = middle - 1
        else if (address >= to[middle]) low = middle + 1
        else return middle
    }
    return -1
}
# Where the address lies in its mapping, and in which section of the file.
function place(m, address,    path, file_address, i, text) {
    path = paths[m]
    text = (path == "" ? "anonymous" : base(path)) " " rights[m]
    if (path !~ /^\//) return text sprintf(" +%d KiB of %d", (address - from[m]) / 1024, (to[m] - from[m]) / 1024)
    file_address = address - first[process_of[m], path]
    for (i = 0; i < section_count[path]; i++)
        if (section_from[path, i] < file_address + 4096 && section_from[path, i] + section_size[path, i] > file_address)
            text = text " " section_name[path, i]
    return text
}
# Which part of the kernel's address space it is (Documentation/arch/x86/x86_64/mm.rst of Linux), with 4 levels of page tables and
# with 5. The meter's guests boot without address space randomisation of the kernel.
function area(address) {
    if (address ~ /^ffffffff/) return "its image"
    if (address ~ /^(ffffc9|ffa0)/) return "stacks and vmalloc"
    if (address ~ /^(ffffea|ffd4)/) return "struct page"
    if (address ~ /^(ffff8[89a-f]|ffff[9ab]|ff[1-8])/) return "pages and slabs"
    return "elsewhere"
}
function note(who, cpu, node, loads, stores) {
    if (!(who in known_who)) { known_who[who] = 1; order[who_count++] = who }
    all[who] += loads + stores
    flow[who, cpu, node, "l"] += loads
    flow[who, cpu, node, "s"] += stores
    if (node != cpu) remote[who] += loads + stores
    nodes[cpu] = nodes[node] = 1
}

$1 == "section" {
    section_name[$2, section_count[$2] + 0] = $3
    section_from[$2, section_count[$2] + 0] = hex($4)
    section_size[$2, section_count[$2]++ + 0] = hex($5)
    next
}
# The kernel's stretches of pages that are mapped one by one: vmalloc FROM TO FUNCTION.
$1 == "vmalloc" { stretch_from[stretches + 0] = substr($2, 3); stretch_to[stretches + 0] = substr($3, 3); asked_by[stretches++] = $4; next }
# NAME/PID at FROM-TO RIGHTS OFFSET DEVICE INODE PATH. Processes of one name are one: forked workers have one layout.
$2 == "at" {
    split($3, ends, "-"); split($1, process, "/")
    if ((process[1], ends[1]) in mapped) next
    mapped[process[1], ends[1]] = 1
    a = hex(ends[1])
    if ($8 != "" && !(($1, $8) in first)) first[$1, $8] = a - hex($5)
    for (i = map_count++; i > 0 && from[i - 1] > a; i--) {
        from[i] = from[i - 1]; to[i] = to[i - 1]; owner[i] = owner[i - 1]; process_of[i] = process_of[i - 1]; rights[i] = rights[i - 1]; paths[i] = paths[i - 1]
    }
    from[i] = a; to[i] = hex(ends[2]); owner[i] = process[1]; process_of[i] = $1; rights[i] = $4; paths[i] = $8
    next
}
$1 == "spans" { spans = $2; next }
$1 == "lost" { lost += $3; next }
$1 == "sum" {
    if ($5 == -1) { devices += $6 + $7; next }
    if ($2 == "kernel") note("the kernel", $4, $5, $6, $7)
    else { note("user mode", $4, $5, $6, $7) }
    next
}
$1 == "page" {
    if ($4 == -1) next
    if ($2 == "kernel") {
        areas[area($5)] += $6 + $7
        # Addresses of one length, so they compare as text.
        if (area($5) == "stacks and vmalloc") {
            for (i = 0; i < stretches && !($5 "" >= stretch_from[i] "" && $5 "" < stretch_to[i] ""); i++) {}
            asked[i < stretches ? asked_by[i] : "gone"] += $6 + $7
        }
        next
    }
    address = hex($5); m = mapping(address)
    who = m < 0 ? "others" : owner[m]
    note("of it " who, $3, $4, $6, $7)
    if (m >= 0 && !(rights[m] ~ /w/ || paths[m] == "")) image[who] += $3 == $4 ? 0 : $6 + $7
    if ($3 == $4 || m < 0) next
    page[who, $5] += $6 + $7; page_from[who, $5] = page_from[who, $5] $3 "->" $4 " "
    page_place[who, $5] = place(m, address)
    next
}
$1 == "code" {
    if ($4 == -1) next
    address = hex($5); m = $2 == "user" ? mapping(address) : -1
    who = $2 == "kernel" ? "the kernel" : m < 0 ? "others" : owner[m]
    page[who, $5] += $6 + $7
    page_from[who, $5] = page_from[who, $5] $3 "->" $4 " "
    page_place[who, $5] = m < 0 ? "-" : base(paths[m]) sprintf(" +0x%x", address - first[process_of[m], paths[m]])
}

END {
    printf "meter: loads and stores in %d span%s, by the CPU's node -> the page's node\n", spans, spans == 1 ? "" : "s"
    printf "%-18s %13s %12s %11s  loads+stores\n", "", "accesses", "remote", "share"
    for (i = 0; i < who_count; i++) {
        who = order[i]
        printf "%-18s %13d %12d %11s ", who, all[who], remote[who], share(remote[who], all[who])
        for (cpu = 0; cpu < 16; cpu++) if (cpu in nodes) for (node = 0; node < 16; node++) if (flow[who, cpu, node, "l"] + flow[who, cpu, node, "s"])
            printf " %d->%d %d+%d", cpu, node, flow[who, cpu, node, "l"], flow[who, cpu, node, "s"]
        printf "\n"
    }
    for (name in areas) if (areas[name]) printf "the kernel, remote in %-18s %12d %11s\n", name, areas[name], share(areas[name], all["the kernel"])
    for (name in asked) printf "  of stacks and vmalloc, asked for by %-24s %12d %11s\n", name, asked[name], share(asked[name], all["the kernel"])
    if (devices) printf "to devices: %d\n", devices
    if (lost) printf "WARNING: %d accesses are in the sums, but not told apart: the meter's tables are full\n", lost
    for (i = 0; i < who_count; i++) {
        who = order[i]; sub(/^of it /, "", who)
        if (who in image) printf "%s: read-only image %s, memory that is written %s of its accesses\n", who, share(image[who], all[order[i]]), share(remote[order[i]] - image[who], all[order[i]])
    }
    for (key in page) {
        split(key, part, SUBSEP)
        if (shown[part[1]]++) continue
        for (rank = 1; rank <= top; rank++) {
            best = ""
            for (other in page) {
                split(other, p, SUBSEP)
                if (p[1] == part[1] && !(other in told) && (best == "" || page[other] > page[best])) best = other
            }
            if (best == "") break
            told[best] = 1
            if (rank == 1) printf "remote accesses of %s\n", part[1]
            split(best, p, SUBSEP)
            printf "  %12d  %s  %-12s %s\n", page[best], p[2], page_from[best], page_place[best]
        }
    }
}
BEGIN { top = ENVIRON["TOP"] ? ENVIRON["TOP"] : 12 }
