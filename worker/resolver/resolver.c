/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions and their rounds. Runs in the resolver process.
 *
 *   WAIT --time is up--> ASK --answer, failure or RESOLVER_ROUND_MAX_MS--> WAIT
 *
 * Each round has a c-ares channel of its own: so resolv.conf(5) is read anew, no answer of an older
 * round can be taken for one of this, and the source port is another one each time, which makes
 * lies harder (RFC 5452 section 9.2). Callbacks of c-ares only note what came; round_go_on() does
 * the rest, because a channel must not be destroyed inside of them (ares_destroy(3)).
 *
 *   round_begin()   WAIT -> ASK   channel, first lookup: SRV, or addresses
 *   round_go_on()   after every event: the next lookups, or the end
 *   round_end()     ASK -> WAIT   tells the master, decides when to ask again
 */
#include "worker/resolver/resolver.h"

#include <ares.h>
#include <arpa/inet.h>
#include <errno.h>
#include <ev.h>
#include <netdb.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/list.h"
#include "config/base/log.h"
#include "worker/resolver/answer.h"
#include "worker/resolver/srv_records.h"

#pragma GCC poison fork vfork waitpid

#define TRY_MS 2000
#define TRIES 2
/* Descriptors of one round: UDP and TCP to each of a few name servers. */
#define SOCKETS_MAX 16
/* Addresses that are kept before they are put in order and cut. */
#define COLLECT_MAX (4 * ANSWER_ADDRESSES_MAX)
/* When the master's end is full. */
#define TELL_AGAIN_MS 200
#define FIRST_RETRY_MS 500

struct question;

struct lookup {
    struct question *question;
    uint16_t port;
    uint16_t weight;
    bool is_backup;
};

struct question {
    /* configuration fields */
    struct resolver *resolver;
    uint32_t number;
    bool is_service;
    uint16_t port;
    char name[ADDRESS_TEXT_MAX];
    /* runtime fields */
    ev_timer next; /* WAIT: the next round; ASK: what c-ares waits for, or the end of the round */
    int64_t retry_ms; /* after the next failure */
    bool has_untold;  /* answer could not be sent */
    /* of a round */
    bool is_asking;
    ares_channel channel;
    int64_t round_ends_ms;
    ev_io sockets[SOCKETS_MAX];
    unsigned int lookups_open;
    bool srv_came;
    struct srv_records srv;
    struct lookup lookups[SRV_TARGETS_MAX];
    uint32_t ttl_s;
    int failure; /* of c-ares: the first one that leaves doubt; ARES_SUCCESS: none */
    size_t not_found;
    size_t count;
    struct answer_address addresses[COLLECT_MAX];
};

struct resolver {
    const struct resolver_heritage *heritage;
    struct ev_loop *loop;
    ev_io channel;
    char *name_servers; /* owned; as c-ares reads them; NULL: its own choice */
    struct question *questions;
    struct answer answer; /* that is being told */
};

static void round_go_on(struct question *question);

/* ---- telling the master ----------------------------------------------------------------------
 */

/* Whether it is on its way. */
static bool
tell(struct resolver *resolver, struct answer *answer)
{
    ssize_t n;

    answer->magic = ANSWER_MAGIC;
    do {
        n = send(resolver->heritage->channel_fd, answer, sizeof(*answer), MSG_NOSIGNAL);
    } while (n == -1 && errno == EINTR);
    return n == (ssize_t)sizeof(*answer);
}

static void
wait_for(struct question *question, int64_t after_ms)
{
    struct ev_loop *loop = question->resolver->loop;

    ev_now_update(loop);
    ev_timer_stop(loop, &question->next);
    ev_timer_set(&question->next, (double)after_ms / 1000.0, 0.);
    ev_timer_start(loop, &question->next);
}

/* ---- sockets of c-ares -----------------------------------------------------------------------
 */

static void
on_socket(struct ev_loop *loop, ev_io *io, int revents)
{
    struct question *question = io->data;

    (void)loop;
    ares_process_fd(question->channel, (revents & EV_READ) != 0 ? io->fd : ARES_SOCKET_BAD,
                    (revents & EV_WRITE) != 0 ? io->fd : ARES_SOCKET_BAD);
    round_go_on(question);
}

/* c-ares opens, changes or closes a socket. One beyond SOCKETS_MAX is never ready, which ends in a
 * timeout of its name server. */
