/* SPDX-License-Identifier: Apache-2.0
 *
 * struct worker: everything a worker process has, for the files of worker/ alone. Include it last:
 * what a worker must never do no longer compiles after it.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/base/list.h"
#include "worker/access_log.h"
#include "worker/acceptor.h"
#include "worker/client_counts.h"
#include "worker/deadline.h"
#include "worker/heritage.h"
#include "worker/http/date.h"
#include "worker/http/request.h"
#include "worker/http/response.h"
#include "worker/proxy/health_probe.h"
#include "worker/scoreboard.h"
#include "worker/stream.h"

struct conn;
struct exchange;
struct live;
struct upstream;
struct waiting_room;

/* One read takes at most this much; what is not used up in the same turn is copied. */
#define WORKER_SCRATCH_BYTES (64 * 1024)
/* Objects kept for reuse, so that a steady load allocates nothing. */
#define WORKER_SPARES_MAX 256
/* Kept for when memory runs out (reserve.h): enough for libev's tables of 10,000 descriptors to
 * double, and for the small objects of all requests that are open. */
#define WORKER_RESERVE_BYTES (1024u * 1024u)
/* How often a worker says again that it is short of memory. */
#define WORKER_SHORT_TOLD_MS 10000
/* How often a worker asks again for a successor that can read a folder. */
#define WORKER_OUTGROWN_TOLD_MS 5000

struct worker {
    struct ev_loop *loop;
    const struct heritage *heritage;
    struct scoreboard *board;
    struct board_worker *me;
    struct live *live;   /* a reference; NULL until the first SETTINGS */
    int64_t now_ms;      /* clock_mono_ms() at the begin of this turn */
    int64_t turn_us;     /* clock_mono_us() at the same moment; 0: no turn is open */
    int64_t now_real_ms; /* clock_real_ms() at the begin of this turn */
    uint64_t random;     /* seed of this process */

    ev_check turn_begin;
    ev_prepare turn_end;
    ev_io channel;
    ev_signal on_term;
    ev_signal on_int;
    ev_signal on_quit;

    struct acceptor acceptor;
    struct list_node conns; /* struct conn.node, all that are open */
    uint32_t conn_count;
    uint64_t conns_opened;               /* numbers them */
    struct client_counts client_counts;  /* empty unless connections_per_client is set */
    struct list_node graveyard;          /* struct conn.node, CLOSED */
    struct list_node upstream_graveyard; /* struct upstream_conn.node */
    bool draining;
    bool drained_told; /* DRAINED was sent */
    bool master_gone;
    bool recycle_told;     /* RECYCLE was sent */
    int64_t outgrown_ms;   /* when OUTGROWN was last sent for a folder; 0: never */
    int64_t short_told_ms; /* when it was last told that memory ran out; 0: never */
    uint64_t recycle_at;   /* answered requests that make it due; UINT64_MAX: never, or told */
    struct deadline drain_deadline; /* graceful_timeout */

    struct upstream *upstreams[BOARD_SERVERS_MAX]; /* by record; made on first use */
    struct waiting_room *waiting_room;             /* owned; requests that wait for a slot */

    struct health_probes health_probes;

    struct access_log access_log;

    /* "Server: narwhal\r\nDate: …\r\n", made anew when the second changes */
    char tail[64];
    size_t tail_length;
    int64_t tail_second;

    struct list_node spare_conns; /* struct conn.node */
    struct exchange *spare_exchanges;
    uint32_t spare_conn_count;
    uint32_t spare_exchange_count;

    /* Scratch of one turn; contents do not survive it. */
    struct request_parser request_parser;
    struct response_parser response_parser;
    struct stream_batch batch;
    char path[WORKER_SCRATCH_BYTES];
    char scratch[WORKER_SCRATCH_BYTES];
};

/* Makes a client's events count: the worker leaves when it drains and nothing is open. */
void worker_conn_ended(struct worker *worker);
/* Whether a request or a connection may be taken on: false while memory is short. Tries to set the
 * reserve aside again. */
bool worker_has_memory(struct worker *worker);
/* Memory ran out: one line in the log, however many connections feel it. */
void worker_tell_short(struct worker *worker, const char *what);
/* A static folder was replaced by one beyond the sandbox: asks the master for a successor, now and
 * then. */
void worker_outgrew_folder(struct worker *worker, const char *path);
/* max_requests is reached: tells the master, once. */
void worker_reached_max_requests(struct worker *worker);

#pragma GCC poison fork vfork waitpid
