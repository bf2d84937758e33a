/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening of logs, always for appending: several processes write to one file. Runs in the master.
 */
#include "master/log_files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/fd.h"
#include "config/base/log_sink.h"
#include "config/config.h"

#define LOG_FILE_MODE 0640

/* A datagram socket that is connected to path, or a negative errno. */
static int
connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path)) {
        return -ENAMETOOLONG;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1) {
        return -errno;
    }
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == -1) {
        int result = -errno;
        fd_close(&fd);
        return result;
    }
    return fd;
}

static int
open_socket(const struct config *config, const char *path, const char *key, int *ret_fd,
            struct buf *error)
{
    int fd = connect_to(path);

    if (fd < 0) {
        buf_addf(error,
                 "%s: %s: cannot connect to %s: %s; does it run here? Containers mostly have "
                 "neither syslog nor journald: use stderr",
                 config_origin(config, "log", NULL, key), key, path, strerror(-fd));
        return fd;
    }
    *ret_fd = fd;
    return 0;
}

static int
open_target(const struct config *config, const struct log_target *target, const char *key,
            int *ret_fd, struct buf *error)
{
    switch (target->kind) {
    case TARGET_OFF:
        *ret_fd = -1;
        return 0;
    case TARGET_STDOUT:
        *ret_fd = STDOUT_FILENO;
        return 0;
    case TARGET_STDERR:
        *ret_fd = STDERR_FILENO;
        return 0;
    case TARGET_SYSLOG:
        return open_socket(config, LOG_SYSLOG_PATH, key, ret_fd, error);
    case TARGET_JOURNALD:
        return open_socket(config, LOG_JOURNALD_PATH, key, ret_fd, error);
    case TARGET_FILE:
        break;
    }
    /* O_NONBLOCK: a FIFO that nobody reads must be an error, not a wait (open(2), ENXIO). */
    int fd = open(target->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
                  LOG_FILE_MODE);
    if (fd == -1) {
        int result = -errno;
        buf_addf(error, "%s: %s: cannot open %s for appending: %s",
                 config_origin(config, "log", NULL, key), key, target->path, strerror(-result));
        return result;
    }
    *ret_fd = fd;
    return 0;
}

int
log_files_open(const struct config *config, struct log_files *ret_files, struct buf *error)
{
    struct log_files files = {.error_fd = -1, .access_fd = -1};
    int result = open_target(config, &config->log.error, "error", &files.error_fd, error);

    if (result == 0) {
        result = open_target(config, &config->log.access, "access", &files.access_fd, error);
    }
    if (result != 0) {
        log_files_close(&files);
        return result;
    }
    *ret_files = files;
    return 0;
}

void
log_files_close(struct log_files *files)
{
    if (files->error_fd > STDERR_FILENO) {
        fd_close(&files->error_fd);
    }
    if (files->access_fd > STDERR_FILENO) {
        fd_close(&files->access_fd);
    }
}
