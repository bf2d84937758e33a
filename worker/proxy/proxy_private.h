/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of one proxied exchange give each other, and nobody else:
 *
 *   proxy.c           the states as a table, birth and end, events of the server's connection
 *   proxy_choose.c    choosing a server, claiming it, getting a connection to it
 *   proxy_queue.c     waiting for a slot
 *   proxy_failure.c   what a failure means: another attempt, an answer to the client, a cut
 *   proxy_request.c   the request on its way to the server
 *   proxy_response.c  the response on its way to the client
 *   tunnel.c          an upgraded connection
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "worker/exchange.h"
#include "worker/live.h"
#include "worker/proxy/proxy.h"
#include "worker/proxy/retry.h"

struct stream;

static inline struct proxy *
proxy_of(const struct exchange *exchange)
{
    return exchange->state;
}

static inline const struct backend_settings *
proxy_settings(const struct proxy *proxy)
{
    return proxy->backend->settings;
}

/* ---- proxy.c -------------------------------------------------------------------------------- */
/* The only writer of state. */
void proxy_set_state(struct proxy *proxy, enum proxy_state state);
/* What to wait for on the server's connection, from the state and both queues. */
void proxy_rearm(struct proxy *proxy);
/* Frees what was kept of an unfinished response head. */
void proxy_forget_input(struct proxy *proxy);
/* Frees what was collected of the request's body. */
void proxy_forget_body(struct proxy *proxy);
/* The address of the server of proxy->record; of the scoreboard. */
const char *proxy_server_text(const struct proxy *proxy);

/* ---- proxy_choose.c ------------------------------------------------------------------------- */
/* From CHOOSE, the first time: behind those who wait already, if there are any. */
void proxy_admit(struct proxy *proxy);
/* The server of that record may be chosen again. */
void proxy_forget_tried(struct proxy *proxy, uint32_t record);
/* From CHOOSE or QUEUE: the next attempt begins, or the request waits for a slot, or it fails. */
void proxy_try(struct proxy *proxy);
/* QUEUE: it has left the queue with a claim on the server of proxy->record. */
void proxy_use_handed(struct proxy *proxy);
/* What the balancer looks at for a request of backend that was not at any server yet. */
struct balance_input proxy_balance_input(struct worker *worker, const struct backend *backend,
                                         const uint64_t *tried);
/* CONNECT: connect(2) came to its end, or its clock ran out. */
void proxy_on_connected(struct proxy *proxy);
void proxy_connect_timeout(struct proxy *proxy);

/* ---- proxy_queue.c -------------------------------------------------------------------------- */
/* Prepares a new proxy for the queue. */
void proxy_init_waiting(struct proxy *proxy);
/* Whether others wait already: a new request must not overtake them. */
bool proxy_must_wait(const struct proxy *proxy);
/* CHOOSE or QUEUE: waits until it is handed a slot, of any server but the last one it tried when
 * excludes is set; or fails, because the queue is full or it has waited for long enough before. */
void proxy_enter_queue(struct proxy *proxy, bool excludes);
/* Does nothing when it does not wait. */
void proxy_leave_queue(struct proxy *proxy);
/* Gives the claim, if there is one, to whoever waits, else back. Nobody of this worker runs
 * before its next turn: a request must not run inside another one's end. */
void proxy_unclaim(struct proxy *proxy);

/* ---- proxy_failure.c ------------------------------------------------------------------------ */
/* Ends the exchange's part with servers and answers the client with status; setting is the key that
 * would change it, or NULL. */
void proxy_fail(struct proxy *proxy, int status, const char *reason, const char *setting);
/* Tells the client how the last attempt ended. */
void proxy_fail_as_last_attempt(struct proxy *proxy);
/* The attempt with the server of proxy->record failed: tries again where that is safe, else tells
 * the client. setting: the clock that ran out, or NULL. */
void proxy_attempt_failed(struct proxy *proxy, enum upstream_failure failure, const char *reason,
                          const char *setting);
/* The response cannot be completed any more: the client must see it break. */
void proxy_server_broke(struct proxy *proxy, const char *reason);
/* The server answered with that status: its health. */
void proxy_note_answer(struct proxy *proxy, int status);
/* HEAD, while awaits_proof: the kernel had its time. */
void proxy_proof_timeout(struct proxy *proxy);

/* ---- proxy_request.c ------------------------------------------------------------------------ */
/* Whether the request has a body that is collected before a server is chosen. */
bool proxy_should_collect(const struct proxy *proxy);
/* COLLECT: always true; a piece of the body; its end. */
bool proxy_may_collect(const struct proxy *proxy);
void proxy_collect(struct proxy *proxy, struct str bytes);
void proxy_collect_end(struct proxy *proxy);
/* CHOOSE, QUEUE, CONNECT: the piece that was one too many to collect on was the last. */
void proxy_note_body_end(struct proxy *proxy);
/* CONNECT or CHOOSE -> HEAD: writes the request's head and what was collected of its body. */
void proxy_begin_request(struct proxy *proxy);
/* Sets the clock of HEAD: response_timeout. */
void proxy_expect_response(struct proxy *proxy);
/* HEAD and BODY: whether more of the request body may come now. */
bool proxy_may_send_body(const struct proxy *proxy);
/* A piece of it; its end. */
void proxy_send_body(struct proxy *proxy, struct str bytes);
void proxy_send_body_end(struct proxy *proxy);

/* The last chunk of a body to either side; trailers: NULL, or what is passed on of them. */
void proxy_put_last_chunk(struct stream *stream, const struct chunked_trailers *trailers);

/* ---- proxy_response.c ----------------------------------------------------------------------- */
/* HEAD and BODY: whether more of the response may come now. */
bool proxy_may_read_response(const struct proxy *proxy);
/* HEAD: feeds bytes of heads, one after another; what follows the final one goes on to the body or
 * the tunnel. bytes begins with what was kept in proxy->input. */
void proxy_take_heads(struct proxy *proxy, const char *bytes, size_t length);
/* BODY. */
void proxy_take_body(struct proxy *proxy, const char *bytes, size_t length);
/* The clocks of HEAD and BODY ran out. */
void proxy_head_timeout(struct proxy *proxy);
void proxy_body_timeout(struct proxy *proxy);
/* The server's connection came to its end in HEAD or BODY. errno is 0 for FIN; how says it in
 * words. */
void proxy_head_cut(struct proxy *proxy, const char *how);
void proxy_body_cut(struct proxy *proxy, const char *how);

/* ---- tunnel.c ------------------------------------------------------------------------------- */
/* HEAD -> TUNNEL: the 101 was put. rest is what the server sent behind it. */
void tunnel_start(struct proxy *proxy, const char *rest, size_t length);
/* Whether more of the server, of the client may come now: back-pressure. */
bool tunnel_may_read_server(const struct proxy *proxy);
bool tunnel_may_read_client(const struct proxy *proxy);
/* Bytes of the server, of the client. */
void tunnel_take_server(struct proxy *proxy, const char *bytes, size_t length);
void tunnel_take_client(struct proxy *proxy, struct str bytes);
/* FIN of the server (or an error, when errno is not 0), of the client. */
void tunnel_server_end(struct proxy *proxy, const char *how);
void tunnel_client_end(struct proxy *proxy);
void tunnel_timeout(struct proxy *proxy);
/* New settings: goes on under them, or gets graceful_timeout to leave when its route, backend or
 * server is not among them. */
void tunnel_reload(struct exchange *exchange, struct live *live);
