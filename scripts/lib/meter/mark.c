/*
 * The guest's end of the locality meter. It is linked without shared objects, so that every guest can run it.
 *
 *   mark start | stop          sets a mark: what lies between is counted
 *   mark known CPU NODE COUNT  on that CPU, reads COUNT times from a page that is bound to NODE and writes as often; the
 *                              marks around it, and the page's address on standard output: an answer known beforehand
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As in locality.c: a long NOP whose displacement says which mark it is. Not inlined, so that it ends with a jump, after
 * which the emulation looks whether there is something to do. */
#define MARK(name, message)                                                                                                \
    static __attribute__((noinline)) void name(void)                                                                       \
    {                                                                                                                      \
        __asm__ volatile(".byte 0x0f, 0x1f, 0x84, 0x00, 'n', 'o', 'd', " #message ::: "memory");                           \
    }
MARK(mark_start, 1)
MARK(mark_stop, 2)

static int known(int cpu, unsigned node, long count)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    volatile long *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned long mask = 1ul << node;
    const int bind = 2; /* MPOL_BIND of <linux/mempolicy.h>, which libc does not bring */
    if (page == MAP_FAILED || sched_setaffinity(0, sizeof(set), &set) ||
        syscall(SYS_mbind, page, 4096ul, bind, &mask, 65ul, 0u)) {
        perror("mark known");
        return 1;
    }
    page[0] = 1;
    mark_start();
    for (long i = 0; i < count; i++)
        page[1] = page[0];
    mark_stop();
    printf("known %d %u %ld %lx\n", cpu, node, count, (unsigned long)page);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "start"))
        mark_start();
    else if (argc == 2 && !strcmp(argv[1], "stop"))
        mark_stop();
    else if (argc == 5 && !strcmp(argv[1], "known"))
        return known(atoi(argv[2]), atoi(argv[3]), atol(argv[4]));
    else
        return 2;
    return 0;
}
