/* SPDX-License-Identifier: Apache-2.0
 *
 * The control channel between the master and one worker: a SOCK_SEQPACKET socket pair, so that a
 * message arrives whole or not at all, with at most one descriptor (SCM_RIGHTS, unix(7)).
 * Both ends are non-blocking. This file knows the messages and how they travel, not what they
 * mean to whom.
 *
 *   master -> worker   SETTINGS (image), LANE_ASSIGN (listening socket), LANE_REVOKE, DRAIN, QUIT,
 *                      ERROR_LOG (descriptor), ACCESS_LOG (descriptor or none)
 *   worker -> master   READY, SETTINGS_APPLIED, SETTINGS_REFUSED, DRAINED, RECYCLE, OUTGROWN
 *
 * A worker is born knowing nothing but its heritage: SETTINGS comes first, then it says READY,
 * and only then it gets lanes. A reload is the same SETTINGS message again. OUTGROWN is the answer
 * when the settings are good and only a new process can serve them, because the sandbox of this one
 * cannot be widened; with serial 0 it says that of a folder that was replaced.
 */
#pragma once

#include <stdint.h>

#define CHANNEL_MESSAGES(X)                                                                        \
    X(SETTINGS)                                                                                    \
    X(LANE_ASSIGN)                                                                                 \
    X(LANE_REVOKE)                                                                                 \
    X(DRAIN)                                                                                       \
    X(QUIT)                                                                                        \
    X(ERROR_LOG)                                                                                   \
    X(ACCESS_LOG)                                                                                  \
    X(READY)                                                                                       \
    X(SETTINGS_APPLIED)                                                                            \
    X(SETTINGS_REFUSED)                                                                            \
    X(DRAINED)                                                                                     \
    X(RECYCLE)                                                                                     \
    X(OUTGROWN)

enum channel_type {
    CHANNEL_NONE = 0,
#define CHANNEL_ENUM(name) CHANNEL_##name,
    CHANNEL_MESSAGES(CHANNEL_ENUM)
#undef CHANNEL_ENUM
        CHANNEL_TYPE_COUNT
};

#ifndef CHANNEL_MAGIC
#define CHANNEL_MAGIC 0x6e726831u /* "nrh1": changes with the layout */
#endif
#define CHANNEL_TEXT_MAX 224

struct channel_message {
    uint32_t magic;
    uint32_t type;               /* enum channel_type */
    uint64_t serial;             /* SETTINGS…: which settings */
    uint32_t lane;               /* LANE_…: id of the lane, stable for the master's life */
    uint32_t unused;             /* zero */
    int64_t timeout_ms;          /* DRAIN: how long open requests may take */
    char text[CHANNEL_TEXT_MAX]; /* LANE_ASSIGN: the address; SETTINGS_REFUSED, OUTGROWN: why */
};

/* Makes the pair; both ends CLOEXEC and non-blocking. 0 or a negative errno. */
int channel_pair(int *ret_master_fd, int *ret_worker_fd);

/* Sends message with descriptor fd (-1: none), which stays the caller's. Fills in the magic.
 * 0, -EAGAIN when the peer does not read, or another negative errno. */
int channel_send(int channel_fd, struct channel_message *message, int fd);

/* Receives one message. *ret_fd is the caller's, -1 when none came. Returns 1 for a message, 0 when
 * the peer is gone, -EAGAIN when nothing is there, -EBADMSG for one that is not ours (wrong size,
 * magic or type; its descriptors are closed), or another negative errno. */
int channel_receive(int channel_fd, struct channel_message *ret_message, int *ret_fd);

/* Stands for all that two programs must have in common to talk over a channel. */
int64_t channel_dialect(void);

const char *channel_type_name(enum channel_type type);
