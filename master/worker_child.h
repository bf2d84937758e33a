/* SPDX-License-Identifier: Apache-2.0
 *
 * One worker process as the master sees it: the fork, its cell on the scoreboard, its channel.
 * Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/list.h"
#include "master/child.h"
#include "master/progress.h"
#include "master/recycle.h"

struct channel_message;
struct slot;

#define WORKER_NO_CELL UINT32_MAX

struct worker_child {
    struct child child;
    /* configuration fields */
    struct slot *slot;
    uint32_t epoch; /* see struct slot_set */
    /* runtime fields; all but the last two belong to one life */
    uint32_t generation;
    uint32_t cell;
    int channel_fd;
    ev_io channel_read;
    ev_io channel_write;    /* active while queue is not empty */
    struct list_node queue; /* messages that the socket did not take */
    size_t queue_length;
    ev_timer channel_retry; /* runs while the kernel has no room for a descriptor in flight */
    uint32_t answers_due;   /* SETTINGS that it was sent and has not answered */
    bool said_applied;
    bool said_ready;
    bool said_drained;
    bool said_recycle;
    uint64_t sent_serial;
    uint64_t applied_serial;
    uint64_t refused_serial;  /* the last settings that it cannot use; 0: none */
    uint64_t outgrown_serial; /* settings that its sandbox has no room for; 0: none */
    int64_t outgrown_ms;      /* when it said that of a folder; 0: never */
    struct recycle_life recycle;
    uint32_t *lanes; /* owned; ids of those that it serves */
    size_t lane_count;
    struct progress progress;
    bool stalled;          /* siblings serve its lanes */
    uint32_t stalls;       /* of this process */
    int64_t stall_told_ms; /* 0: not yet */
    bool foreign;          /* it runs the code of a program that was upgraded: it gets lanes, logs
                              and orders, and no settings, because it may not understand them */
    bool leaving;          /* no lanes any more; drains as soon as they are someone else's */
    struct list_node node; /* in slot.leaving */
};

/* A worker of slot, not yet started. */
struct worker_child *worker_child_new(struct master *master, struct slot *slot);
/* Forks it. A failure is told and leads to BACKOFF. */
void worker_child_start(struct worker_child *worker);
/* A worker of a predecessor: the channel to its process, which is taken over; -1 for a worker
 * without one. Its other fields are the caller's to set. */
void worker_child_resume(struct worker_child *worker, int channel_fd);
/* Calls act for each message that it was not told yet, in order. */
void worker_child_each_untold(const struct worker_child *worker,
                              void (*act)(const struct channel_message *message, void *context),
                              void *context);
/* Frees a worker without a process. */
void worker_child_free(struct worker_child *worker);

/* Sends a message, with a descriptor that stays the caller's (-1: none), now or when the worker
 * reads again. A worker that does not read is replaced. */
void worker_child_send(struct worker_child *worker, struct channel_message *message, int fd);
/* Sends the settings in use, once. */
void worker_child_send_settings(struct worker_child *worker);
/* Sends other settings: an image, which stays the caller's, with its serial. */
void worker_child_send_image(struct worker_child *worker, uint64_t serial, int image_fd);
void worker_child_send_logs(struct worker_child *worker);
/* DRAIN, or QUIT for a worker that serves nobody yet or when quick. */
void worker_child_leave(struct worker_child *worker, bool quick);

bool worker_child_has_lane(const struct worker_child *worker, uint32_t lane);
void worker_child_assign_lane(struct worker_child *worker, uint32_t lane, int fd,
                              const char *address);
/* The worker accepts what waits in the lane's queue and lets go of it. */
void worker_child_revoke_lane(struct worker_child *worker, uint32_t lane);
