/* SPDX-License-Identifier: Apache-2.0
 *
 * The route table. Built when settings arrive, immutable after that. Runs in workers.
 *
 * A site is all that one host entry leads to: "a.example", ".b.example" (a wildcard without its
 * star: no host that is looked up as a whole begins with a dot) or "" (any host). Two hash tables,
 * open addressing, at most half full: from host to site, and from (site, exact or prefix, path) to
 * route. Each site knows which lengths its prefixes have, and the table which lengths its wildcards
 * have, so that only lengths are tried that can be there.
 */
#include "worker/route.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"
#include "config/base/hash.h"
#include "config/config.h"

/* Longest host that can be in the table: the settings check holds names to 253 bytes (RFC 1035). */
#define HOST_MAX 255

#define SITE_NONE UINT32_MAX

/* Distinct lengths, longest first. */
struct length_set {
    uint32_t count;
    uint32_t cap;
    uint32_t *item; /* owned */
};

struct site {
    char *host; /* owned; lower case; "" is any host */
    bool has_exact;
    struct length_set prefix_lengths;
};

struct host_entry {
    uint64_t hash;
    uint32_t site; /* SITE_NONE: the entry is free */
};

struct path_entry {
    uint64_t hash;
    struct str path; /* of config */
    uint32_t site;
    uint32_t route; /* ROUTE_NONE: the entry is free */
    bool exact;
};

struct route_table {
    struct site *sites; /* owned */
    uint32_t site_count;
    uint32_t any_site; /* for hosts that no route names; SITE_NONE without such routes */
    struct length_set wildcard_lengths;
    struct host_entry *hosts; /* owned; host_mask + 1 of them */
    uint64_t host_mask;
    struct path_entry *paths; /* owned; path_mask + 1 of them */
    uint64_t path_mask;
};

/* ---- hashing -------------------------------------------------------------------------------- */

static uint64_t
host_hash(struct str host)
{
    return hash_bytes(1, host.ptr, host.len);
}

static uint64_t
path_hash(uint32_t site, bool exact, struct str path)
{
    return hash_bytes((uint64_t)site << 1 | exact, path.ptr, path.len);
}

static char
ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* ---- lookup --------------------------------------------------------------------------------- */

static uint32_t
find_site(const struct route_table *table, struct str host, uint32_t *probes)
{
    uint64_t hash = host_hash(host);

    for (uint64_t i = hash;; i++) {
        const struct host_entry *entry = &table->hosts[i & table->host_mask];
        ++*probes;
        if (entry->site == SITE_NONE) {
            return SITE_NONE;
        }
        if (entry->hash == hash && str_equal(str_from(table->sites[entry->site].host), host)) {
            return entry->site;
        }
    }
}

static const struct path_entry *
find_path(const struct route_table *table, uint32_t site, bool exact, struct str path,
          uint32_t *probes)
{
    uint64_t hash = path_hash(site, exact, path);

    for (uint64_t i = hash;; i++) {
        const struct path_entry *entry = &table->paths[i & table->path_mask];
        ++*probes;
        if (entry->route == ROUTE_NONE) {
            return NULL;
        }
        if (entry->hash == hash && entry->site == site && entry->exact == exact &&
            str_equal(entry->path, path)) {
            return entry;
        }
    }
}

static uint32_t
lookup_in_site(const struct route_table *table, uint32_t site_index, struct str path,
               uint32_t *probes)
{
    const struct site *site = &table->sites[site_index];

    if (site->has_exact) {
        const struct path_entry *entry = find_path(table, site_index, true, path, probes);
        if (entry != NULL) {
            return entry->route;
        }
    }
    for (uint32_t i = 0; i < site->prefix_lengths.count; i++) {
        size_t length = site->prefix_lengths.item[i];
        if (length > path.len) {
            continue;
        }
        /* Only a prefix that ends where a segment ends can match. */
        if (length < path.len && path.ptr[length] != '/' && path.ptr[length - 1] != '/') {
            continue;
        }
        const struct path_entry *entry =
            find_path(table, site_index, false, (struct str){path.ptr, length}, probes);
        if (entry != NULL) {
            return entry->route;
        }
    }
    return ROUTE_NONE;
}

/* host in lower case, not empty. */
static uint32_t
lookup_named(const struct route_table *table, struct str host, struct str path, uint32_t *probes)
{
    uint32_t route = ROUTE_NONE;
    uint32_t site;

    if (host.ptr[0] != '.') {
        site = find_site(table, host, probes);
        if (site != SITE_NONE) {
            route = lookup_in_site(table, site, path, probes);
        }
    }
    for (uint32_t i = 0; i < table->wildcard_lengths.count && route == ROUTE_NONE; i++) {
        size_t length = table->wildcard_lengths.item[i];
        /* The star stands for at least one byte. */
        if (length >= host.len || host.ptr[host.len - length] != '.') {
            continue;
        }
        site = find_site(table, (struct str){host.ptr + host.len - length, length}, probes);
        if (site != SITE_NONE) {
            route = lookup_in_site(table, site, path, probes);
        }
    }
    return route;
}

uint32_t
route_lookup_probes(const struct route_table *table, struct str host, struct str path,
                    uint32_t *ret_probes)
{
    char lower[HOST_MAX];
    uint32_t route = ROUTE_NONE;

    *ret_probes = 0;
    if (path.len == 0) {
        return ROUTE_NONE;
    }
    /* "a.example." is the same name with its root label written out (RFC 1034 section 3.1). */
    if (host.len > 1 && host.ptr[host.len - 1] == '.') {
        host.len--;
    }
    if (host.len > 0 && host.len <= sizeof(lower) && table->host_mask > 0) {
        for (size_t i = 0; i < host.len; i++) {
            lower[i] = ascii_lower(host.ptr[i]);
        }
        route = lookup_named(table, (struct str){lower, host.len}, path, ret_probes);
    }
    if (route == ROUTE_NONE && table->any_site != SITE_NONE) {
        route = lookup_in_site(table, table->any_site, path, ret_probes);
    }
    return route;
}

