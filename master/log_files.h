/* SPDX-License-Identifier: Apache-2.0
 *
 * The open logs. The master alone opens log files; workers get the descriptors, so reopening needs
 * neither a path nor a permission after they changed identity.
 */
#pragma once

struct buf;
struct config;

struct log_files {
    int error_fd;
    int access_fd; /* -1: off */
};

/* Opens what [log] names. 0, or a negative errno with a whole sentence added to error. */
int log_files_open(const struct config *config, struct log_files *ret_files, struct buf *error);
/* Closes what log_files_open() opened; never stdout or stderr. */
void log_files_close(struct log_files *files);
