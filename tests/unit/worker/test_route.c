/* SPDX-License-Identifier: Apache-2.0
 *
 * The route table against the rules of route.h, against a plain search over all routes, and with
 * many routes.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "worker/route.h"

/* ---- settings made by hand ------------------------------------------------------------------ */

static struct config config;
static size_t route_cap;

/* hosts: separated by spaces, "" is any. pattern: as in the settings file. Returns the index. */
static uint32_t
add_route(const char *hosts, const char *pattern)
{
    if (config.route_count == route_cap) {
        route_cap = route_cap > 0 ? route_cap * 2 : 8;
        config.routes = realloc(config.routes, route_cap * sizeof(*config.routes));
        cr_assert_not_null(config.routes);
    }
    struct route_settings *route = &config.routes[config.route_count];
    memset(route, 0, sizeof(*route));
    route->path.exact = pattern[0] == '=';
    route->path.path = strdup(pattern + (route->path.exact ? 1 : 0));
    char *words = strdup(hosts);
    char *rest = words;
    for (char *host; (host = strtok_r(rest, " ", &rest)) != NULL;) {
        route->host.item =
            realloc(route->host.item, (route->host.count + 1) * sizeof(*route->host.item));
        cr_assert_not_null(route->host.item);
        route->host.item[route->host.count++] = strdup(host);
    }
    free(words);
    return (uint32_t)config.route_count++;
}

static void
free_routes(void)
{
    for (size_t i = 0; i < config.route_count; i++) {
        free(config.routes[i].path.path);
        for (size_t h = 0; h < config.routes[i].host.count; h++) {
            free(config.routes[i].host.item[h]);
        }
        free(config.routes[i].host.item);
    }
    free(config.routes);
    memset(&config, 0, sizeof(config));
    route_cap = 0;
}

TestSuite(route, .fini = free_routes);

/* A copy in memory of exactly its size, so that a sanitizer sees a byte too many. */
static char *
exact_copy(const char *text, struct str *ret_str)
{
    size_t length = strlen(text);
    char *copy = malloc(length > 0 ? length : 1);

    cr_assert_not_null(copy);
    memcpy(copy, text, length);
    *ret_str = (struct str){copy, length};
    return copy;
}

static uint32_t
lookup(const struct route_table *table, const char *host, const char *path)
{
    struct str host_str;
    struct str path_str;
    char *host_bytes = exact_copy(host, &host_str);
    char *path_bytes = exact_copy(path, &path_str);
    uint32_t route = route_lookup(table, host_str, path_str);

    free(host_bytes);
    free(path_bytes);
    return route;
}

/* ---- paths ---------------------------------------------------------------------------------- */

Test(route, prefixes_match_whole_segments_and_the_longest_wins)
{
    uint32_t api = add_route("", "/api");
    uint32_t v1 = add_route("", "/api/v1/");
    uint32_t exact = add_route("", "=/api/v1/ping");
    uint32_t assets = add_route("", "/assets/");
    struct route_table *table = route_table_new(&config);
    const struct {
        const char *path;
        uint32_t expected;
    } cases[] = {
        {"/api", api},
        {"/api/", api},
        {"/api/x", api},
        {"/apix", ROUTE_NONE},
        {"/api%2Fx", ROUTE_NONE},
        {"/ap", ROUTE_NONE},
        {"/API", ROUTE_NONE}, /* paths are compared byte by byte */
        {"/api/v1", api},
        {"/api/v1/", v1},
        {"/api/v1/x/y", v1},
        {"/api/v10", api},
        {"/api/v1/ping", exact},
        {"/api/v1/ping/", v1},
        {"/api/v1/pin", v1},
        {"/api/v1/pingx", v1},
        {"/assets", ROUTE_NONE},
        {"/assets/", assets},
        {"/assets/a.css", assets},
        {"/x/assets/", ROUTE_NONE},
        {"/", ROUTE_NONE},
        {"*", ROUTE_NONE},
        {"", ROUTE_NONE},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_eq(lookup(table, "any.example", cases[i].path), cases[i].expected, "%s",
                     cases[i].path);
        cr_expect_eq(lookup(table, "", cases[i].path), cases[i].expected, "%s", cases[i].path);
    }
    route_table_free(table);
}