static void
on_socket_state(void *data, ares_socket_t fd, int readable, int writable)
{
    struct question *question = data;
    struct ev_loop *loop = question->resolver->loop;
    int events = (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0);
    ev_io *unused = NULL;
    ev_io *io = NULL;

    for (size_t i = 0; i < SOCKETS_MAX && io == NULL; i++) {
        ev_io *found = &question->sockets[i];
        if (ev_is_active(found) && found->fd == fd) {
            io = found;
        } else if (!ev_is_active(found) && unused == NULL) {
            unused = found;
        }
    }
    io = io != NULL ? io : unused;
    if (io != NULL) {
        ev_io_stop(loop, io);
        if (events != 0) {
            ev_io_set(io, fd, events);
            ev_io_start(loop, io);
        }
    }
}

/* ---- what c-ares hears -----------------------------------------------------------------------
 */

/* Whether the name is certainly not there, as opposed to: nobody knows. */
static bool
is_not_found(int status)
{
    return status == ARES_ENOTFOUND || status == ARES_ENODATA || status == ARES_ENONAME;
}

static void
note_failure(struct question *question, int status)
{
    if (is_not_found(status)) {
        question->not_found++;
    } else if (question->failure == ARES_SUCCESS) {
        question->failure = status;
    }
}

static void
note_node(const struct lookup *lookup, const struct ares_addrinfo_node *node)
{
    struct question *question = lookup->question;
    struct answer_address address = {
        .port = lookup->port, .weight = lookup->weight, .is_backup = lookup->is_backup};

    if (node->ai_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)node->ai_addr;
        address.family = 4;
        memcpy(address.address, &in->sin_addr, 4);
    } else if (node->ai_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)node->ai_addr;
        address.family = 6;
        memcpy(address.address, &in6->sin6_addr, 16);
    } else {
        return;
    }
    if (node->ai_ttl >= 0 && (uint32_t)node->ai_ttl < question->ttl_s) {
        question->ttl_s = (uint32_t)node->ai_ttl;
    }
    answer_list_add(question->addresses, &question->count, COLLECT_MAX, &address);
}

static void
on_addresses(void *data, int status, int timeouts, struct ares_addrinfo *info)
{
    const struct lookup *lookup = data;

    (void)timeouts;
    lookup->question->lookups_open--;
    if (status != ARES_SUCCESS) {
        note_failure(lookup->question, status);
        return;
    }
    for (const struct ares_addrinfo_node *node = info->nodes; node != NULL; node = node->ai_next) {
        note_node(lookup, node);
    }
    ares_freeaddrinfo(info);
}

static void
on_srv(void *data, int status, int timeouts, unsigned char *bytes, int length)
{
    struct question *question = data;

    (void)timeouts;
    question->lookups_open--;
    if (status != ARES_SUCCESS) {
        note_failure(question, status);
    } else if (srv_records_parse(bytes, (size_t)length, &question->srv) != 0) {
        note_failure(question, ARES_EBADRESP);
    } else {
        question->srv_came = true;
    }
}

/* ---- rounds ----------------------------------------------------------------------------------
 */

static void
ask_addresses(struct question *question, struct lookup *lookup, const char *name)
{
    const struct ares_addrinfo_hints hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NOSORT};

    lookup->question = question;
    question->lookups_open++;
    ares_getaddrinfo(question->channel, name, NULL, &hints, on_addresses, lookup);
}

/* RFC 2782: weights are shares within one priority; 0 is the smallest one. */
static uint16_t
weight_of(const struct srv_target *target, uint16_t largest)
{
    uint32_t weight = target->weight;

    if (largest > ANSWER_WEIGHT_MAX) {
        weight = weight * ANSWER_WEIGHT_MAX / largest;
    }
    return (uint16_t)(weight > 0 ? weight : 1);
}

static void
ask_targets(struct question *question)
{
    const struct srv_records *srv = &question->srv;
    uint16_t largest = 0;

    question->srv_came = false;
    question->ttl_s = srv->ttl_s;
    for (size_t i = 0; i < srv->count; i++) {
        largest = srv->item[i].weight > largest ? srv->item[i].weight : largest;
    }
    for (size_t i = 0; i < srv->count; i++) {
        struct lookup *lookup = &question->lookups[i];
        lookup->port = srv->item[i].port;
        lookup->weight = weight_of(&srv->item[i], largest);
        lookup->is_backup = srv->item[i].priority > srv->item[0].priority;
        ask_addresses(question, lookup, srv->item[i].name);
    }
}

