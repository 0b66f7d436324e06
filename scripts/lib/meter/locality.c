/*
 * The locality meter: a plugin for QEMU's emulation (TCG) that counts loads and stores by the node of the CPU that made
 * them and the node of the page that they met, those of user mode and of the kernel apart, between two marks that the
 * guest sets. Built and run by scripts/numa-vm --meter; docs/locality.md says what the figures mean and what they miss.
 *
 * Arguments: out=FILE       where the counts go when the guest sets the mark that stops the meter
 *            cpu=N          the node of the next CPU, once for each CPU in their order
 *            range=A:B:N    physical addresses A up to B (hexadecimal) are memory of node N, once for each range
 *            offset=A:B:N   the same in QEMU's own numbering of memory, for a QEMU that tells it in place of the address
 *            by=page|code   what is counted apart: the pages that are met (of the kernel's only those that are remote), or the
 *                            instructions whose accesses are remote
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The part of QEMU's plugin interface that is used here (docs/devel/tcg-plugins.rst of QEMU). It is declared here because
 * Debian ships no header. API is the version that the installed QEMU speaks; the script finds it out. */
#ifndef API
#error "say which version of the plugin interface to build for: -DAPI=N"
#endif
typedef struct {
    const char *target_name;
    struct {
        int min, cur;
    } version;
    bool system_emulation;
    struct {
        int smp_vcpus, max_vcpus;
    } system;
} qemu_info_t;
typedef uint64_t plugin_id;
typedef uint32_t mem_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;
enum { NO_REGISTERS = 0 };
enum { READS_AND_WRITES = 3 };
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, void (*)(unsigned, mem_info, uint64_t, void *), int, int,
                                      void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
#if API < 3
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
#else
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
#endif
bool qemu_plugin_mem_is_store(mem_info);
struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(mem_info, uint64_t);
bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *);
uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *);
void qemu_plugin_reset(plugin_id, void (*)(plugin_id));

__attribute__((visibility("default"))) int qemu_plugin_version = API;

enum { CPUS = 64, NODES = 16, RANGES = 64, PAGE_SHIFT = 12 };
/* Not memory (a device), or memory that no range names. */
enum { NOWHERE = NODES };
/* Distinct pages or instructions that one CPU's table has room for; what finds none is told as lost, never dropped unsaid. */
enum { ROOM = 1 << 17 };

struct count {
    uint64_t loads, stores;
};
struct entry {
    uint64_t key; /* address of the page or the instruction */
    uint8_t used, kernel, node;
    struct count count;
};
/* One for each CPU, written by its own thread only: QEMU runs every CPU of the guest on a thread. */
struct cpu {
    struct count sums[2][NODES + 1]; /* [kernel][node of the page] */
    uint64_t lost;
    struct entry *entries;
};
static struct cpu cpus[CPUS];
static unsigned cpu_nodes[CPUS], cpu_count;
static struct {
    uint64_t from, to;
    unsigned node;
} ranges[RANGES];
static unsigned range_count;
static const char *out;
static bool by_code;
static volatile bool telling, counting; /* whether code that is translated tells its accesses, and whether they count */
static unsigned starts;

/* The mark: a long NOP whose displacement is the message, `nopl MARK+n(%rax,%rax,1)`. It does nothing on any machine. */
static const uint8_t MARK[] = {0x0f, 0x1f, 0x84, 0x00, 'n', 'o', 'd'};
enum { MARK_SIZE = 8, START = 1, STOP = 2 };

static unsigned node_of(uint64_t address)
{
    for (unsigned i = 0; i < range_count; i++)
        if (address >= ranges[i].from && address < ranges[i].to)
            return ranges[i].node;
    return NOWHERE;
}

static struct entry *entry_of(struct cpu *cpu, uint64_t key, bool kernel, unsigned node)
{
    uint64_t hash = (key ^ (uint64_t)node << 60 ^ (uint64_t)kernel << 59) * 0x9e3779b97f4a7c15u;
    for (unsigned probe = 0; probe < 64; probe++) {
        struct entry *entry = &cpu->entries[((hash >> 40) + probe) % ROOM];
        if (!entry->used) {
            *entry = (struct entry){.key = key, .used = 1, .kernel = kernel, .node = node};
            return entry;
        }
        if (entry->key == key && entry->kernel == kernel && entry->node == node)
            return entry;
    }
    return NULL;
}

/* `code` is the address of the instruction: the kernel's are in the upper half. */
static void on_access(unsigned index, mem_info info, uint64_t address, void *code)
{
    if (!counting || index >= cpu_count)
        return;
    struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, address);
    unsigned node = where && !qemu_plugin_hwaddr_is_io(where) ? node_of(qemu_plugin_hwaddr_phys_addr(where)) : NOWHERE;
    struct cpu *cpu = &cpus[index];
    bool kernel = (uintptr_t)code >> 63, store = qemu_plugin_mem_is_store(info);
    struct count *sum = &cpu->sums[kernel][node];
    *(store ? &sum->stores : &sum->loads) += 1;
    if ((by_code || kernel) && node == cpu_nodes[index])
        return;
    uint64_t key = by_code ? (uintptr_t)code : address >> PAGE_SHIFT << PAGE_SHIFT;
    struct entry *entry = entry_of(cpu, key, kernel, node);
    if (!entry)
        cpu->lost += 1;
    else
        *(store ? &entry->count.stores : &entry->count.loads) += 1;
}

