/* SPDX-License-Identifier: Apache-2.0
 *
 * Which record of the scoreboard stands for which server: one for each server= entry and two for
 * each instance of a command=, several for each name, so that a replacement can stand beside the
 * one it replaces. A record keeps its server across reloads, and serves another one only after
 * nobody can mean the old one any more. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/scoreboard.h"

struct backend_settings;
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
    enum board_wish wish;  /* the operator's; shown on the board */
    bool is_name;          /* a place for an address of a name */
    uint32_t item;         /* which server= of its backend; not of instances */
    uint64_t left_serial;  /* RECORD_LEAVING: the first settings without it */
    char *key;             /* owned; what the record stands for */
    struct address *known; /* owned; of a predecessor: the address that it had; NULL: none */
    int64_t known_weight;
    bool known_backup;
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
                             bool is_instance, enum record_use use, uint64_t left_serial,
                             enum board_wish wish);
/* What the operator wants of a server; one that is enabled again begins with a clean slate. */
void server_registry_wish(struct server_registry *registry, uint32_t number, enum board_wish wish);
/* Frees what nobody can mean any more: every worker applied settings without it, no request is
 * open, no instance runs. Returns whether something still waits for that. */
bool server_registry_sweep(struct server_registry *registry, uint64_t applied_by_all);

/* What became of the addresses of a name. */
struct server_change {
    uint32_t added;
    uint32_t removed;
    uint32_t left_out; /* no record is free for them */
};
/* Makes count addresses (answer.h) the servers of server= number item, which is a name, at once and
 * for all workers: those that are new get a record, those that are gone no requests any more, and
 * their record is free for another one after the last request has ended. */
struct answer_address;
struct server_change server_registry_resolve(struct server_registry *registry,
                                             const struct backend_settings *backend, size_t item,
                                             const struct answer_address *addresses, size_t count);
/* How many addresses of a name are servers now. */
uint32_t server_registry_count_resolved(const struct server_registry *registry,
                                        const struct backend_settings *backend, size_t item);
/* What a predecessor knew: the record, which is restored, had this address. */
void server_registry_restore_address(struct server_registry *registry, uint32_t number,
                                     const char *address, int64_t weight, bool is_backup);

/* Index of the records of instance `index`, first or second, in backend_settings.records. */
static inline uint32_t
server_registry_instance_record(uint32_t index, uint32_t half)
{
    return 2 * index + half;
}