static int
compare(const void *a, const void *b)
{
    return answer_compare(a, b);
}

static void
say_failure(const struct question *question, char out[ANSWER_WHY_MAX])
{
    const char *why = "the name has no address";

    if (question->failure != ARES_SUCCESS) {
        why = ares_strerror(question->failure);
    } else if (question->not_found > 0) {
        why = "there is no such name, or it has no address";
    } else if (question->is_service && question->srv.count == 0) {
        why = "the service is not offered";
    }
    (void)snprintf(out, ANSWER_WHY_MAX, "%s", why);
    for (char *c = out; *c != '\0'; c++) {
        *c = *c < 0x20 || *c > 0x7e ? '?' : *c;
    }
}

/* A failure that leaves doubt is one, even when other names of a service were found: to drop
 * servers because one of two questions was lost would be wrong. */
static void
fill_answer(struct question *question, struct answer *ret_answer)
{
    memset(ret_answer, 0, sizeof(*ret_answer));
    ret_answer->question = question->number;
    if (question->failure != ARES_SUCCESS || question->count == 0) {
        ret_answer->kind = ANSWER_FAILED;
        say_failure(question, ret_answer->why);
        return;
    }
    qsort(question->addresses, question->count, sizeof(question->addresses[0]), compare);
    size_t count = question->count < ANSWER_ADDRESSES_MAX ? question->count : ANSWER_ADDRESSES_MAX;
    ret_answer->kind = ANSWER_ADDRESSES;
    ret_answer->count = (uint32_t)count;
    ret_answer->left_out = (uint32_t)(question->count - count);
    memcpy(ret_answer->item, question->addresses, count * sizeof(question->addresses[0]));
}

static int64_t
pause_after(struct question *question, const struct answer *answer)
{
    const struct resolver_heritage *heritage = question->resolver->heritage;
    int64_t pause_ms = (int64_t)question->ttl_s * 1000;

    if (answer->kind == ANSWER_FAILED) {
        pause_ms = question->retry_ms;
        question->retry_ms *= 2;
    } else {
        question->retry_ms = FIRST_RETRY_MS;
    }
    pause_ms = pause_ms < heritage->ttl_max_ms ? pause_ms : heritage->ttl_max_ms;
    pause_ms = pause_ms > heritage->ttl_min_ms ? pause_ms : heritage->ttl_min_ms;
    if (question->retry_ms > heritage->ttl_max_ms) {
        question->retry_ms = heritage->ttl_max_ms;
    }
    return pause_ms;
}

static void
round_end(struct question *question)
{
    struct resolver *resolver = question->resolver;

    if (question->channel != NULL) {
        ares_destroy(question->channel); /* closes its sockets, which on_socket_state() hears */
        question->channel = NULL;
    }
    question->is_asking = false;
    fill_answer(question, &resolver->answer);
    int64_t pause_ms = pause_after(question, &resolver->answer);
    wait_for(question, tell(resolver, &resolver->answer) ? pause_ms : TELL_AGAIN_MS);
}

static void
round_go_on(struct question *question)
{
    struct timeval most = {.tv_sec = TRY_MS / 1000};
    struct timeval left;

    if (question->srv_came) {
        ask_targets(question);
    }
    if (question->lookups_open == 0) {
        round_end(question);
        return;
    }
    const struct timeval *next = ares_timeout(question->channel, &most, &left);
    int64_t next_ms = next->tv_sec * 1000 + next->tv_usec / 1000 + 1;
    int64_t round_ms = question->round_ends_ms - clock_mono_ms();
    wait_for(question, round_ms < 0 ? 0 : next_ms < round_ms ? next_ms : round_ms);
}

static int
open_channel(struct question *question)
{
    /* Without ARES_FLAG_NOSEARCH the search domains of resolv.conf(5) are tried. */
    struct ares_options options = {.timeout = TRY_MS,
                                   .tries = TRIES,
                                   .sock_state_cb = on_socket_state,
                                   .sock_state_cb_data = question,
                                   .lookups = (char[]){"fb"}};
    int status = ares_init_options(&question->channel, &options,
                                   ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB |
                                       ARES_OPT_LOOKUPS);

    if (status != ARES_SUCCESS) {
        question->channel = NULL;
    } else if (question->resolver->name_servers != NULL) {
        status = ares_set_servers_ports_csv(question->channel, question->resolver->name_servers);
    }
    return status;
}

