/* SPDX-License-Identifier: Apache-2.0
 *
 * The half of exchange.c that only conn.c calls: begin, body, end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "worker/conn.h"
#include "worker/exchange.h"

struct worker;

/* Starts the exchange of conn for a complete head: finds the route, checks what every action wants
 * checked, starts the action. conn->exchange is set. false: out of memory, nothing begun. */
bool exchange_begin(struct conn *conn, const struct request_head *head, const char *base);
/* Whether more of the request body may come now. */
bool exchange_wants_body(const struct exchange *exchange);
/* The body is wanted: its clock runs. Returns how long it may still take as a whole, by body_rate;
 * not above 0 when that time is over, INT64_MAX without a minimum rate. */
int64_t exchange_body_rate_left_ms(struct exchange *exchange, int64_t now_ms);
/* The body is not wanted now: its clock stands still. */
void exchange_body_clock_stop(struct exchange *exchange, int64_t now_ms);
/* Decodes and hands on; returns the bytes taken, at least 1 unless the exchange failed. */
size_t exchange_take_body(struct exchange *exchange, const char *bytes, size_t len);
/* The client took some of what was queued: the action may go on. */
void exchange_drained(struct exchange *exchange);
/* Whether it may end: the response is out, and the request was read or need not be. */
bool exchange_is_over(const struct exchange *exchange);
/* Ends one that is over: logs, counts, frees; conn becomes IDLE or FINISH. */
void exchange_end(struct conn *conn);
/* Ends one that is not, because the connection closes. */
void exchange_end_early(struct conn *conn, enum close_reason reason);
/* Puts "100 Continue". */
void exchange_put_continue(struct exchange *exchange);
/* The client broke its request in the middle: ends what the action was doing with it, answers with
 * status and ends the connection. After a head is out it breaks the response off instead. */
void exchange_refuse(struct exchange *exchange, int status, const char *reason,
                     const char *setting);
/* Writes the small page for a status; returns its length. */
size_t exchange_page(int status, char *out, size_t capacity);
/* Writes the Server and Date fields. */
void worker_put_server_and_date(struct worker *worker, struct head_writer *writer);
