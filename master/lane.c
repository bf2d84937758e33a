/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening and closing of lanes. Invariant: the sockets of a TCP address share one SO_REUSEPORT
 * group that nobody else was in when it was made. Runs in the master.
 */
#include "master/lane.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "master/fd_store.h"
#include "master/identity.h"
#include "master/inherited.h"
#include "master/lane_plan.h"
#include "master/port_holder.h"
#include "worker/scoreboard.h"

void
lane_set_init(struct lane_set *set)
{
    list_init(&set->addresses);
    list_init(&set->open);
    set->next_id = 1;
}

struct listen_address *
lane_set_find(const struct lane_set *set, const struct address *wanted)
{
    LIST_FOR_EACH (node, &set->addresses) {
        if (strcmp(listen_address_from(node)->wanted.text, wanted->text) == 0) {
            return listen_address_from(node);
        }
    }
    return NULL;
}

static bool
is_any_ipv6(const struct address *address)
{
    return address->sa.sa_family == AF_INET6 &&
           memcmp(&address->in6.sin6_addr, &in6addr_any, sizeof(in6addr_any)) == 0;
}

/* Makes the socket with the options that must stand before bind(). */
static int
tcp_socket(const struct address *address, bool reuse_port)
{
    const int on = 1;
    int fd = socket(address->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);

    if (fd == -1) {
        return -errno;
    }
    /* [::] is IPv6 alone, whatever net.ipv6.bindv6only says, so that 0.0.0.0 may be bound too. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == -1 ||
        (reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == -1) ||
        (address->sa.sa_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) == -1)) {
        int result = -errno;
        fd_close(&fd);
        return result;
    }
    return fd;
}

/* What is accepted from a lane has the lane's TCP_NODELAY (tcp(7)), so it costs no system call per
 * connection. narwhal writes what belongs together at once; with Nagle's algorithm an event would
 * wait until the client has acknowledged the one before it, which it may put off for 40 ms (RFC
 * 9293 3.7.4, 3.8.6.3). Fails on unix sockets, which have no such thing. */
static void
send_at_once(int fd)
{
    const int on = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* The kernel completes a connection when its first bytes arrive, not before (tcp(7)): the worker is
 * woken once instead of twice, its first recv(2) finds the request, and a client that says nothing
 * costs no descriptor. Measured on new connections that is 40 % of a worker's CPU time. For one
 * second, the least there is: a client that is silent for longer (a browser that connects ahead) is
 * accepted as ever, after the kernel has sent its SYN-ACK again. */
static void
accept_with_first_bytes(int fd)
{
    const int seconds = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds));
}

static in_port_t
port_of(const struct address *address)
{
    return address->sa.sa_family == AF_INET6 ? address->in6.sin6_port : address->in.sin_port;
}

static bool
is_any(const struct address *address)
{
    return is_any_ipv6(address) ||
           (address->sa.sa_family == AF_INET && address->in.sin_addr.s_addr == htonl(INADDR_ANY));
}

static bool
same_host(const struct address *a, const struct address *b)
{
    return a->sa.sa_family == AF_INET6
               ? memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0
               : a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
}

/* Whether sockets of ours are in the way of an exclusive bind: those of 127.0.0.1:80 when
 * 0.0.0.0:80 comes with a reload, or in the same settings. The families never are in each other's
 * way (IPV6_V6ONLY), nor are two hosts. */
static bool
port_is_ours(const struct lane_set *set, const struct address *address)
{
    LIST_FOR_EACH (node, &set->open) {
        const struct address *other = &container_of(node, struct listen_address, open_node)->bound;
        if (other->kind == ADDRESS_TCP && port_of(address) != 0 &&
            port_of(other) == port_of(address) && other->sa.sa_family == address->sa.sa_family &&
            (is_any(other) || is_any(address) || same_host(other, address))) {
            return true;
        }
    }
    return false;
}

/* Binds and listens. An exclusive socket, the first of a group, binds without SO_REUSEPORT and gets
 * it only then: so a port that anybody listens on, also with SO_REUSEPORT, is an error and never
 * silently shared, and no other process fits into a gap between a trial and the real bind. */