Test(route, the_root_is_for_all_that_no_other_wants)
{
    uint32_t root = add_route("", "/");
    uint32_t exact_root = add_route("", "=/");
    uint32_t both = add_route("", "/a");
    uint32_t slash = add_route("", "/a/");
    struct route_table *table = route_table_new(&config);

    cr_expect_eq(lookup(table, "", "/"), exact_root);
    cr_expect_eq(lookup(table, "", "/x"), root);
    cr_expect_eq(lookup(table, "", "/ab"), root);
    cr_expect_eq(lookup(table, "", "/a"), both);
    cr_expect_eq(lookup(table, "", "/a/"), slash);
    cr_expect_eq(lookup(table, "", "/a/b"), slash);
    cr_expect_eq(lookup(table, "", "/a%2Fb"), root);
    cr_expect_eq(lookup(table, "", "relative"), ROUTE_NONE);
    route_table_free(table);
}

Test(route, without_routes_nothing_is_found)
{
    struct route_table *table = route_table_new(&config);

    cr_expect_eq(lookup(table, "a.example", "/"), ROUTE_NONE);
    cr_expect_eq(lookup(table, "", "/"), ROUTE_NONE);
    route_table_free(table);
    route_table_free(NULL);
}

/* ---- hosts ---------------------------------------------------------------------------------- */

Test(route, hosts_are_named_wild_or_any_in_that_order)
{
    uint32_t any = add_route("", "/");
    uint32_t wild = add_route("*.b.example", "/");
    uint32_t wilder = add_route("*.a.b.example", "/");
    uint32_t named = add_route("A.B.Example b.example", "/");
    uint32_t address = add_route("[::1] 127.0.0.1", "/");
    struct route_table *table = route_table_new(&config);
    const struct {
        const char *host;
        uint32_t expected;
    } cases[] = {
        {"a.b.example", named},
        {"A.b.EXAMPLE", named},
        {"a.b.example.", named}, /* the root label written out */
        {"b.example", named},    /* not below itself, but named too */
        {"c.b.example", wild},
        {"C.B.EXAMPLE", wild},
        {"d.c.b.example", wild},
        {"x.a.b.example", wilder},
        {"y.x.a.b.example", wilder},
        {"xb.example", any},
        {"xa.b.example", wild},
        {".b.example", any}, /* the star is at least one byte */
        {"..b.example", wild},
        {".a.b.example", wild},
        {"example", any},
        {"b.example.org", any},
        {"*.b.example", wild},
        {"[::1]", address},
        {"127.0.0.1", address},
        {"127.0.0.1.", address},
        {"", any},
        {".", any},
        {"..", any},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_eq(lookup(table, cases[i].host, "/x"), cases[i].expected, "%s", cases[i].host);
    }
    route_table_free(table);
}

Test(route, a_host_whose_paths_do_not_match_falls_through)
{
    uint32_t any = add_route("", "/any/");
    uint32_t any_exact = add_route("", "=/one/two");
    uint32_t wild = add_route("*.b.example", "/wild");
    uint32_t wilder = add_route("*.c.b.example", "/wilder");
    uint32_t named = add_route("x.c.b.example", "/one");
    struct route_table *table = route_table_new(&config);
    const struct {
        const char *path;
        uint32_t expected;
    } cases[] = {
        {"/one", named},     {"/one/two", named}, /* the host decides before the exact path does */
        {"/wilder", wilder}, {"/wild/x", wild},   {"/any/x", any}, {"/none", ROUTE_NONE},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_eq(lookup(table, "x.c.b.example", cases[i].path), cases[i].expected, "%s",
                     cases[i].path);
    }
    cr_expect_eq(lookup(table, "other", "/one/two"), any_exact);
    route_table_free(table);
}

Test(route, only_named_hosts_leave_the_others_without_a_route)
{
    uint32_t named = add_route("a.example", "/");
    struct route_table *table = route_table_new(&config);

    cr_expect_eq(lookup(table, "a.example", "/"), named);
    cr_expect_eq(lookup(table, "b.example", "/"), ROUTE_NONE);
    cr_expect_eq(lookup(table, "", "/"), ROUTE_NONE);
    route_table_free(table);
}

