/* SPDX-License-Identifier: Apache-2.0
 *
 * Every descriptor is stored under a name of its own, because FDSTOREREMOVE takes all of a name:
 *
 *   narwhal-board
 *   narwhal-lane,HOME,DEV,INO,ADDRESS    home in decimal; dev and ino (0 but for a unix socket) in
 *                                        hex: a node that somebody else has put at the path since
 *                                        is not ours; the address as configured, with %XX for what
 *                                        systemd does not take (sd_pid_notify_with_fds(3))
 *
 * Sockets that a .socket unit or a shell passed are not stored: who made them keeps them. A board
 * is never used again, since workers that were not reaped may still write to it: its totals and the
 * deaths are taken over into a new one.
 */
#include "master/fd_store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/inherited.h"
#include "master/lane.h"
#include "master/master.h"
#include "master/notify.h"
#include "worker/scoreboard.h"

/* The most that systemd takes as a name. */
#define NAME_MAX_LENGTH 255

struct stored_lane {
    int fd; /* owned; -1: taken or closed */
    const char *name;
    uint32_t home;
    struct stat node; /* of a unix socket: st_dev and st_ino */
    char address[ADDRESS_TEXT_MAX];
};

static struct {
    struct stored_lane *lanes; /* owned for ever */
    size_t lane_count;
    size_t taken;
    int board_fd; /* owned; -1: none */
    bool board_stored;
    bool told_full;
    bool told_long;
} store = {.board_fd = -1};

static size_t
room_of_store(void)
{
    const char *room = getenv("FDSTORE");
    long value = room != NULL ? strtol(room, NULL, 10) : 0;

    return value > 0 ? (size_t)value : 0;
}

bool
fd_store_is_on(void)
{
    return room_of_store() > 0 && getenv("NOTIFY_SOCKET") != NULL;
}

/* ---- names ----------------------------------------------------------------------------------- */