static int
tcp_listen(const struct address *address, bool is_exclusive, int backlog)
{
    const int on = 1;
    int fd = tcp_socket(address, !is_exclusive);

    if (fd < 0) {
        return fd;
    }
    if (bind(fd, &address->sa, address->length) == -1 ||
        (is_exclusive && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == -1) ||
        listen(fd, backlog) == -1) {
        int result = -errno;
        fd_close(&fd);
        return result;
    }
    send_at_once(fd);
    accept_with_first_bytes(fd);
    return fd;
}

static void
explain_tcp(const struct address *address, int error_number, struct buf *error)
{
    uint16_t port = ntohs(port_of(address));

    buf_addf(error, "%s", strerror(error_number));
    switch (error_number) {
    case EADDRINUSE:
        buf_add_text(error, "; the port is held by ");
        if (!port_holder_find(address, error)) {
            buf_add_text(error, "a process that cannot be seen from here (of another user or "
                                "container; try: ss -ltnp)");
        }
        break;
    case EACCES:
        if (port > 0 && port < 1024) {
            buf_addf(error, "; ports below 1024 need root or CAP_NET_BIND_SERVICE (systemd: "
                            "AmbientCapabilities=CAP_NET_BIND_SERVICE, or a .socket unit)");
        }
        break;
    case EADDRNOTAVAIL:
        buf_add_text(error, "; no network interface of this machine has the address");
        break;
    case EMFILE:
        buf_add_text(error, "; raise LimitNOFILE= or ulimit -n");
        break;
    default:
        break;
    }
}

/* The text of an address after port 0 became a port. */
static void
print_bound(struct address *bound)
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (bound->sa.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &bound->in6.sin6_addr, host, sizeof(host));
        (void)snprintf(bound->text, sizeof(bound->text), "[%s]:%u", host,
                       ntohs(bound->in6.sin6_port));
    } else {
        (void)inet_ntop(AF_INET, &bound->in.sin_addr, host, sizeof(host));
        (void)snprintf(bound->text, sizeof(bound->text), "%s:%u", host, ntohs(bound->in.sin_port));
    }
}

static void
add_lane(struct lane_set *set, struct listen_address *address, int fd, uint32_t home)
{
    address->lanes = xrealloc(address->lanes, (address->lane_count + 1) * sizeof(*address->lanes));
    address->lanes[address->lane_count++] =
        (struct lane){.id = set->next_id++, .fd = fd, .home = home, .owner = LANE_NOBODY};
}

int
listen_address_grow(struct lane_set *set, struct listen_address *address, uint32_t slot_count,
                    int backlog, struct buf *error)
{
    while (address->wanted.kind == ADDRESS_TCP && address->lane_count < slot_count) {
        bool is_first = address->lane_count == 0;
        bool is_exclusive = is_first && !port_is_ours(set, &address->bound);
        int fd = tcp_listen(&address->bound, is_exclusive, backlog);
        if (fd < 0) {
            explain_tcp(&address->bound, -fd, error);
            return fd;
        }
        add_lane(set, address, fd, (uint32_t)address->lane_count);
        if (is_first) {
            socklen_t size = sizeof(address->bound.in6);
            if (getsockname(fd, &address->bound.sa, &size) == -1) {
                int result = -errno;
                buf_addf(error, "getsockname: %s", strerror(-result));
                return result;
            }
            print_bound(&address->bound);
        }
    }
    return 0;
}

/* Takes the lanes of a TCP address back that a predecessor left with the service manager. They may
 * be more than there are slots: those are parked, as after TTOU. */
static void
take_stored_tcp(struct lane_set *set, struct listen_address *address, int backlog)
{
    struct stat node;
    bool kept = false;

    while (address->lane_count < BOARD_SLOTS_MAX) {
        uint32_t home = (uint32_t)address->lane_count;
        int fd = fd_store_take_lane(address->wanted.text, home, &kept, &node);
        socklen_t size = sizeof(address->bound.in6);
        if (fd == -1) {
            break;
        }
        /* The backlog may be another one now (listen(2) again is how it is changed). */
        if (listen(fd, backlog) == -1 || getsockname(fd, &address->bound.sa, &size) == -1) {
            log_warn("a lane that was kept over the restart is of no use address=%s: %s",
                     address->wanted.text, strerror(errno));
            fd_close(&fd);
            address->bound = address->wanted;
            continue;
        }
        print_bound(&address->bound);
        add_lane(set, address, fd, home);
        address->lanes[home].stored = kept;
    }
    if (address->lane_count > 0) {
        log_info("lanes are kept over the restart address=%s lanes=%zu", address->bound.text,
                 address->lane_count);
    }
}

