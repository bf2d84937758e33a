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

/* Words of 32 bits in the order of the machine, of which each is in network order. */
static bool
parse_host(const char *text, struct port_listener *listener)
{
    /* An IPv4 address on a socket of IPv6 (RFC 4291 section 2.5.5.2), as Java makes them. */
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    size_t length = strlen(text);

    if (length != 8 && length != 32) {
        return false;
    }
    for (size_t i = 0; i < length / 8; i++) {
        uint32_t word;
        if (sscanf(text + 8 * i, "%8" SCNx32, &word) != 1) {
            return false;
        }
        memcpy(listener->host + 4 * i, &word, sizeof(word));
    }
    listener->host_size = length / 2;
    if (length == 32 && memcmp(listener->host, mapped, sizeof(mapped)) == 0) {
        memcpy(listener->host, listener->host + sizeof(mapped), 4);
        listener->host_size = 4;
    }
    return true;
}

bool
port_holder_parse_line(const char *line, struct port_listener *ret_listener)
{
    char host[33];
    unsigned int port = 0;
    unsigned int state = 0;
    uint64_t inode = 0;

    /* sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode */
    int n = sscanf(line,
                   " %*u: %32[0-9A-Fa-f]:%4x %*32[0-9A-Fa-f]:%*4x %2x %*s %*s %*s %*u %*u %" SCNu64,
                   host, &port, &state, &inode);
    *ret_listener = (struct port_listener){.port = (uint16_t)port, .inode = inode};
    return n == 4 && state == TCP_LISTEN_STATE && inode != 0 && parse_host(host, ret_listener);
}

static bool
is_wildcard(const uint8_t *host, size_t size)
{
    static const uint8_t any[16];

    return memcmp(host, any, size) == 0;
}

bool
port_holder_is_in_the_way(const struct port_listener *listener, const struct address *address)
{
    bool is_ipv6 = address->sa.sa_family == AF_INET6;
    uint16_t port = ntohs(is_ipv6 ? address->in6.sin6_port : address->in.sin_port);
    const uint8_t *host =
        is_ipv6 ? address->in6.sin6_addr.s6_addr : (const uint8_t *)&address->in.sin_addr.s_addr;
    size_t size = is_ipv6 ? 16 : 4;

    if (listener->port != port) {
        return false;
    }
    if (listener->host_size != size) {
        /* Of the other family: [::] may be 0.0.0.0, too, which /proc does not tell; narwhal's is
         * not (IPV6_V6ONLY), so an IPv4 listener is in nobody's way there. */
        return !is_ipv6 && is_wildcard(listener->host, listener->host_size);
    }
    return is_wildcard(host, size) || is_wildcard(listener->host, size) ||
           memcmp(host, listener->host, size) == 0;
}

static size_t
collect_inodes(const char *path, const struct address *address, uint64_t *inodes, size_t count)
{
    FILE *file = fopen(path, "re");
    char line[512];

    if (file == NULL) {
        return count;
    }
    while (count < INODES_MAX && fgets(line, sizeof(line), file) != NULL) {
        struct port_listener listener;
        if (port_holder_parse_line(line, &listener) &&
            port_holder_is_in_the_way(&listener, address)) {
            inodes[count++] = listener.inode;
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
    size_t count = collect_inodes("/proc/net/tcp", address, inodes, 0);
    count = collect_inodes("/proc/net/tcp6", address, inodes, count);
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