static void
print_name(const struct listen_address *address, const struct lane *lane, struct buf *out)
{
    bool is_unix = address->wanted.kind == ADDRESS_UNIX;

    buf_addf(out, INHERITED_LANE_PREFIX "%" PRIu32 ",%llx,%llx,", is_unix ? 0 : lane->home,
             is_unix ? (unsigned long long)address->unix_socket.dev : 0,
             is_unix ? (unsigned long long)address->unix_socket.ino : 0);
    for (const char *c = address->wanted.text; *c != '\0'; c++) {
        unsigned char byte = (unsigned char)*c;
        if (byte <= ' ' || byte >= 0x7f || byte == ':' || byte == '%') {
            buf_addf(out, "%%%02x", byte);
        } else {
            buf_add(out, c, 1);
        }
    }
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
parse_name(const char *name, struct stored_lane *ret_lane)
{
    unsigned long long dev;
    unsigned long long ino;
    size_t length = 0;
    int end = 0;

    if (sscanf(name, INHERITED_LANE_PREFIX "%" SCNu32 ",%llx,%llx,%n", &ret_lane->home, &dev, &ino,
               &end) != 3 ||
        end == 0) {
        return false;
    }
    ret_lane->node.st_dev = (dev_t)dev;
    ret_lane->node.st_ino = (ino_t)ino;
    for (const char *c = name + end; *c != '\0'; c++) {
        char byte = *c;
        if (byte == '%') {
            int high = hex_digit(c[1]);
            int low = high != -1 ? hex_digit(c[2]) : -1;
            if (low == -1) {
                return false;
            }
            byte = (char)(high * 16 + low);
            c += 2;
        }
        if (length + 1 >= sizeof(ret_lane->address)) {
            return false;
        }
        ret_lane->address[length++] = byte;
    }
    ret_lane->address[length] = '\0';
    return length > 0;
}

/* ---- what came back -------------------------------------------------------------------------- */

static bool
is_listening(int fd)
{
    int value = 0;
    socklen_t size = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0 && value != 0 &&
           fd_set_nonblock(fd, true) == 0;
}

void
fd_store_collect(void)
{
    const char *name = NULL;

    for (int fd = inherited_stored_next(-1, &name); fd != -1;
         fd = inherited_stored_next(fd, &name)) {
        struct stored_lane lane = {.fd = fd, .name = name};
        if (strcmp(name, INHERITED_BOARD_NAME) == 0 && store.board_fd == -1) {
            store.board_fd = fd;
        } else if (parse_name(name, &lane) && is_listening(fd)) {
            store.lanes = xrealloc(store.lanes, (store.lane_count + 1) * sizeof(*store.lanes));
            store.lanes[store.lane_count++] = lane;
        } else {
            log_warn("a stored descriptor is of no use and is given up fd=%d name=%s", fd, name);
            notify_send("FDSTOREREMOVE=1\nFDNAME=%s", name);
            int useless = fd;
            fd_close(&useless);
        }
    }
}

/* Nobody shall wait in its queue any more, and its address be free at once: the manager closes its
 * duplicate when it gets to it, but a socket that does not listen is in nobody's way (socket(7),
 * SO_REUSEADDR). */
static void
give_up(struct stored_lane *lane)
{
    struct address address;
    char *error = address_parse(lane->address, &address);

    (void)shutdown(lane->fd, SHUT_RDWR);
    if (error == NULL && address.kind == ADDRESS_UNIX) {
        struct unix_listener listener = {
            .fd = lane->fd, .dev = lane->node.st_dev, .ino = lane->node.st_ino};
        strcpy(listener.path, address.un.sun_path);
        unix_listener_close(&listener); /* with its node, if that is still there */
        lane->fd = -1;
    }
    free(error);
    fd_close(&lane->fd);
    notify_send("FDSTOREREMOVE=1\nFDNAME=%s", lane->name);
}

static bool
is_bound_by(const struct config *config, const char *address)
{
    for (size_t i = 0; i < config->master.bind.count; i++) {
        if (strcmp(config->master.bind.item[i].text, address) == 0) {
            return true;
        }
    }
    return false;
}

void
fd_store_drop_unwanted(const struct config *config)
{
    for (size_t i = 0; i < store.lane_count; i++) {
        struct stored_lane *lane = &store.lanes[i];
        if (lane->fd != -1 && !is_bound_by(config, lane->address)) {
            log_info("no longer listening address=%s (it was kept over the restart)",
                     lane->address);
            give_up(lane);
        }
    }
}

int
fd_store_take_lane(const char *address, uint32_t home, bool *ret_kept, struct stat *ret_node)
{
    struct stored_lane *best = NULL;

    for (size_t i = 0; i < store.lane_count; i++) {
        struct stored_lane *lane = &store.lanes[i];
        if (lane->fd != -1 && strcmp(lane->address, address) == 0 &&
            (best == NULL || lane->home < best->home)) {
            best = lane;
        }
    }
    if (best == NULL) {
        return -1;
    }
    int fd = best->fd;
    best->fd = -1;
    store.taken++;
    *ret_node = best->node;
    *ret_kept = best->home == home;
    if (!*ret_kept) {
        notify_send("FDSTOREREMOVE=1\nFDNAME=%s", best->name);
    }
    return fd;
}

/* Counters of a board that nobody clears any more, in one. */
static void
import_counters(struct scoreboard *board, const struct scoreboard *before)
{
#define IMPORT_COUNTER(name, text)                                                                 \
    atomic_store_explicit(&board->retired.name,                                                    \
                          board_total(before, offsetof(struct board_counters, name)),              \
                          memory_order_relaxed);
    BOARD_COUNTERS(IMPORT_COUNTER)
#undef IMPORT_COUNTER
    /* What was open ended with the workers that held it. */
    atomic_store_explicit(&board->retired.closed,
                          atomic_load_explicit(&board->retired.accepted, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&board->retired.tunnels_ended,
                          atomic_load_explicit(&board->retired.tunnels, memory_order_relaxed),
                          memory_order_relaxed);
    if (before->death_next < BOARD_DEATHS_MAX && before->death_count <= BOARD_DEATHS_MAX) {
        memcpy(board->deaths, before->deaths, sizeof(board->deaths));
        board->death_next = before->death_next;
        board->death_count = before->death_count;
    }
}

void
fd_store_import_board(struct scoreboard *board)
{
    if (store.board_fd == -1) {
        return;
    }
    struct scoreboard *before = scoreboard_adopt(store.board_fd);
    log_warn("the last master ended without a stop; the service manager kept lanes=%zu counters=%s",
             store.lane_count, before != NULL ? "yes" : "of another layout");
    if (before != NULL) {
        import_counters(board, before);
        (void)munmap(before, sizeof(*before)); /* our own mapping: cannot fail */
    }
    fd_close(&store.board_fd);
    fd_store_forget_board();
}

/* ---- storing --------------------------------------------------------------------------------- */

static void
tell_full(size_t room)
{
    if (!store.told_full) {
        log_warn("not all lanes are kept over a restart: the store has room for %zu descriptors; "
                 "raise FileDescriptorStoreMax= and $FDSTORE of the unit",
                 room);
        store.told_full = true;
    }
}

static bool
is_stored_kind(const struct listen_address *address)
{
    return address->wanted.kind == ADDRESS_TCP || address->wanted.kind == ADDRESS_UNIX;
}

/* Returns false when the manager takes none now. */
static bool
store_lane(const struct listen_address *address, struct lane *lane)
{
    struct buf name = {0};

    print_name(address, lane, &name);
    int result = -ENAMETOOLONG;
    if (name.len <= NAME_MAX_LENGTH) {
        /* FDPOLL=0: a listening socket has nothing to say to the manager. */
        result = notify_send_fd(lane->fd, "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name.ptr);
    }
    if (result == -ENAMETOOLONG && !store.told_long) {
        store.told_long = true;
        log_warn("a lane is not kept over a restart, its name is too long address=%s",
                 address->wanted.text);
    }
    buf_release(&name);
    lane->stored = result == 0;
    return result == 0 || result == -ENAMETOOLONG;
}

void
fd_store_reconcile(struct master *master)
{
    size_t room = room_of_store();
    size_t count = 1;

    if (!fd_store_is_on() || master->phase != MASTER_RUNNING) {
        return;
    }
    if (!store.board_stored) {
        int result =
            notify_send_fd(master->board_fd, "FDSTORE=1\nFDPOLL=0\nFDNAME=" INHERITED_BOARD_NAME);
        store.board_stored = result == 0;
        if (!store.board_stored) {
            return;
        }
    }
    LIST_FOR_EACH (node, &master->lanes.addresses) {
        struct listen_address *address = listen_address_from(node);
        for (size_t i = 0; i < address->lane_count && is_stored_kind(address); i++) {
            if (++count > room) {
                tell_full(room);
                return;
            }
            if (!address->lanes[i].stored && !store_lane(address, &address->lanes[i])) {
                return;
            }
        }
    }
}

void
fd_store_forget_address(struct listen_address *address)
{
    if (!fd_store_is_on() || !is_stored_kind(address)) {
        return;
    }
    for (size_t i = 0; i < address->lane_count; i++) {
        struct buf name = {0};
        address->lanes[i].stored = false;
        print_name(address, &address->lanes[i], &name);
        notify_send("FDSTOREREMOVE=1\nFDNAME=%s", name.ptr);
        buf_release(&name);
    }
}

void
fd_store_forget_board(void)
{
    if (fd_store_is_on()) {
        notify_send("FDSTOREREMOVE=1\nFDNAME=" INHERITED_BOARD_NAME);
        store.board_stored = false;
    }
}
