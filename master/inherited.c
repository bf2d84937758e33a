/* SPDX-License-Identifier: Apache-2.0
 *
 * The inherited listening sockets, as one static set: which numbers they have is a fact about the
 * process. They stay open for the master's whole life, used or not, so that a reload may take one
 * into use. sd_listen_fds(3) describes LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES. All three are
 * believed only when LISTEN_PID is this process: they are inherited by whatever it starts.
 */
#include "master/inherited.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/value.h"

#define FIRST_FD 3
#define FD_COUNT_MAX 8192

static struct {
    bool is_listener[FD_COUNT_MAX];
    int passed;          /* by systemd: 3 … 3 + passed - 1 */
    const char *strange; /* a LISTEN_FDS that is no number, or NULL */
    char **names;        /* owned for ever; of the first name_count that were passed */
    char **problems; /* owned for ever; of what was passed: why it cannot be used, or NULL. Found
                        out at the start: later their numbers are those of other descriptors */
    int name_count;
} inherited;

static const char *
family_problem(int fd)
{
    int value = 0;
    socklen_t size = sizeof(value);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &size) == -1 ||
        (value != AF_INET && value != AF_INET6 && value != AF_UNIX)) {
        return "is a socket of a family that narwhal does not serve: it serves IPv4, IPv6 and unix "
               "sockets (ListenStream= of systemd.socket(5))";
    }
    return NULL;
}

/* 0 for a listening stream socket, else why it is not one. */
static int
check_listener(int fd, struct buf *error)
{
    int value = 0;
    socklen_t size = sizeof(value);

    if (fcntl(fd, F_GETFD) == -1) {
        buf_addf(error, "descriptor %d is not open", fd);
        return -EBADF;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &size) == -1) {
        buf_addf(error, "descriptor %d is not a socket", fd);
        return -ENOTSOCK;
    }
    if (value != SOCK_STREAM) {
        buf_addf(error,
                 "descriptor %d is not a stream socket (ListenStream= makes those, not "
                 "ListenDatagram= and ListenSequentialPacket=)",
                 fd);
        return -ESOCKTNOSUPPORT;
    }
    const char *problem = family_problem(fd);
    if (problem != NULL) {
        buf_addf(error, "descriptor %d %s", fd, problem);
        return -EAFNOSUPPORT;
    }
    size = sizeof(value);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == -1 || value == 0) {
        buf_addf(error,
                 "descriptor %d is a socket that does not listen (with Accept=yes systemd passes "
                 "connections: narwhal needs Accept=no)",
                 fd);
        return -EINVAL;
    }
    return 0;
}

/* ---- the variables --------------------------------------------------------------------------- */

/* The number of a variable; -1 when it is not set or is no number of descriptors or processes. */
static int
number_from(const char *variable)
{
    const char *text = getenv(variable);
    char *end = NULL;

    if (text == NULL || text[0] < '0' || text[0] > '9') {
        return -1;
    }
    errno = 0;
    long number = strtol(text, &end, 10);
    return errno == 0 && *end == '\0' && number <= INT32_MAX ? (int)number : -1;
}

static void
read_names(const char *text)
{
    while (text != NULL && inherited.name_count < inherited.passed) {
        size_t length = strcspn(text, ":");
        inherited.names = xrealloc(inherited.names,
                                   (size_t)(inherited.name_count + 1) * sizeof(*inherited.names));
        inherited.names[inherited.name_count++] = xstrndup(text, length);
        text = text[length] == ':' ? text + length + 1 : NULL;
    }
}

static void
read_passed(void)
{
    const char *count = getenv("LISTEN_FDS");

    if (inherited.passed > 0 || number_from("LISTEN_PID") != (int)getpid() || count == NULL) {
        return;
    }
    inherited.passed = number_from("LISTEN_FDS");
    if (inherited.passed < 0) {
        inherited.passed = 0;
        inherited.strange = count;
    }
    if (inherited.passed > FD_COUNT_MAX - FIRST_FD) {
        inherited.passed = FD_COUNT_MAX - FIRST_FD;
        inherited.strange = count;
    }
    read_names(getenv("LISTEN_FDNAMES"));
}

static const char *
name_of(int fd)
{
    int place = fd - FIRST_FD;

    return place >= 0 && place < inherited.name_count ? inherited.names[place] : "";
}

static bool
is_stored(int fd)
{
    const char *name = name_of(fd);

    return strcmp(name, INHERITED_BOARD_NAME) == 0 ||
           strncmp(name, INHERITED_LANE_PREFIX, sizeof(INHERITED_LANE_PREFIX) - 1) == 0;
}

/* ---- collecting ------------------------------------------------------------------------------ */

static void
note_problem(int fd, const char *text)
{
    if (fd < FIRST_FD + inherited.passed) {
        inherited.problems[fd - FIRST_FD] = xstrdup(text);
    }
}

static const char *
problem_of(int fd)
{
    int place = fd - FIRST_FD;

    return inherited.problems != NULL && place >= 0 && place < inherited.passed
               ? inherited.problems[place]
               : NULL;
}

