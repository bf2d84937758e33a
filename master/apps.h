/* SPDX-License-Identifier: Apache-2.0
 *
 * Applications that narwhal keeps running: for each backend with command= as many instances as it
 * wants, each in a slot with a stable number. Decides who is started, replaced and stopped. Runs in
 * the master.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/list.h"
#include "master/recycle.h"
#include "master/respawn.h"
#include "master/unix_listener.h"

struct app;
struct backend_settings;
struct config;
struct instance;
struct master;

/* Each slot has two places, so that a successor can stand beside the one it replaces. */
#define INSTANCE_HALVES 2

struct instance_slot {
    struct app *app;
    uint32_t number;
    struct instance *serving; /* owned; STARTING, READY, BACKOFF; NULL: none */
    struct instance *next;    /* owned; STARTING: will serve when READY */
    struct list_node leaving; /* of struct instance, owned */
    /* The listening sockets that instances get as descriptor; they live as long as the slot, so
     * that what is queued survives the application. */
    struct unix_listener listeners[INSTANCE_HALVES];
    uint32_t records[INSTANCE_HALVES]; /* of the scoreboard */
    struct respawn respawn;
    uint32_t failed_successors; /* in a row */
    struct recycle_history recycle;
};

struct app {
    struct master *master;
    char *name;                              /* owned; of the backend */
    const struct backend_settings *settings; /* in master.config; NULL: removed, all leave */
    uint32_t wanted;                         /* instances; 0: removed */
    uint64_t generation;                     /* instances of an older one are replaced */
    bool roll_failed;                        /* told; the old ones stay */
    char *why;                               /* owned; what the last roll failed of; NULL */
    bool rolling;                            /* to say when it is done */
    bool is_ahead; /* started for settings that are not in use yet; settings are in theirs */
    bool restored; /* of a predecessor: the next settings are those its instances have */
    size_t slot_count;
    struct instance_slot **slots; /* owned; grows only */
    struct list_node node;
};

struct app_set {
    struct list_node apps; /* of struct app, owned */
};

void apps_init(struct master *master);
/* A predecessor's application, and its slots one after the other, before apps_commit(). */
struct app *app_restore(struct master *master, const char *name);
struct instance_slot *app_restore_slot(struct app *app);
/* What must work before settings may be used: the folder for sockets. 0, or a negative errno with
 * a whole sentence in error. */
struct buf;
int apps_prepare(struct master *master, const struct config *config, struct buf *error);
/* Starts what a new backend of config needs, while other settings are in use: once they are, its
 * routes shall find it READY. Followed by apps_commit() or apps_cancel_ahead(). Returns whether
 * there is such a backend. */
bool apps_start_ahead(struct master *master, const struct config *config);
/* Replaces every instance of a backend, as a reload does. *ret_generation: the one that they shall
 * have. 0, or a negative errno with a whole sentence in error. */
int apps_restart(struct master *master, const char *name, uint64_t *ret_generation,
                 struct buf *error);
enum apps_ahead { AHEAD_BOOTING = 0, AHEAD_READY, AHEAD_FAILED };
/* READY when one instance of each is; FAILED when one died or could not be started, with what it
 * said in *ret_why, which is the caller's. */
enum apps_ahead apps_ahead_state(const struct master *master, char **ret_why);
/* config is not used: they leave. */
void apps_cancel_ahead(struct master *master);
/* master.config is new: takes over its backends. Running instances are replaced one by one; those
 * that are not wanted any more leave, and those among them without a process are gone at once. */
void apps_commit(struct master *master);
/* Starts, replaces and stops instances. Idempotent. */
void apps_reconcile(struct master *master);
/* Stops all. */
void apps_stop(struct master *master, bool quick);
bool apps_any_left(const struct master *master);
void apps_release(struct master *master);

/* Callbacks of instance.c. */
void app_on_ready(struct instance *instance);
void app_on_gone(struct instance *instance);
