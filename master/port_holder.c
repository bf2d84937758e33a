/* SPDX-License-Identifier: Apache-2.0
 *
 * /proc/net/tcp names the inode of a listening socket, /proc/PID/fd names who has it (proc(5)).
 * Looked at only when a bind failed; bounded, because a machine may have very many processes.
 */
#include "master/port_holder.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/value.h"

#define INODES_MAX 16        /* sockets on one port: one per lane of a SO_REUSEPORT group */
#define LOOKED_AT_MAX 100000 /* descriptors of all processes */
#define TCP_LISTEN_STATE 0x0a

bool
port_holder_parse_line(const char *line, uint16_t *ret_port, uint64_t *ret_inode)
{
    unsigned int port;
    unsigned int state;
    uint64_t inode;

    /* sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode */
    int n = sscanf(
        line, " %*u: %*32[0-9A-Fa-f]:%4x %*32[0-9A-Fa-f]:%*4x %2x %*s %*s %*s %*u %*u %" SCNu64,
        &port, &state, &inode);
    if (n != 3 || state != TCP_LISTEN_STATE || inode == 0) {
        return false;
    }
    *ret_port = (uint16_t)port;
    *ret_inode = inode;
    return true;
}

static size_t
collect_inodes(const char *path, uint16_t port, uint64_t *inodes, size_t count)
{
    FILE *file = fopen(path, "re");
    char line[512];

    if (file == NULL) {
        return count;
    }
    while (count < INODES_MAX && fgets(line, sizeof(line), file) != NULL) {
        uint16_t line_port;
        uint64_t inode;
        if (port_holder_parse_line(line, &line_port, &inode) && line_port == port) {
            inodes[count++] = inode;
        }
    }
    (void)fclose(file); /* only read from */
    return count;
}

static bool
is_one_of(const char *target, const uint64_t *inodes, size_t count)
{
    uint64_t inode;

    if (sscanf(target, "socket:[%" SCNu64 "]", &inode) != 1) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (inodes[i] == inode) {
            return true;
        }
    }
    return false;
}

static bool
process_holds(const char *pid, const uint64_t *inodes, size_t count, size_t *looked_at)
{
    char path[64];
    bool found = false;

    (void)snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return false;
    }
    const struct dirent *entry;
    while (!found && (*looked_at)++ < LOOKED_AT_MAX && (entry = readdir(folder)) != NULL) {
        char target[64];
        ssize_t n = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);
        if (n > 0) {
            target[n] = '\0';
            found = is_one_of(target, inodes, count);
        }
    }
    (void)closedir(folder);
    return found;
}

static void
add_process(const char *pid, struct buf *out)
{
    char path[64];
    char name[64] = "?";

    (void)snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fgets(name, sizeof(name), file) != NULL) {
            name[strcspn(name, "\n")] = '\0';
        }
        (void)fclose(file);
    }
    buf_addf(out, "pid %s (%s)", pid, name);
}

bool
port_holder_find(const struct address *address, struct buf *out)
{
    uint64_t inodes[INODES_MAX];
    size_t looked_at = 0;
    bool found = false;

    if (address->kind != ADDRESS_TCP) {
        return false;
    }
    uint16_t port =
        ntohs(address->sa.sa_family == AF_INET6 ? address->in6.sin6_port : address->in.sin_port);
    size_t count = collect_inodes("/proc/net/tcp", port, inodes, 0);
    count = collect_inodes("/proc/net/tcp6", port, inodes, count);
    DIR *proc = count > 0 ? opendir("/proc") : NULL;
    if (proc == NULL) {
        return false;
    }
    const struct dirent *entry;
    while (!found && looked_at < LOOKED_AT_MAX && (entry = readdir(proc)) != NULL) {
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
            process_holds(entry->d_name, inodes, count, &looked_at)) {
            add_process(entry->d_name, out);
            found = true;
        }
    }
    (void)closedir(proc);
    return found;
}