static void write_counts(void)
{
    FILE *file = fopen(out, "w");
    if (!file) {
        perror(out);
        return;
    }
    fprintf(file, "spans %u\n", starts);
    for (unsigned i = 0; i < cpu_count; i++) {
        struct cpu *cpu = &cpus[i];
        for (int kernel = 0; kernel < 2; kernel++)
            for (unsigned node = 0; node <= NODES; node++) {
                struct count *sum = &cpu->sums[kernel][node];
                if (sum->loads + sum->stores)
                    fprintf(file, "sum %s %u %u %d %llu %llu\n", kernel ? "kernel" : "user", i, cpu_nodes[i],
                            node == NOWHERE ? -1 : (int)node, (unsigned long long)sum->loads,
                            (unsigned long long)sum->stores);
            }
        if (cpu->lost)
            fprintf(file, "lost %u %llu\n", i, (unsigned long long)cpu->lost);
        for (unsigned at = 0; at < ROOM; at++) {
            struct entry *entry = &cpu->entries[at];
            if (entry->used)
                fprintf(file, "%s %s %u %d %llx %llu %llu\n", by_code ? "code" : "page",
                        entry->kernel ? "kernel" : "user", cpu_nodes[i], entry->node == NOWHERE ? -1 : entry->node,
                        (unsigned long long)entry->key, (unsigned long long)entry->count.loads,
                        (unsigned long long)entry->count.stores);
        }
    }
    if (fclose(file))
        perror(out);
}

static plugin_id self;
static void translate(plugin_id, struct qemu_plugin_tb *);

/* Every CPU stands still here, and all translated code has been thrown away: what is translated from here on tells its
 * accesses. So a guest is not slowed down before its first mark. */
static void begin(plugin_id id)
{
    telling = true;
    counting = true;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
}

/* The code of the last span is kept: QEMU 7.2 remembers for helpers whom to tell, and would ask a callback that is gone. */
static void on_mark(unsigned index, void *message)
{
    (void)index;
    if ((uintptr_t)message == START && !counting) {
        starts += 1;
        if (telling)
            counting = true;
        else
            qemu_plugin_reset(self, begin);
    } else if ((uintptr_t)message == STOP && counting) {
        counting = false;
        write_counts();
    }
}

static void translate(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
        uint64_t address = qemu_plugin_insn_vaddr(insn);
        if (qemu_plugin_insn_size(insn) == MARK_SIZE) {
#if API < 3
            const uint8_t *bytes = qemu_plugin_insn_data(insn);
#else
            uint8_t bytes[MARK_SIZE];
            qemu_plugin_insn_data(insn, bytes, sizeof(bytes));
#endif
            if (memcmp(bytes, MARK, sizeof(MARK)) == 0)
                qemu_plugin_register_vcpu_insn_exec_cb(insn, on_mark, NO_REGISTERS, (void *)(uintptr_t)bytes[sizeof(MARK)]);
        }
        if (telling)
            qemu_plugin_register_vcpu_mem_cb(insn, on_access, NO_REGISTERS, READS_AND_WRITES, (void *)(uintptr_t)address);
    }
}

static bool take(const char *arg, bool physical)
{
    unsigned long long from, to;
    unsigned node;
    int end = 0;
    if (sscanf(arg, "cpu=%u%n", &node, &end) == 1 && !arg[end] && node < NODES && cpu_count < CPUS) {
        cpu_nodes[cpu_count++] = node;
        return true;
    }
    bool range = sscanf(arg, "range=%llx:%llx:%u%n", &from, &to, &node, &end) == 3 && !arg[end];
    if (range || (sscanf(arg, "offset=%llx:%llx:%u%n", &from, &to, &node, &end) == 3 && !arg[end])) {
        if (range == physical && range_count < RANGES && node < NODES) {
            ranges[range_count].from = from;
            ranges[range_count].to = to;
            ranges[range_count++].node = node;
        }
        return range_count < RANGES && node < NODES;
    }
    if (!strncmp(arg, "out=", 4)) {
        out = strdup(arg + 4);
        return out;
    }
    by_code = !strcmp(arg, "by=code");
    return by_code || !strcmp(arg, "by=page");
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const qemu_info_t *info, int argc, char **argv)
{
    if (!info->system_emulation)
        return 1;
    for (int i = 0; i < argc; i++)
        /* Before version 2 an address of memory was told as an offset into QEMU's own blocks, plus the block's place. */
        if (!take(argv[i], info->version.cur >= 2)) {
            fprintf(stderr, "locality: bad argument %s\n", argv[i]);
            return 1;
        }
    if (!out || !cpu_count || !range_count) /* the script's trial of the interface: nothing to count */
        return argc ? 1 : 0;
    for (unsigned i = 0; i < cpu_count; i++)
        if (!(cpus[i].entries = calloc(ROOM, sizeof(struct entry))))
            return 1;
    self = id;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return 0;
}