Test(route, hosts_of_any_length_are_taken)
{
    char host[600];
    uint32_t any = add_route("", "/");
    uint32_t wild = add_route("*.b.example", "/");

    struct route_table *table = route_table_new(&config);
    for (size_t length = 10; length < sizeof(host); length++) {
        memset(host, 'x', sizeof(host));
        memcpy(host + length - 10, ".b.example", sizeof(".b.example"));
        bool is_name = length > 10 && length <= 255; /* longer ones are no host names */
        cr_assert_eq(lookup(table, host, "/"), is_name ? wild : any, "%zu", length);
    }
    /* many labels, none of which is tried unless a wildcard has its length */
    static char dots[8000];
    memset(dots, '.', sizeof(dots) - 1);
    cr_expect_eq(lookup(table, dots, "/"), any);
    route_table_free(table);
}

/* ---- against a plain search ----------------------------------------------------------------- */

/* The rules of route.h, one route after the other: rank of a match, higher is better, 0: none. */
static unsigned int
rank_of(const struct route_settings *route, const char *host, const char *path)
{
    size_t length = strlen(route->path.path);
    unsigned int path_rank;
    unsigned int host_rank = 0;

    if (route->path.exact) {
        if (strcmp(route->path.path, path) != 0) {
            return 0;
        }
        path_rank = 999;
    } else {
        if (strncmp(route->path.path, path, length) != 0 ||
            (path[length] != '\0' && path[length] != '/' && path[length - 1] != '/')) {
            return 0;
        }
        path_rank = (unsigned int)length;
    }
    for (size_t i = 0; i < route->host.count; i++) {
        const char *wanted = route->host.item[i];
        unsigned int rank = 0;
        if (strcasecmp(wanted, host) == 0) {
            rank = 999;
        } else if (wanted[0] == '*' && strlen(host) > strlen(wanted) - 1 &&
                   strcasecmp(host + strlen(host) - strlen(wanted) + 1, wanted + 1) == 0) {
            rank = (unsigned int)strlen(wanted);
        }
        host_rank = rank > host_rank ? rank : host_rank;
    }
    if (route->host.count > 0 && host_rank == 0) {
        return 0;
    }
    return host_rank * 1000 + path_rank;
}

static uint32_t
plain_search(const char *host, const char *path)
{
    uint32_t best = ROUTE_NONE;
    unsigned int best_rank = 0;

    for (uint32_t i = 0; i < config.route_count; i++) {
        unsigned int rank = rank_of(&config.routes[i], host, path);
        if (rank > best_rank) {
            best = i;
            best_rank = rank;
        }
    }
    return best;
}

static void
random_text(char *out, const char *const *parts, unsigned int part_count, unsigned int most)
{
    unsigned int count = 1 + (unsigned int)random() % most;

    *out = '\0';
    for (unsigned int i = 0; i < count; i++) {
        (void)strcat(out, parts[(unsigned int)random() % part_count]);
    }
}

static const char *const path_parts[] = {"/", "/a", "/b", "/ab", "/a/", "b"};
static const char *const host_parts[] = {"a.", "b.", "ab."};

static void
random_path(char *out)
{
    do {
        random_text(out, path_parts, 6, 4);
    } while (out[0] != '/' || strstr(out, "//") != NULL);
}

static void
random_host(char *out)
{
    random_text(out, host_parts, 3, 3);
    (void)strcat(out, "example");
}

static bool
is_there(const char *hosts, const char *pattern)
{
    for (size_t i = 0; i < config.route_count; i++) {
        const struct route_settings *route = &config.routes[i];
        const char *host = route->host.count > 0 ? route->host.item[0] : "";
        if (strcmp(host, hosts) == 0 && route->path.exact == (pattern[0] == '=') &&
            strcmp(route->path.path, pattern + (route->path.exact ? 1 : 0)) == 0) {
            return true;
        }
    }
    return false;
}

