/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory processes hold, as proc(5) tells it. Pure but for reading /proc; runs in the
 * master.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Processes of one tree that are looked at. */
#define PROCESS_TREE_MAX 1024

struct process_memory {
    int64_t bytes;
    bool
        exact; /* false: the kernel did not show the PSS to us; bytes is what is private for sure */
};

/* The bytes behind the line "Pss:" of a text like /proc/PID/smaps_rollup; -1: there is none. */
int64_t process_memory_parse_pss(const char *smaps_rollup);
/* Resident bytes, and those of them that are not of files or shared, of a text like
 * /proc/PID/statm. False: it is not one. */
bool process_memory_parse_statm(const char *statm, int64_t *ret_resident, int64_t *ret_private);

/* The PSS of a process, or with is_tree of it and all its descendants. Costs next to nothing as
 * long as they hold no more than enough_bytes: the resident size bounds the PSS from above, and
 * the kernel keeps that number, while it walks all page tables for the PSS. Then bytes is the
 * resident size. A process that is gone holds nothing. */
struct process_memory process_memory_look(pid_t pid, bool is_tree, int64_t enough_bytes);