uint32_t
route_lookup(const struct route_table *table, struct str host, struct str path)
{
    uint32_t probes;

    return route_lookup_probes(table, host, path, &probes);
}

/* ---- building ------------------------------------------------------------------------------- */

static void
length_set_add(struct length_set *set, size_t length)
{
    uint32_t at = 0;

    while (at < set->count && set->item[at] > length) {
        at++;
    }
    if (at < set->count && set->item[at] == length) {
        return;
    }
    if (set->count == set->cap) {
        set->cap = set->cap > 0 ? set->cap * 2 : 4;
        set->item = xrealloc(set->item, set->cap * sizeof(*set->item));
    }
    memmove(set->item + at + 1, set->item + at, (set->count - at) * sizeof(*set->item));
    set->item[at] = (uint32_t)length;
    set->count++;
}

/* Size of a table that stays at most half full. */
static uint64_t
table_mask(size_t count)
{
    uint64_t size = 2;

    while (size < count * 2) {
        size *= 2;
    }
    return size - 1;
}

/* Finds or makes the site of a host as the settings have it: "A.example", "*.b.example". */
static uint32_t
site_for(struct route_table *table, const char *host)
{
    bool wildcard = strncmp(host, "*.", 2) == 0;
    char *name = xstrdup(wildcard ? host + 1 : host);
    struct str key = str_from(name);
    uint32_t probes = 0;

    for (char *c = name; *c != '\0'; c++) {
        *c = ascii_lower(*c);
    }
    uint32_t site = find_site(table, key, &probes);
    if (site != SITE_NONE) {
        free(name);
        return site;
    }
    site = table->site_count++;
    table->sites[site].host = name;
    if (wildcard) {
        length_set_add(&table->wildcard_lengths, key.len);
    }
    uint64_t hash = host_hash(key);
    uint64_t i = hash;
    while (table->hosts[i & table->host_mask].site != SITE_NONE) {
        i++;
    }
    table->hosts[i & table->host_mask] = (struct host_entry){.hash = hash, .site = site};
    return site;
}

static void
add_path(struct route_table *table, uint32_t site_index, const struct path_pattern *pattern,
         uint32_t route)
{
    struct site *site = &table->sites[site_index];
    struct str path = str_from(pattern->path);
    uint32_t probes = 0;

    CHECK(path.len > 0);
    /* Settings with two routes for the same requests are refused when they are loaded. */
    CHECK(find_path(table, site_index, pattern->exact, path, &probes) == NULL);
    if (pattern->exact) {
        site->has_exact = true;
    } else {
        length_set_add(&site->prefix_lengths, path.len);
    }
    uint64_t hash = path_hash(site_index, pattern->exact, path);
    uint64_t i = hash;
    while (table->paths[i & table->path_mask].route != ROUTE_NONE) {
        i++;
    }
    table->paths[i & table->path_mask] = (struct path_entry){
        .hash = hash, .path = path, .site = site_index, .route = route, .exact = pattern->exact};
}

static void
allocate(struct route_table *table, const struct config *config)
{
    size_t host_count = 0;
    size_t path_count = 0;

    for (size_t i = 0; i < config->route_count; i++) {
        size_t hosts = config->routes[i].host.count;
        host_count += hosts;
        path_count += hosts > 0 ? hosts : 1;
    }
    table->sites = xcalloc(host_count + 1, sizeof(*table->sites));
    table->any_site = SITE_NONE;
    table->host_mask = host_count > 0 ? table_mask(host_count) : 0;
    table->hosts = xcalloc(table->host_mask + 1, sizeof(*table->hosts));
    for (uint64_t i = 0; i <= table->host_mask; i++) {
        table->hosts[i].site = SITE_NONE;
    }
    table->path_mask = table_mask(path_count);
    table->paths = xcalloc(table->path_mask + 1, sizeof(*table->paths));
    for (uint64_t i = 0; i <= table->path_mask; i++) {
        table->paths[i].route = ROUTE_NONE;
    }
}

struct route_table *
route_table_new(const struct config *config)
{
    struct route_table *table = xcalloc(1, sizeof(*table));

    CHECK(config->route_count < ROUTE_NONE);
    allocate(table, config);
    for (uint32_t i = 0; i < config->route_count; i++) {
        const struct route_settings *route = &config->routes[i];
        for (size_t h = 0; h < route->host.count; h++) {
            add_path(table, site_for(table, route->host.item[h]), &route->path, i);
        }
        if (route->host.count == 0) {
            if (table->any_site == SITE_NONE) {
                table->any_site = table->site_count++;
                table->sites[table->any_site].host = xstrdup("");
            }
            add_path(table, table->any_site, &route->path, i);
        }
    }
    return table;
}

void
route_table_free(struct route_table *table)
{
    if (table == NULL) {
        return;
    }
    for (uint32_t i = 0; i < table->site_count; i++) {
        free(table->sites[i].host);
        free(table->sites[i].prefix_lengths.item);
    }
    free(table->wildcard_lengths.item);
    free(table->sites);
    free(table->hosts);
    free(table->paths);
    free(table);
}
