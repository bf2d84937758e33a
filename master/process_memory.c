/* SPDX-License-Identifier: Apache-2.0
 *
 * The tree is walked by /proc/PID/task/TID/children, which costs what the tree is large, not what
 * the machine is. A process that left its parent (a daemon) is not found any more. Stateless; runs
 * in the master.
 */
#include "master/process_memory.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/base/fd.h"

struct pid_list {
    pid_t item[PROCESS_TREE_MAX];
    size_t count;
};

int64_t
process_memory_parse_pss(const char *smaps_rollup)
{
    const char *line = strstr(smaps_rollup, "\nPss:");
    int64_t kib;

    if (line == NULL || sscanf(line, "\nPss: %" SCNd64 " kB", &kib) != 1 || kib < 0) {
        return -1;
    }
    return kib * 1024;
}

bool
process_memory_parse_statm(const char *statm, int64_t *ret_resident, int64_t *ret_private)
{
    int64_t page = sysconf(_SC_PAGESIZE);
    int64_t resident;
    int64_t shared;

    if (sscanf(statm, "%*d %" SCNd64 " %" SCNd64, &resident, &shared) != 2 || shared < 0 ||
        resident < shared) {
        return false;
    }
    *ret_resident = resident * page;
    *ret_private = (resident - shared) * page;
    return true;
}

static int64_t
pss_of(pid_t pid)
{
    char path[64];
    char text[4096];

    (void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    return fd_read_text(path, text, sizeof(text)) ? process_memory_parse_pss(text) : -1;
}

static bool
statm_of(pid_t pid, int64_t *ret_resident, int64_t *ret_private)
{
    char path[64];
    char text[256];

    (void)snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
    return fd_read_text(path, text, sizeof(text)) &&
           process_memory_parse_statm(text, ret_resident, ret_private);
}

static void
add_children_of_thread(struct pid_list *list, pid_t pid, const char *thread)
{
    char path[64 + NAME_MAX];
    FILE *file;
    int child;

    (void)snprintf(path, sizeof(path), "/proc/%d/task/%s/children", (int)pid, thread);
    file = fopen(path, "re");
    if (file == NULL) {
        return; /* it is gone, or the kernel has no CONFIG_PROC_CHILDREN */
    }
    while (list->count < PROCESS_TREE_MAX && fscanf(file, "%d", &child) == 1) {
        list->item[list->count++] = (pid_t)child;
    }
    (void)fclose(file); /* was only read */
}

static void
add_children(struct pid_list *list, pid_t pid)
{
    char path[64];
    const struct dirent *entry;

    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return;
    }
    while ((entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] != '.') {
            add_children_of_thread(list, pid, entry->d_name);
        }
    }
    (void)closedir(folder); /* ours and open */
}

static void
collect(struct pid_list *list, pid_t pid, bool is_tree)
{
    list->item[0] = pid;
    list->count = 1;
    for (size_t i = 0; is_tree && i < list->count; i++) {
        add_children(list, list->item[i]);
    }
}

struct process_memory
process_memory_look(pid_t pid, bool is_tree, int64_t enough_bytes)
{
    struct pid_list list;
    struct process_memory memory = {.exact = true};
    int64_t resident;
    int64_t private;

    collect(&list, pid, is_tree);
    for (size_t i = 0; i < list.count; i++) {
        memory.bytes += statm_of(list.item[i], &resident, &private) ? resident : 0;
    }
    if (memory.bytes <= enough_bytes) {
        return memory;
    }
    memory.bytes = 0;
    for (size_t i = 0; i < list.count; i++) {
        int64_t pss = pss_of(list.item[i]);
        if (pss >= 0) {
            memory.bytes += pss;
        } else if (statm_of(list.item[i], &resident, &private) && resident > 0) {
            /* Of another user, without CAP_SYS_PTRACE (proc(5), ptrace(2)). */
            memory.bytes += private;
            memory.exact = false;
        }
    }
    return memory;
}
