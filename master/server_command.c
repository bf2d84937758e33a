/* SPDX-License-Identifier: Apache-2.0
 *
 * What the operator wants of a server, from a line of the control socket to the registry, which
 * shows it to the workers. Runs in the master.
 */
#include "master/server_command.h"

#include <stdio.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/control_command.h"
#include "master/json.h"
#include "master/master.h"
#include "master/waiting.h"

static const struct {
    const char *verb;
    enum board_wish wish;
} verbs[] = {{"enable", BOARD_WISH_ENABLED},
             {"drain", BOARD_WISH_DRAINED},
             {"disable", BOARD_WISH_DISABLED}};

struct server_words {
    char backend[64];
    char address[ADDRESS_TEXT_MAX];
    char verb[16];
};

/* Copies the word that begins at *text and moves behind it and the blanks after it. */
static bool
take_word(const char **text, char *word, size_t size)
{
    size_t length = strcspn(*text, " ");

    if (length == 0 || length >= size) {
        return false;
    }
    memcpy(word, *text, length);
    word[length] = '\0';
    *text += length;
    *text += strspn(*text, " ");
    return true;
}

static bool
words_parse(const char *arguments, struct server_words *ret_words)
{
    arguments += strspn(arguments, " ");
    return take_word(&arguments, ret_words->backend, sizeof(ret_words->backend)) &&
           take_word(&arguments, ret_words->address, sizeof(ret_words->address)) &&
           take_word(&arguments, ret_words->verb, sizeof(ret_words->verb)) && *arguments == '\0';
}

static const struct backend_settings *
backend_find(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->backend_count; i++) {
        if (strcmp(config->backends[i].name, name) == 0) {
            return &config->backends[i];
        }
    }
    return NULL;
}

static bool
is_there(const struct board_server *server)
{
    return atomic_load_explicit(&server->state, memory_order_relaxed) != BOARD_FREE;
}

static uint32_t
count_enabled(const struct master *master, const struct backend_settings *backend)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < backend->record_count; i++) {
        const struct board_server *server = &master->board->servers[backend->records[i]];
        count += is_there(server) &&
                 atomic_load_explicit(&server->wish, memory_order_relaxed) == BOARD_WISH_ENABLED;
    }
    return count;
}

static void
apply(struct master *master, const struct backend_settings *backend,
      const struct server_words *words, enum board_wish wish, struct buf *out)
{
    int64_t in_flight = 0;
    bool is_known = false;

    for (uint32_t i = 0; i < backend->record_count; i++) {
        struct board_server *server = &master->board->servers[backend->records[i]];
        if (!is_there(server) || strcmp(server->address.text, words->address) != 0) {
            continue;
        }
        is_known = true;
        server_registry_wish(&master->registry, backend->records[i], wish);
        in_flight += atomic_load_explicit(&server->in_flight, memory_order_relaxed);
    }
    if (!is_known) {
        control_command_refuse(
            out,
            "backend %s has no server %s; narwhalctl status shows the addresses that "
            "it has",
            backend->name, words->address);
        return;
    }
    waiting_serve(master); /* there is a server more, or a backup may be used now */
    uint32_t left = count_enabled(master, backend);
    log_info("the operator wants a server %s backend=%s server=%s enabled=%u",
             board_wish_name(wish), backend->name, words->address, left);
    if (left == 0) {
        log_warn("no server of the backend is enabled, its requests get 503 backend=%s",
                 backend->name);
    }
    json_open(out, NULL, '{');
    json_text(out, "backend", backend->name);
    json_text(out, "address", words->address);
    json_text(out, "wish", board_wish_name(wish));
    json_number(out, "in_flight", in_flight);
    json_number(out, "servers_enabled", left);
    json_close(out, '}');
}

void
server_command_run(struct master *master, const char *arguments, struct buf *out)
{
    struct server_words words;

    if (!words_parse(arguments, &words)) {
        control_command_refuse(out, "it is: server BACKEND ADDRESS drain|disable|enable");
        return;
    }
    const struct backend_settings *backend = backend_find(master->config, words.backend);
    if (backend == NULL) {
        control_command_refuse(out, "there is no backend %s; narwhalctl backends shows all",
                               words.backend);
        return;
    }
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(words.verb, verbs[i].verb) == 0) {
            apply(master, backend, &words, verbs[i].wish, out);
            return;
        }
    }
    control_command_refuse(out, "a server can be told drain, disable and enable, not %s",
                           words.verb);
}
