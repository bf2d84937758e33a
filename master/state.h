/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of a master as bytes, for the program that takes its place: structs and bytes, nothing
 * else. What is in it says state.def; who fills it in and lives by it is handover.h and takeover.h.
 * Pure but for the two functions that touch a memfd. Runs in the master.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "config/base/buf.h"

#define STATE_VERSION 1
#define STATE_BYTES_MAX ((size_t)64 << 20)
#define STATE_ERROR_MAX 200

/* The place of a child in its slot. */
enum state_role { STATE_SERVING = 0, STATE_NEXT, STATE_LEAVING, STATE_ROLE_COUNT };

/* struct state_master, struct state_lane, … */
#define STATE_RECORD(name, kind) struct state_##name {
#define STATE_INT(field, lowest, highest) int64_t field;
#define STATE_FD(field) int field;
#define STATE_TEXT(field) char *field; /* owned */
#define STATE_BYTES(field) struct buf field;
#define STATE_RECORD_END(name)                                                                     \
    }                                                                                              \
    ;
#include "master/state.def"

/* Of each record an array: lane_count, lanes. Owned. */
struct state {
#define STATE_RECORD(name, kind)                                                                   \
    size_t name##_count;                                                                           \
    struct state_##name *name;
#define STATE_INT(field, lowest, highest)
#define STATE_FD(field)
#define STATE_TEXT(field)
#define STATE_BYTES(field)
#define STATE_RECORD_END(name)
#include "master/state.def"
};

/* struct state_lane *state_add_lane(struct state *state): a new one, zero but for its descriptors,
 * which are -1. It moves when the next one is added. */
#define STATE_RECORD(name, kind) struct state_##name *state_add_##name(struct state *state);
#define STATE_INT(field, lowest, highest)
#define STATE_FD(field)
#define STATE_TEXT(field)
#define STATE_BYTES(field)
#define STATE_RECORD_END(name)
#include "master/state.def"

void state_release(struct state *state);
/* Calls act for each descriptor of the state. Returns 0, or what act returned, which ends it. */
int state_each_fd(const struct state *state, int (*act)(int fd, void *context), void *context);

/* Adds the bytes of the state. */
void state_write(const struct state *state, struct buf *out);
/* Reads them, into a zero state. 0, or -EBADMSG with the reason in error and nothing to release:
 * whatever the bytes are, every number is within its bounds and every reference meets something. */
int state_read(struct state *ret_state, const char *bytes, size_t length,
               char error[STATE_ERROR_MAX]);

/* The state in a new memfd, which is closed on exec. The descriptor, or a negative errno. */
int state_to_memfd(const struct state *state);
/* Reads all of fd, which must be a file of no more than STATE_BYTES_MAX, and stays the caller's. */
int state_from_fd(struct state *ret_state, int fd, char error[STATE_ERROR_MAX]);
