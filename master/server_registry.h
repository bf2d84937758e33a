/* SPDX-License-Identifier: Apache-2.0
 *
 * Which record of the scoreboard stands for which server: one for each server= entry and two for
 * each instance of a command=, so that a replacement can stand beside the one it replaces. A
 * record keeps its server across reloads, and serves another one only after nobody can mean the
 * old one any more. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/scoreboard.h"

struct buf;
struct config;

enum record_use {
    RECORD_FREE = 0,
    RECORD_NEW,    /* assigned, not committed */
    RECORD_USED,   /* of the settings in use */
    RECORD_LEAVING /* of older settings; workers may still mean it */
};

struct server_record {
    enum record_use use;
    bool wanted; /* by the settings that are being prepared */
    bool is_instance;
    uint64_t left_serial; /* RECORD_LEAVING: the first settings without it */
    char *key;            /* owned; what the record stands for */
};

struct server_registry {
    struct scoreboard *board;
    struct server_record records[BOARD_SERVERS_MAX];
};

void server_registry_init(struct server_registry *registry, struct scoreboard *board);
void server_registry_release(struct server_registry *registry);

/* Gives every server of config a record, shows it on the scoreboard and stores the numbers with
 * config_set_records(). 0, or -ENOSPC with a whole sentence in error. Followed by commit, rollback
 * or abandon. */
int server_registry_prepare(struct server_registry *registry, struct config *config,
                            struct buf *error);
/* The prepared settings are in use from serial on. */
void server_registry_commit(struct server_registry *registry, const struct config *config,
                            uint64_t serial);
/* They are not, and no worker uses them; forgets what was assigned for them. */
void server_registry_rollback(struct server_registry *registry);
/* They are not, but a worker may use them as serial: what was assigned waits until it cannot. */
void server_registry_abandon(struct server_registry *registry, uint64_t serial);
/* What a predecessor had: record number stands for key. */
void server_registry_restore(struct server_registry *registry, uint32_t number, const char *key,
                             bool is_instance, enum record_use use, uint64_t left_serial);
/* Frees what nobody can mean any more: every worker applied settings without it, no request is
 * open, no instance runs. Returns whether something still waits for that. */
bool server_registry_sweep(struct server_registry *registry, uint64_t applied_by_all);

/* Index of the records of instance `index`, first or second, in backend_settings.records. */
static inline uint32_t
server_registry_instance_record(uint32_t index, uint32_t half)
{
    return 2 * index + half;
}
