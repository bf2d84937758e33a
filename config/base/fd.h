/* SPDX-License-Identifier: Apache-2.0
 *
 * File descriptors: closing, flags, and the EINTR loop, in one place.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Closes *fd unless it is -1, and stores -1. errno is preserved. Never retries: on Linux the
 * descriptor is gone even when close() says EINTR (close(2)). */
void fd_close(int *fd);

/* Both return 0 or a negative errno. */
int fd_set_nonblock(int fd, bool nonblock);
int fd_set_cloexec(int fd, bool cloexec);

/* read(2) and write(2) that retry EINTR; the result is theirs, with errno set on -1. */
ssize_t fd_read(int fd, void *buffer, size_t size);
ssize_t fd_write(int fd, const void *bytes, size_t size);

/* The beginning of a small file of the kernel (proc(5), cgroups(7)) that one read(2) gives, with a
 * NUL behind it. false: it cannot be opened or read, or is empty; then ret_text is "". */
bool fd_read_text(const char *path, char *ret_text, size_t size);

/* Writes everything to a descriptor that does not block for long (a file, a memfd).
 * 0 or a negative errno. */
int fd_write_all(int fd, const void *bytes, size_t size);