/* The same of a unix socket, if it is still the one at its path. unix_mode and the owner may be
 * others now: a restart is how they are changed. */
static bool
take_stored_unix(struct lane_set *set, struct listen_address *address,
                 const struct unix_listener_options *options)
{
    struct unix_listener *listener = &address->unix_socket;
    struct stat node = {.st_dev = 0};
    bool kept = false;
    int fd = fd_store_take_lane(address->wanted.text, 0, &kept, &node);

    if (fd == -1) {
        return false;
    }
    *listener = (struct unix_listener){.fd = fd, .dev = node.st_dev, .ino = node.st_ino};
    strcpy(listener->path, address->wanted.un.sun_path);
    add_lane(set, address, fd, LANE_SHARED);
    int result =
        unix_listener_is_ours(listener) ? unix_listener_set_access(listener, options) : -ESTALE;
    if (result == 0 && listen(fd, options->backlog) == 0) {
        address->lanes[0].stored = kept;
        log_info("lanes are kept over the restart address=%s lanes=1", address->wanted.text);
        return true;
    }
    if (result == -ESTALE) {
        log_info("the socket that was kept over the restart is not the one at its path any more, a "
                 "new one takes its place address=%s",
                 address->wanted.text);
    } else {
        log_warn("the socket that was kept over the restart cannot get its mode, owner or backlog, "
                 "a new one takes its place and who waits in its queue is lost address=%s: %s",
                 address->wanted.text, strerror(result != 0 ? -result : errno));
    }
    (void)shutdown(fd, SHUT_RDWR); /* or the duplicate of the manager would listen on */
    fd_store_forget_address(address);
    address->lane_count = 0;
    fd_close(&listener->fd);
    return false;
}

static int
open_unix(struct lane_set *set, struct listen_address *address, int backlog,
          const struct identity *identity, struct buf *error)
{
    struct unix_listener_options options = {.mode = identity->socket_mode,
                                            .change_owner = identity->drop,
                                            .uid = identity->uid,
                                            .gid = identity->gid,
                                            .backlog = backlog};

    if (take_stored_unix(set, address, &options)) {
        return 0;
    }
    int result =
        unix_listener_open(&address->unix_socket, address->wanted.un.sun_path, &options, error);

    if (result == 0) {
        add_lane(set, address, address->unix_socket.fd, LANE_SHARED);
    }
    return result;
}

static int
open_inherited(struct lane_set *set, struct listen_address *address, struct buf *error)
{
    int result = inherited_check(address->wanted.fd, error);

    if (result == 0) {
        send_at_once(address->wanted.fd);
        add_lane(set, address, address->wanted.fd, LANE_SHARED);
    }
    return result;
}

/* Every socket of the name is a lane of its own. */
static int
open_named(struct lane_set *set, struct listen_address *address, struct buf *error)
{
    const char *name = address->wanted.text + sizeof(ADDRESS_SYSTEMD_PREFIX) - 1;
    int result = inherited_named_check(name, error);

    for (int fd = inherited_named_next(name, -1); fd != -1 && result == 0;
         fd = inherited_named_next(name, fd)) {
        if (address->lane_count == BOARD_SLOTS_MAX) {
            buf_addf(error, "more than %d sockets have that name", BOARD_SLOTS_MAX);
            result = -E2BIG;
        } else {
            add_lane(set, address, fd, LANE_SHARED);
        }
    }
    return result;
}

static bool
is_inherited(const struct listen_address *address)
{
    return address->wanted.kind == ADDRESS_FD || address->wanted.kind == ADDRESS_SYSTEMD;
}

