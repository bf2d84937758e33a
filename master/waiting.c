/* SPDX-License-Identifier: Apache-2.0
 *
 * One look at every queue in which somebody waits; cheap when nobody does. Runs in the master.
 */
#include "master/waiting.h"

#include "config/base/clock.h"
#include "config/config.h"
#include "master/master.h"
#include "worker/slot_queue.h"
#include "worker/wake.h"

int
waiting_init(struct master *master)
{
    return wake_open(&master->wake_fd);
}

static void
wake_cell(void *context, uint32_t cell)
{
    const struct master *master = context;

    if (cell < BOARD_CELLS_MAX) { /* of a ticket, which a worker has written */
        wake_send(master->wake_fd, master->board->workers[cell].wake_name);
    }
}

static struct board_queue *
queue_of(const struct master *master, const struct backend_settings *backend)
{
    return board_queue_of(master->board, backend->records[0]);
}

void
waiting_serve(struct master *master)
{
    if (master->board == NULL || master->config == NULL) {
        return; /* it is being set up or taken down */
    }
    for (size_t i = 0; i < master->config->backend_count; i++) {
        const struct backend_settings *backend = &master->config->backends[i];
        if (backend->record_count > 0) {
            slot_queue_serve(master->board, queue_of(master, backend), backend->records,
                             backend->record_count, backend->health_path != NULL, clock_mono_ms(),
                             wake_cell, master);
        }
    }
}

void
waiting_serve_after_death(struct master *master)
{
    if (master->board == NULL) {
        return;
    }
    board_recount(master->board);
    waiting_serve(master);
    for (uint32_t queue = 0; queue < board_queue_count(master->board); queue++) {
        slot_queue_wake_all(&master->board->queues[queue], wake_cell, master);
    }
}

void
waiting_look(struct master *master)
{
    if (master->board != NULL && board_is_recount_due(master->board)) {
        waiting_serve_after_death(master);
    }
}
