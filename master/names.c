/* SPDX-License-Identifier: Apache-2.0
 *
 * Names and their last good answers. Nothing here blocks, and no failure changes a server: what was
 * known stays in use until something better is heard. Runs in the master.
 */
#include "master/names.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/master.h"
#include "master/waiting.h"
#include "worker/resolver/answer.h"

/* ---- which names there are ------------------------------------------------------------------ */

static struct name *
find_name(const struct names *names, const char *text)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->item[i].address.text, text) == 0) {
            return &names->item[i];
        }
    }
    return NULL;
}

static void
names_add(struct names *names, const struct address *address)
{
    if (!address_is_name(address) || find_name(names, address->text) != NULL) {
        return;
    }
    names->item = xrealloc(names->item, (names->count + 1) * sizeof(*names->item));
    names->questions = xrealloc(names->questions, (names->count + 1) * sizeof(*names->questions));
    names->item[names->count] = (struct name){.address = *address};
    names->questions[names->count++] = *address;
}

static void
names_free(struct names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        free(names->item[i].last);
    }
    free(names->item);
    free(names->questions);
    *names = (struct names){0};
}

/* What was known of names that stay is still known. */
static void
keep_known(struct names *names, struct names *before)
{
    for (size_t i = 0; i < names->count; i++) {
        struct name *old = find_name(before, names->item[i].address.text);
        if (old != NULL) {
            names->item[i].last = old->last;
            names->item[i].is_failing = old->is_failing;
            names->item[i].left_out = old->left_out;
            old->last = NULL;
        }
    }
}

/* ---- what is known becomes servers ----------------------------------------------------------- */

static struct server_change
apply(struct master *master, const struct name *name)
{
    struct server_change whole = {0};

    for (size_t b = 0; b < master->config->backend_count; b++) {
        const struct backend_settings *backend = &master->config->backends[b];
        for (size_t i = 0; i < backend->server.count; i++) {
            if (strcmp(backend->server.item[i].address.text, name->address.text) == 0) {
                struct server_change change = server_registry_resolve(
                    &master->registry, backend, i, name->last->item, name->last->count);
                whole.added += change.added;
                whole.removed += change.removed;
                whole.left_out =
                    change.left_out > whole.left_out ? change.left_out : whole.left_out;
            }
        }
    }
    whole.left_out += name->last->left_out;
    return whole;
}

/* How many servers of that name are in use, whoever found them. */
static uint32_t
count_servers(const struct master *master, const struct name *name)
{
    uint32_t count = 0;

    for (size_t b = 0; b < master->config->backend_count; b++) {
        const struct backend_settings *backend = &master->config->backends[b];
        for (size_t i = 0; i < backend->server.count; i++) {
            if (strcmp(backend->server.item[i].address.text, name->address.text) == 0) {
                count += server_registry_count_resolved(&master->registry, backend, i);
            }
        }
    }
    return count;
}

static void
tell_left_out(struct name *name, uint32_t left_out)
{
    if (left_out > name->left_out) {
        log_warn(
            "name=%s has more addresses than are used left_out=%" PRIu32
            " ([backend] addresses, or requests of addresses that are gone have not ended yet)",
            name->address.text, left_out);
    }
    name->left_out = left_out;
}

static void
on_addresses(struct master *master, struct name *name, const struct answer *answer)
{
    bool is_first = name->last == NULL && count_servers(master, name) == 0;

    if (name->last == NULL) {
        name->last = xcalloc(1, sizeof(*name->last));
    }
    *name->last = *answer;
    struct server_change change = apply(master, name);
    if (is_first) {
        log_info("name=%s is resolved addresses=%" PRIu32, name->address.text, answer->count);
    } else if (change.added > 0 || change.removed > 0) {
        log_info("name=%s has other addresses now added=%" PRIu32 " removed=%" PRIu32
                 " addresses=%" PRIu32,
                 name->address.text, change.added, change.removed, answer->count);
    } else if (name->is_failing) {
        log_info("name=%s is resolved again addresses=%" PRIu32, name->address.text, answer->count);
    }
    name->is_failing = false;
    tell_left_out(name, change.left_out);
    if (change.added > 0) {
        waiting_serve(master); /* requests wait for a server */
    }
}

static void
on_failure(const struct master *master, struct name *name, const char *why)
{
    uint32_t servers = count_servers(master, name);

    if (name->is_failing) {
        return; /* told */
    }
    name->is_failing = true;
    if (servers > 0) {
        log_warn("name=%s cannot be resolved: %s; the addresses known before stay in use "
                 "servers=%" PRIu32 " ([master] resolver, or /etc/resolv.conf)",
                 name->address.text, why, servers);
    } else {
        log_error("name=%s cannot be resolved: %s; it has no server until this succeeds, which is "
                  "tried again and again ([master] resolver, or /etc/resolv.conf)",
                  name->address.text, why);
    }
}

void
names_on_answer(struct master *master, const struct answer *answer)
{
    struct name *name = &master->names.item[answer->question];

    CHECK(answer->question < master->names.count);
    if (answer->kind == ANSWER_ADDRESSES) {
        on_addresses(master, name, answer);
    } else {
        on_failure(master, name, answer->why);
    }
}

void
names_commit(struct master *master)
{
    struct names before = master->names;

    master->names = (struct names){0};
    for (size_t b = 0; b < master->config->backend_count; b++) {
        const struct backend_settings *backend = &master->config->backends[b];
        for (size_t i = 0; i < backend->server.count; i++) {
            names_add(&master->names, &backend->server.item[i].address);
        }
    }
    keep_known(&master->names, &before);
    /* Not before the resolver of the old ones is no longer listened to: it knows other numbers. */
    resolver_child_restart(master);
    names_free(&before);
    for (size_t i = 0; i < master->names.count; i++) {
        struct name *name = &master->names.item[i];
        if (name->last != NULL) {
            tell_left_out(name, apply(master, name).left_out);
        }
    }
}

void
names_release(struct master *master)
{
    names_free(&master->names);
}