static void
round_begin(struct question *question)
{
    question->is_asking = true;
    question->round_ends_ms = clock_mono_ms() + RESOLVER_ROUND_MAX_MS;
    question->lookups_open = 0;
    question->srv_came = false;
    question->srv.count = 0;
    question->ttl_s = INT32_MAX;
    question->not_found = 0;
    question->count = 0;
    question->failure = open_channel(question);
    if (question->failure == ARES_SUCCESS && question->is_service) {
        question->lookups_open++;
        ares_query(question->channel, question->name, 1 /* IN */, 33 /* SRV */, on_srv, question);
    } else if (question->failure == ARES_SUCCESS) {
        question->lookups[0] = (struct lookup){.port = question->port, .weight = 1};
        ask_addresses(question, &question->lookups[0], question->name);
    }
    round_go_on(question);
}

static void
on_time(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct question *question = container_of(timer, struct question, next);

    (void)loop;
    (void)revents;
    if (!question->is_asking) {
        round_begin(question);
        return;
    }
    if (clock_mono_ms() >= question->round_ends_ms) {
        ares_cancel(question->channel); /* every lookup that is open fails now */
        question->failure = ARES_ETIMEOUT;
        question->srv_came = false;
        question->lookups_open = 0;
    } else {
        ares_process_fd(question->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    }
    round_go_on(question);
}

/* ---- the process -----------------------------------------------------------------------------
 */

/* The master says nothing here: it can only be its end. */
static void
on_channel(struct ev_loop *loop, ev_io *io, int revents)
{
    (void)io;
    (void)revents;
    ev_break(loop, EVBREAK_ALL);
}

static void
question_init(struct question *question, struct resolver *resolver, uint32_t number)
{
    const struct address *address = &resolver->heritage->questions[number];

    question->resolver = resolver;
    question->number = number;
    question->is_service = address->kind == ADDRESS_SRV;
    address_name(address, question->name, &question->port);
    question->retry_ms = FIRST_RETRY_MS;
    for (size_t i = 0; i < SOCKETS_MAX; i++) {
        ev_io_init(&question->sockets[i], on_socket, -1, 0);
        question->sockets[i].data = question;
    }
    ev_timer_init(&question->next, on_time, 0., 0.);
    ev_timer_start(resolver->loop, &question->next);
}

static char *
join_name_servers(const struct address_list *list)
{
    struct buf text = {0};

    for (size_t i = 0; i < list->count; i++) {
        buf_addf(&text, "%s%s", i > 0 ? "," : "", list->item[i].text);
    }
    return list->count > 0 ? buf_take(&text) : NULL;
}

int
resolver_main(const struct resolver_heritage *heritage)
{
    static struct resolver resolver;

    resolver = (struct resolver){.heritage = heritage};
    resolver.loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (resolver.loop == NULL || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
        log_error("the resolver cannot start: %s",
                  resolver.loop == NULL ? "epoll is not available" : "c-ares is out of memory");
        return EXIT_FAILURE;
    }
    resolver.name_servers = join_name_servers(heritage->name_servers);
    resolver.questions = xcalloc(heritage->question_count, sizeof(*resolver.questions));
    for (uint32_t i = 0; i < heritage->question_count; i++) {
        question_init(&resolver.questions[i], &resolver, i);
    }
    ev_io_init(&resolver.channel, on_channel, heritage->channel_fd, EV_READ);
    ev_io_start(resolver.loop, &resolver.channel);
    resolver.answer = (struct answer){.kind = ANSWER_HELLO};
    (void)tell(&resolver, &resolver.answer);
    ev_run(resolver.loop, 0);
    for (size_t i = 0; i < heritage->question_count; i++) {
        if (resolver.questions[i].channel != NULL) {
            ares_destroy(resolver.questions[i].channel);
        }
    }
    free(resolver.questions);
    free(resolver.name_servers);
    ares_library_cleanup();
    ev_loop_destroy(resolver.loop);
    return EXIT_SUCCESS;
}