struct listen_address *
listen_address_open(struct lane_set *set, const struct address *wanted, uint32_t slot_count,
                    int backlog, const struct identity *identity, int *ret_errno, struct buf *error)
{
    struct listen_address *address = xcalloc(1, sizeof(*address));
    int result = -EINVAL;

    address->wanted = *wanted;
    address->bound = *wanted;
    address->unix_socket.fd = -1;
    list_init(&address->node);
    list_init(&address->open_node);
    buf_addf(error, "cannot listen on %s: ", wanted->text);
    switch (wanted->kind) {
    case ADDRESS_TCP:
        take_stored_tcp(set, address, backlog);
        result = listen_address_grow(set, address, slot_count > 0 ? slot_count : 1, backlog, error);
        if (result != 0 && address->lane_count > 0) {
            result = 0; /* those that were kept do; slots.c tries for more, and tells why not */
        }
        break;
    case ADDRESS_UNIX:
        result = open_unix(set, address, backlog, identity, error);
        break;
    case ADDRESS_FD:
        result = open_inherited(set, address, error);
        break;
    case ADDRESS_SYSTEMD:
        result = open_named(set, address, error);
        break;
    case ADDRESS_NAME:
    case ADDRESS_SRV:
        buf_add_text(error, "it is a name"); /* address_parse() makes none */
        break;
    }
    if (result != 0) {
        *ret_errno = result;
        listen_address_close(address);
        return NULL;
    }
    buf_clear(error);
    list_push_back(&set->open, &address->open_node);
    if (is_any_ipv6(wanted)) {
        log_debug("address=%s takes IPv6 alone; bind 0.0.0.0 too for IPv4", wanted->text);
    }
    return address;
}

struct listen_address *
listen_address_restore(struct lane_set *set, const struct address *wanted,
                       const struct address *bound, const struct unix_listener *unix_socket)
{
    struct listen_address *address = xcalloc(1, sizeof(*address));

    address->wanted = *wanted;
    address->bound = *bound;
    address->unix_socket = *unix_socket;
    list_init(&address->node);
    list_init(&address->open_node);
    list_push_back(&set->addresses, &address->node);
    list_push_back(&set->open, &address->open_node);
    return address;
}

void
listen_address_restore_lane(struct listen_address *address, const struct lane *lane)
{
    address->lanes = xrealloc(address->lanes, (address->lane_count + 1) * sizeof(*address->lanes));
    address->lanes[address->lane_count++] = *lane;
    if (address->wanted.kind == ADDRESS_UNIX) {
        address->unix_socket.fd = lane->fd;
    }
}

void
listen_address_close(struct listen_address *address)
{
    if (address == NULL) {
        return;
    }
    list_remove(&address->node);
    list_remove(&address->open_node);
    for (size_t i = 0; i < address->lane_count && address->wanted.kind == ADDRESS_TCP; i++) {
        fd_close(&address->lanes[i].fd);
    }
    if (address->wanted.kind == ADDRESS_UNIX && address->unix_socket.fd != -1) {
        /* One that the service manager keeps still listens: its path stays. */
        if (address->lane_count > 0 && address->lanes[0].stored) {
            fd_close(&address->unix_socket.fd);
        } else {
            unix_listener_close(&address->unix_socket);
        }
    }
    /* An inherited descriptor stays open: a reload may want it again (inherited.h). */
    free(address->lanes);
    free(address);
}

void
lane_set_close_own(struct lane_set *set)
{
    LIST_FOR_EACH_SAFE (node, &set->addresses) {
        struct listen_address *address = listen_address_from(node);
        if (!is_inherited(address)) {
            listen_address_close(address);
        }
    }
}

bool
lane_count_waiting(const struct lane *lane, uint32_t *ret_count)
{
    struct tcp_info info = {.tcpi_state = 0};
    socklen_t size = sizeof(info);

    if (getsockopt(lane->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == -1) {
        return false;
    }
    *ret_count = info.tcpi_unacked; /* tcp(7): of a listener it is the length of its queue */
    return true;
}

void
listen_address_log(const struct listen_address *address)
{
    log_info("listening address=%s lanes=%zu", address->bound.text, address->lane_count);
}