void
inherited_collect(void)
{
    read_passed();
    inherited.problems = xcalloc((size_t)inherited.passed + 1, sizeof(*inherited.problems));
    for (int fd = FIRST_FD; fd < FD_COUNT_MAX; fd++) {
        struct buf problem = {0};
        if (is_stored(fd)) {
            (void)fd_set_cloexec(fd, true); /* fails for what is not open: found out later */
        } else if (check_listener(fd, &problem) == 0 && fd_set_cloexec(fd, true) == 0 &&
                   fd_set_nonblock(fd, true) == 0) {
            inherited.is_listener[fd] = true;
        } else {
            note_problem(fd, problem.len > 0 ? problem.ptr : strerror(errno));
        }
        buf_release(&problem);
    }
}

void
inherited_restore(int fd)
{
    read_passed();
    if (fd >= FIRST_FD && fd < FD_COUNT_MAX) {
        inherited.is_listener[fd] = true;
    }
}

int
inherited_next(int after)
{
    for (int fd = after < FIRST_FD ? FIRST_FD : after + 1; fd < FD_COUNT_MAX; fd++) {
        if (inherited.is_listener[fd]) {
            return fd;
        }
    }
    return -1;
}

int
inherited_check(int fd, struct buf *error)
{
    if (fd >= FIRST_FD && fd < FD_COUNT_MAX && inherited.is_listener[fd]) {
        return 0;
    }
    int result = -EBADF;
    if (problem_of(fd) != NULL) {
        buf_add_text(error, problem_of(fd));
    } else {
        result = check_listener(fd, error);
    }
    if (result == 0) {
        buf_addf(error, "descriptor %d is narwhal's own", fd);
        result = -EBUSY;
    }
    if (inherited.passed > 0) {
        buf_addf(error, "; LISTEN_FDS passed %d to %d", FIRST_FD, FIRST_FD + inherited.passed - 1);
    } else {
        buf_addf(error,
                 "; no socket was passed by LISTEN_FDS (a systemd .socket unit passes them)");
    }
    return result;
}

/* ---- by name --------------------------------------------------------------------------------- */

int
inherited_named_next(const char *name, int after)
{
    for (int fd = inherited_next(after); fd != -1; fd = inherited_next(fd)) {
        if (strcmp(name_of(fd), name) == 0) {
            return fd;
        }
    }
    return -1;
}

/* The names that a bind could have meant, each once. */
static void
add_names(struct buf *error)
{
    size_t before = error->len;

    for (int i = 0; i < inherited.name_count; i++) {
        bool is_new = !is_stored(FIRST_FD + i);
        for (int k = 0; k < i && is_new; k++) {
            is_new = strcmp(inherited.names[k], inherited.names[i]) != 0;
        }
        if (is_new) {
            buf_addf(error, "%s%s", error->len == before ? "; passed were: " : ", ",
                     inherited.names[i]);
        }
    }
    if (error->len == before) {
        buf_add_text(error, "; no socket with a name was passed: is the .socket unit enabled, and "
                            "does its Service= name this unit?");
    }
}

int
inherited_named_check(const char *name, struct buf *error)
{
    bool any = false;

    for (int i = 0; i < inherited.name_count; i++) {
        int fd = FIRST_FD + i;
        if (strcmp(inherited.names[i], name) != 0 || is_stored(fd)) {
            continue;
        }
        any = true;
        if (!inherited.is_listener[fd]) {
            buf_addf(error, "%s", problem_of(fd) != NULL ? problem_of(fd) : "it was not passed");
            return -EBADF;
        }
    }
    if (!any) {
        buf_addf(error, "no socket was passed by that name (LISTEN_FDNAMES)");
        add_names(error);
        return -ENOENT;
    }
    return 0;
}

int
inherited_stored_next(int after, const char **ret_name)
{
    for (int fd = after < FIRST_FD ? FIRST_FD : after + 1; fd < FIRST_FD + inherited.name_count;
         fd++) {
        if (is_stored(fd) && fcntl(fd, F_GETFD) != -1) {
            *ret_name = name_of(fd);
            return fd;
        }
    }
    return -1;
}

void
inherited_tell_unused(bool (*is_used)(int fd, const char *name, void *context), void *context)
{
    if (inherited.strange != NULL) {
        log_warn("LISTEN_FDS is \"%s\", which is no number of descriptors from 0 to %d: %d are "
                 "looked at",
                 inherited.strange, FD_COUNT_MAX - FIRST_FD, inherited.passed);
    }
    for (int fd = FIRST_FD; fd < FIRST_FD + inherited.passed; fd++) {
        const char *name = name_of(fd);
        if (is_stored(fd)) {
            continue;
        }
        if (!inherited.is_listener[fd]) {
            log_warn("LISTEN_FDS announced %d descriptors, one cannot be used name=%s: %s",
                     inherited.passed, *name != '\0' ? name : "-",
                     problem_of(fd) != NULL ? problem_of(fd) : "it was not passed");
        } else if (!is_used(fd, name, context)) {
            log_warn("a socket was passed and nobody serves it, its clients wait for ever fd=%d "
                     "name=%s: add bind = fd://%d%s%s, or take it out of the .socket unit",
                     fd, *name != '\0' ? name : "-", fd,
                     *name != '\0' ? " or " ADDRESS_SYSTEMD_PREFIX : "", name);
        }
    }
}