Test(route, agrees_with_a_plain_search_on_random_tables)
{
    unsigned int found = 0;

    srandom(7);
    for (int round = 0; round < 300; round++) {
        long wanted = 1 + random() % 40;
        for (long i = 0; i < wanted; i++) {
            char host[80] = "";
            char pattern[80] = "";
            long kind = random() % 4;
            if (kind > 0) {
                (void)strcpy(host, kind == 1 ? "*." : "");
                random_host(host + strlen(host));
            }
            (void)strcpy(pattern, random() % 4 == 0 ? "=" : "");
            random_path(pattern + strlen(pattern));
            if (!is_there(host, pattern)) {
                (void)add_route(host, pattern);
            }
        }
        struct route_table *table = route_table_new(&config);
        for (int i = 0; i < 300; i++) {
            char host[80] = "";
            char path[80];
            if (random() % 8 != 0) {
                random_host(host);
            }
            random_path(path);
            uint32_t expected = plain_search(host, path);
            cr_assert_eq(lookup(table, host, path), expected, "%s%s", host, path);
            found += expected != ROUTE_NONE;
        }
        route_table_free(table);
        free_routes();
    }
    cr_assert_gt(found, 20000); /* the comparison was about something */
}

/* ---- cost ----------------------------------------------------------------------------------- */

/* Routes: count hosts with two prefixes each, and count prefixes for any host, all of the same
 * few lengths. Returns the probes of a few hundred lookups. */
static uint32_t
probes_with(unsigned int count)
{
    uint32_t sum = 0;

    for (unsigned int i = 0; i < count; i++) {
        char host[40];
        char path[40];
        (void)snprintf(host, sizeof(host), "h%06u.example", i);
        (void)snprintf(path, sizeof(path), "/p%06u", i);
        (void)add_route(host, "/app");
        (void)add_route(host, "/");
        (void)add_route("", path);
    }
    struct route_table *table = route_table_new(&config);
    for (unsigned int n = 0; n < 300; n++) {
        unsigned int i = n * 7919 % count;
        char host[40];
        char path[40];
        uint32_t probes;
        (void)snprintf(host, sizeof(host), "h%06u.example", i);
        cr_assert_eq(route_lookup_probes(table, str_from(host), STR("/app/x"), &probes), 3 * i);
        sum += probes;
        cr_assert_eq(route_lookup_probes(table, str_from(host), STR("/other/x"), &probes),
                     3 * i + 1);
        sum += probes;
        (void)snprintf(path, sizeof(path), "/p%06u/x", i);
        cr_assert_eq(route_lookup_probes(table, STR("other"), str_from(path), &probes), 3 * i + 2);
        sum += probes;
        cr_assert_eq(route_lookup_probes(table, STR("h0.example"), STR("/none"), &probes),
                     ROUTE_NONE);
        sum += probes;
    }
    route_table_free(table);
    free_routes();
    return sum;
}

Test(route, cost_does_not_grow_with_the_routes)
{
    uint32_t few = probes_with(10);
    uint32_t many = probes_with(10000);

    /* 1200 lookups with at most three hashed keys each, and a table that is half full: an entry is
     * found after 1.5 probes on average, a miss after 2.5. */
    cr_expect_leq(many, 1200 * 3 * 5 / 2, "%u", many);
    cr_expect_leq(many, few * 2, "%u with 10, %u with 10000", few, many);
}

Test(route, only_prefix_lengths_that_exist_and_end_a_segment_are_tried)
{
    char path[256] = "/";
    uint32_t probes;

    for (unsigned int i = 1; i < 200; i++) { /* 199 prefixes of 199 lengths */
        path[i] = 'x';
        path[i + 1] = '\0';
        (void)add_route("", path);
    }
    struct route_table *table = route_table_new(&config);
    cr_expect_eq(route_lookup_probes(table, STR(""), str_from(path), &probes), 198);
    cr_expect_leq(probes, 10);
    cr_expect_eq(route_lookup_probes(table, STR(""), STR("/xxx/yyyyyyyyyyyyyyyyyy"), &probes), 2);
    cr_expect_leq(probes, 10);
    cr_expect_eq(route_lookup_probes(table, STR(""), STR("/yyy"), &probes), ROUTE_NONE);
    cr_expect_leq(probes, 10);
    route_table_free(table);
}
