/* SPDX-License-Identifier: Apache-2.0
 *
 * What is wrong across settings: each value was already read and is within its bounds. Every check
 * reports at the place of the value that the user must change. A section with a refused line is
 * not told what it lacks, because the refused line may have been just that. Looks at the file
 * system (a static root must exist), changes nothing. Runs in the master.
 */
#include "config/config_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/command.h"
#include "config/nearest.h"

struct check {
    const struct config *config;
    struct config_errors *errors;
};

/* Item of a key of one section, as the errors name it; key NULL is the section itself. */
struct spot {
    enum setting_section section;
    size_t index;
    const char *key;
    size_t item;
};

static struct section_origins *
origins_of(const struct check *check, const struct spot *spot)
{
    return config_section_origins(check->config, spot->section, spot->index);
}

/* Where the spot was given; the section's place when its key was not. May be NULL. */
static const char *
place_of(const struct check *check, const struct spot *spot, enum config_layer *ret_layer)
{
    const struct section_origins *origins = origins_of(check, spot);
    size_t row = spot->key == NULL ? SETTING_ROWS : setting_find(spot->section, spot->key);

    if (row < SETTING_ROWS && origins->key[row].layer != LAYER_DEFAULT) {
        *ret_layer = origins->key[row].layer;
        return config_item_origin(origins, row, spot->item);
    }
    *ret_layer = origins->layer;
    return origins->place;
}

__attribute__((format(printf, 3, 4))) static void
fail(const struct check *check, const struct spot *spot, const char *format, ...)
{
    struct buf message = {0};
    enum config_layer layer;
    const char *place = place_of(check, spot, &layer);
    va_list args;
    va_list again;

    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(length >= 0);
    (void)vsnprintf(buf_reserve(&message, (size_t)length), (size_t)length + 1, format, again);
    va_end(again);
    config_report(check->errors, layer, place, spot->section,
                  config_section_name_of(check->config, spot->section, spot->index), spot->key,
                  message.ptr);
    buf_release(&message);
}

/* ---- lists without repetitions ------------------------------------------------------------- */

struct keyed_spot {
    char *text; /* owned; what must not be there twice */
    struct spot spot;
};

struct keyed_list {
    size_t count;
    struct keyed_spot *item; /* owned */
};

/* Takes text. */
static void
keyed_list_add(struct keyed_list *list, char *text, struct spot spot)
{
    list->item = xrealloc(list->item, (list->count + 1) * sizeof(*list->item));
    list->item[list->count++] = (struct keyed_spot){text, spot};
}

static int
compare_keyed_spots(const void *a_pointer, const void *b_pointer)
{
    const struct keyed_spot *a = a_pointer;
    const struct keyed_spot *b = b_pointer;
    int order = strcmp(a->text, b->text);

    if (order == 0) {
        order = (a->spot.index > b->spot.index) - (a->spot.index < b->spot.index);
    }
    return order != 0 ? order : (a->spot.item > b->spot.item) - (a->spot.item < b->spot.item);
}

/* Reports all but the first of each text with what is said about it: "%s … %s" of the text and the
 * first one's place. Empties the list. */
static void
keyed_list_check(const struct check *check, struct keyed_list *list, const char *what)
{
    size_t first = 0;

    if (list->count > 0) {
        qsort(list->item, list->count, sizeof(*list->item), compare_keyed_spots);
    }
    for (size_t i = 1; i < list->count; i++) {
        enum config_layer layer;
        if (strcmp(list->item[i].text, list->item[first].text) != 0) {
            first = i;
            continue;
        }
        const char *place = place_of(check, &list->item[first].spot, &layer);
        fail(check, &list->item[i].spot, "%s %s, first at %s", list->item[i].text, what,
             place == NULL ? "default" : place);
    }
    for (size_t i = 0; i < list->count; i++) {
        free(list->item[i].text);
    }
    free(list->item);
    *list = (struct keyed_list){0};
}

/* ---- [master] and [log] -------------------------------------------------------------------- */

/* By what was given and not by its value, so that --max-requests 0 may switch off what a file has
 * together with its jitter. */
static void
check_given_together(const struct check *check, enum setting_section section, size_t index,
                     const char *key, const char *needs)
{
    struct spot spot = {section, index, key, 0};
    const struct section_origins *origins = origins_of(check, &spot);

    if (!origins->is_damaged && origins->key[setting_find(section, key)].layer != LAYER_DEFAULT &&
        origins->key[setting_find(section, needs)].layer == LAYER_DEFAULT) {
        fail(check, &spot, "means nothing without %s; give that key too, or remove this one",
             needs);
    }
}

static void
check_life(const struct check *check, enum setting_section section, size_t index)
{
    check_given_together(check, section, index, "max_requests_jitter", "max_requests");
    check_given_together(check, section, index, "max_lifetime_jitter", "max_lifetime");
}

/* How many workers there are, and how they are replaced. */
static void
check_workers(const struct check *check)
{
    const struct master_settings *master = &check->config->master;
    struct spot min = {SETTING_MASTER, 0, "workers_min", 0};
    struct spot surge = {SETTING_MASTER, 0, "max_surge", 0};

    check_life(check, SETTING_MASTER, 0);
    check_given_together(check, SETTING_MASTER, 0, "workers_min", "workers_max");
    check_given_together(check, SETTING_MASTER, 0, "workers_grow_after", "workers_max");
    check_given_together(check, SETTING_MASTER, 0, "workers_shrink_after", "workers_max");
    if (master->workers_max > 0 && master->workers_min > master->workers_max) {
        fail(check, &min, "must not be above workers_max, which is %lld",
             (long long)master->workers_max);
    }
    if (master->max_surge == 0 && master->max_unavailable == 0) {
        fail(check, &surge,
             "cannot be 0 together with max_unavailable: no worker could ever be replaced; give "
             "one of them 1 or more");
    }
}

static void
check_resolver(const struct check *check)
{
    const struct master_settings *master = &check->config->master;
    struct spot spot = {SETTING_MASTER, 0, "resolver", 0};
    struct spot min = {SETTING_MASTER, 0, "resolver_ttl_min", 0};

    for (spot.item = 0; spot.item < master->resolver.count; spot.item++) {
        const struct address *address = &master->resolver.item[spot.item];
        bool is_ipv6 = address->sa.sa_family == AF_INET6;
        if (address->kind != ADDRESS_TCP ||
            (is_ipv6 ? address->in6.sin6_port : address->in.sin_port) == 0 ||
            (!is_ipv6 && address->in.sin_addr.s_addr == 0)) {
            fail(check, &spot,
                 "%s is no name server; it must be HOST:PORT or [IPV6]:PORT, for "
                 "example 127.0.0.1:53",
                 address->text);
        }
    }
    if (master->resolver_ttl_min_ms > master->resolver_ttl_max_ms) {
        fail(check, &min, "must not be above resolver_ttl_max, which is %lldms",
             (long long)master->resolver_ttl_max_ms);
    }
}

static void
check_master(const struct check *check)
{
    const struct master_settings *master = &check->config->master;
    struct spot bind = {SETTING_MASTER, 0, "bind", 0};
    struct spot control = {SETTING_MASTER, 0, "control", 0};
    struct keyed_list addresses = {0};
    struct sockaddr_un un;

    if (master->bind.count == 0 && !origins_of(check, &bind)->is_damaged) {
        fail(check, &bind,
             "must not be empty; give an address to listen on, for example "
             "127.0.0.1:8000");
    }
    for (bind.item = 0; bind.item < master->bind.count; bind.item++) {
        keyed_list_add(&addresses, xstrdup(master->bind.item[bind.item].text), bind);
    }
    keyed_list_check(check, &addresses, "is there twice");
    check_resolver(check);
    if (master->control_path != NULL && strlen(master->control_path) >= sizeof(un.sun_path)) {
        fail(check, &control,
             "the path has %zu bytes; the kernel takes at most %zu for a unix socket (unix(7))",
             strlen(master->control_path), sizeof(un.sun_path) - 1);
    }
    check_workers(check);
}

#define ATOM_LETTERS "hlutrmUqHsBbfaTMDLp"
#define ATOMS_ALLOWED                                                                              \
    "allowed are %(X)s with X one of h l u t r m U q H s B b f a T M D L p or {name}i, "           \
    "and %% for a percent sign"

/* Length of the atom at text, which begins with '%', or 0. */
static size_t
atom_length(const char *text)
{
    size_t length;

    if (text[1] == '%') {
        return 2;
    }
    if (text[1] != '(') {
        return 0;
    }
    if (text[2] == '{') {
        size_t name = strspn(text + 3, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                       "0123456789-_");
        if (name == 0 || text[3 + name] != '}') {
            return 0;
        }
        length = name + 4;
        if (text[length] != 'i') {
            return 0;
        }
    } else {
        length = 2;
        if (text[2] == '\0' || strchr(ATOM_LETTERS, text[2]) == NULL) {
            return 0;
        }
    }
    return strncmp(text + length + 1, ")s", 2) == 0 ? length + 3 : 0;
}

static void
check_access_format(const struct check *check)
{
    static const char *const names[] = {"combined", "common", "json"};
    const char *format = check->config->log.access_format;
    struct spot spot = {SETTING_LOG, 0, "access_format", 0};
    struct nearest nearest = {.text = format == NULL ? "" : format};
    struct buf quoted = {0};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(nearest.text, names[i]) == 0) {
            return;
        }
        nearest_offer(&nearest, names[i]);
    }
    value_quote(nearest.text, &quoted);
    if (strstr(nearest.text, "%(") == NULL) {
        fail(check, &spot,
             "%s is not allowed; it must be combined, common, json, or a line of "
             "atoms such as %%(h)s %%(r)s %%(s)s%s%s%s",
             quoted.ptr, nearest.name == NULL ? "" : "; did you mean \"",
             nearest.name == NULL ? "" : nearest.name, nearest.name == NULL ? "" : "\"?");
    }
    for (const char *c = strstr(nearest.text, "%(") == NULL ? NULL : strchr(nearest.text, '%');
         c != NULL; c = strchr(c, '%')) {
        size_t length = atom_length(c);
        if (length == 0) {
            buf_clear(&quoted);
            size_t shown = strcspn(c + 1, " %") + 1;
            char *atom = xstrndup(c, shown);
            value_quote(atom, &quoted);
            free(atom);
            fail(check, &spot, "%s is no atom; %s", quoted.ptr, ATOMS_ALLOWED);
            break;
        }
        c += length;
    }
    buf_release(&quoted);
}

/* ---- folders ------------------------------------------------------------------------------- */

static void
check_folder(const struct check *check, const struct spot *spot, const char *path)
{
    struct stat status;

    if (path == NULL) {
        return;
    }
    /* Whole, however long: the end of a path says most. */
    if (stat(path, &status) == -1) {
        fail(check, spot, "the folder \"%s\" cannot be used: %s", path, strerror(errno));
    } else if (!S_ISDIR(status.st_mode)) {
        fail(check, spot, "\"%s\" is not a folder", path);
    }
}

/* ---- [backend:NAME] ------------------------------------------------------------------------ */

static void
check_command(const struct check *check, size_t index)
{
    const struct backend_settings *backend = &check->config->backends[index];
    struct spot spot = {SETTING_BACKEND, index, "command", 0};
    struct spot listen_spot = {SETTING_BACKEND, index, "listen", 0};
    static const struct {
        enum listen_mode mode;
        unsigned int placeholder;
        const char *mode_name;
    } modes[] = {{LISTEN_FD, COMMAND_HAS_FD, "fd"},
                 {LISTEN_SOCKET, COMMAND_HAS_SOCKET, "socket"},
                 {LISTEN_PORT, COMMAND_HAS_PORT, "port"}};
    const char *split_error;
    size_t word_count;
    char *unknown;

    char **words = command_split(backend->command, &word_count, &split_error);
    if (words == NULL) {
        fail(check, &spot, "the command %s%s", split_error,
             strchr(split_error, '(') == NULL
                 ? ""
                 : "; note that a ';' behind a blank begins a comment in a settings file");
    }
    command_free(words);
    unsigned int found = command_placeholders(backend->command, &unknown);
    if (unknown != NULL) {
        fail(check, &spot, "unknown placeholder %s; allowed are {fd}, {socket} and {port}",
             unknown);
        free(unknown);
    }
    if ((found & (found - 1)) != 0) {
        fail(check, &spot, "must have only one of {fd}, {socket} and {port}");
        return;
    }
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (backend->listen != modes[i].mode) {
            continue;
        }
        if (found != 0 && found != modes[i].placeholder) {
            fail(check, &listen_spot,
                 "is %s, but command holds the placeholder of another way; "
                 "auto takes the way from the placeholder",
                 modes[i].mode_name);
        } else if (found == 0 && modes[i].mode == LISTEN_SOCKET) {
            /* LISTEN_FDS and PORT tell of the others. */
            fail(check, &listen_spot,
                 "is socket, so command must hold {socket}: nothing else "
                 "tells the application where to listen");
        }
    }
}

/* POSIX XBD 8.1 */
static bool
is_variable_name(const char *text, size_t length)
{
    return length > 0 && (text[0] < '0' || text[0] > '9') &&
           strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") >=
               length;
}

static void
check_environment(const struct check *check, size_t index)
{
    const struct text_list *list = &check->config->backends[index].environment;
    struct spot spot = {SETTING_BACKEND, index, "environment", 0};
    struct keyed_list names = {0};

    for (spot.item = 0; spot.item < list->count; spot.item++) {
        const char *text = list->item[spot.item];
        const char *equals = strchr(text, '=');
        if (equals == NULL || !is_variable_name(text, (size_t)(equals - text))) {
            struct buf quoted = {0};
            value_quote(text, &quoted);
            fail(check, &spot,
                 "%s must be NAME=VALUE, with a NAME of letters, digits and '_' that "
                 "begins with no digit",
                 quoted.ptr);
            buf_release(&quoted);
            continue;
        }
        keyed_list_add(&names, xstrndup(text, (size_t)(equals - text)), spot);
    }
    keyed_list_check(check, &names, "is there twice");
}

/* Keys that mean nothing without another one are refused rather than ignored. */
static void
check_needs(const struct check *check, enum setting_section section, size_t index)
{
    struct spot spot = {section, index, NULL, 0};
    const struct section_origins *origins = origins_of(check, &spot);

    for (size_t row = 0; row < SETTING_ROWS; row++) {
        const struct setting *setting = setting_at(row);
        const char *needs;
        if (setting->section == section && origins->key[row].layer != LAYER_DEFAULT &&
            !setting_applies(setting, config_section(check->config, section, index), &needs)) {
            spot.key = setting->key;
            fail(check, &spot, "means nothing without %s; give that key too, or remove this one",
                 needs);
        }
    }
}

/* They go out as they are: no byte may end the line that they stand in. */
static bool
is_visible(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text <= ' ' || *text > '~') {
            return false;
        }
    }
    return true;
}

static void
check_health(const struct check *check, size_t index)
{
    const struct backend_settings *backend = &check->config->backends[index];
    struct spot path = {SETTING_BACKEND, index, "health_path", 0};
    struct spot host = {SETTING_BACKEND, index, "health_host", 0};
    struct spot status = {SETTING_BACKEND, index, "health_status", 0};

    if (backend->health_path != NULL &&
        (backend->health_path[0] != '/' || !is_visible(backend->health_path) ||
         strchr(backend->health_path, '#') != NULL)) {
        fail(check, &path,
             "must begin with '/' and hold no blanks, no '#' and no bytes beyond ASCII; give "
             "those as %%XX");
    }
    if (backend->health_host != NULL && !is_visible(backend->health_host)) {
        fail(check, &host, "must be a host name, with :PORT if the server needs it");
    }
    if (backend->health_status != 0 && backend->health_status < 200) {
        fail(check, &status, "must be 0, or a status from 200 to 599");
    }
}

static void
check_backend(const struct check *check, size_t index)
{
    const struct backend_settings *backend = &check->config->backends[index];
    struct spot section = {SETTING_BACKEND, index, NULL, 0};
    struct spot server = {SETTING_BACKEND, index, "server", 0};
    struct spot command = {SETTING_BACKEND, index, "command", 0};
    struct spot directory = {SETTING_BACKEND, index, "directory", 0};
    struct spot hash_key = {SETTING_BACKEND, index, "hash_key", 0};
    struct spot hash_bound = {SETTING_BACKEND, index, "hash_bound", 0};
    struct hash_key key;
    struct keyed_list servers = {0};
    bool is_damaged = origins_of(check, &section)->is_damaged;
    enum config_layer layer;

    if (backend->server.count > 0 && backend->command != NULL) {
        fail(check, &command,
             "cannot stand beside server (at %s): a backend is either servers that "
             "run already or a command that narwhal starts",
             place_of(check, &server, &layer));
    } else if (backend->server.count == 0 && backend->command == NULL && !is_damaged) {
        fail(check, &section, "must have server = ADDRESS or command = COMMAND");
    }
    for (server.item = 0; server.item < backend->server.count; server.item++) {
        keyed_list_add(&servers, xstrdup(backend->server.item[server.item].address.text), server);
    }
    keyed_list_check(check, &servers, "is there twice (for more requests give it weight=N)");
    if (backend->command != NULL) {
        check_command(check, index);
    }
    check_environment(check, index);
    check_life(check, SETTING_BACKEND, index);
    check_health(check, index);
    if (!is_damaged) {
        check_needs(check, SETTING_BACKEND, index);
    }
    check_folder(check, &directory, backend->directory_path);
    if (backend->hash_key == NULL || !hash_key_parse(backend->hash_key, &key)) {
        fail(check, &hash_key, "must be address, path, header:NAME or cookie:NAME");
    }
    if (backend->hash_bound > 0 && backend->hash_bound <= 100) {
        fail(check, &hash_bound,
             "is %lld; it must be above 100 (percent of the average), or 0 for no bound",
             (long long)backend->hash_bound);
    }
}

/* ---- [route:NAME] -------------------------------------------------------------------------- */

static bool
is_host_name(const char *host)
{
    size_t length = strlen(host);

    /* RFC 1035 section 2.3.4: 255 octets on the wire, 253 as text. */
    if (length == 0 || length > 253) {
        return false;
    }
    if (host[0] == '[') { /* an IPv6 address, as a Host field has it */
        return length > 2 && strspn(host + 1, "0123456789abcdefABCDEF:.") == length - 2 &&
               host[length - 1] == ']';
    }
    if (strncmp(host, "*.", 2) == 0) {
        host += 2;
    }
    for (;; host++) {
        size_t label = strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                    "0123456789-_");
        if (label == 0 || label > 63) {
            return false;
        }
        host += label;
        if (*host == '\0') {
            return true;
        }
        if (*host != '.') {
            return false;
        }
    }
}

/* NAME or NAME:PORT, as a Host field has it. */
static void
check_backend_host(const struct check *check, size_t index)
{
    const char *host = check->config->backends[index].host;
    struct spot spot = {SETTING_BACKEND, index, "host", 0};
    const char *port;

    if (host == NULL) {
        return;
    }
    const char *colon = strrchr(host, ':');
    bool has_port = colon != NULL && strchr(colon, ']') == NULL;
    char *name = xstrndup(host, has_port ? (size_t)(colon - host) : strlen(host));
    port = has_port ? colon + 1 : "0";
    bool is_ok = is_host_name(name) && name[0] != '*' && port[0] != '\0' && strlen(port) <= 5 &&
                 strspn(port, "0123456789") == strlen(port) && atoi(port) <= 65535;
    free(name);
    if (!is_ok) {
        struct buf quoted = {0};
        value_quote(host, &quoted);
        fail(check, &spot,
             "%s is no host; allowed are a.example, an IPv4 address and [IPV6], each with :PORT if "
             "wanted",
             quoted.ptr);
        buf_release(&quoted);
    }
}

static char *
lower_text(const char *text)
{
    char *lower = xstrdup(text);

    for (char *c = lower; *c != '\0'; c++) {
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c + ('a' - 'A')) : *c;
    }
    return lower;
}

/* Adds what the route is for to the list of all. */
static void
collect_route_keys(const struct check *check, size_t index, struct keyed_list *keys)
{
    const struct route_settings *route = &check->config->routes[index];
    struct spot spot = {SETTING_ROUTE, index, "path", 0};
    struct buf path = {0};

    value_print(VALUE_PATTERN, &route->path, 0, &path);
    if (route->host.count == 0) {
        keyed_list_add(keys, xasprintf("path %s", path.ptr), spot);
    }
    for (size_t i = 0; i < route->host.count; i++) {
        const char *host = route->host.item[i];
        struct spot host_spot = {SETTING_ROUTE, index, "host", i};
        if (is_host_name(host)) {
            char *lower = lower_text(host);
            keyed_list_add(keys, xasprintf("host %s with path %s", lower, path.ptr), host_spot);
            free(lower);
            continue;
        }
        struct buf quoted = {0};
        value_quote(host, &quoted);
        fail(check, &host_spot,
             "%s is no host name; allowed are a.example, *.b.example, an IPv4 "
             "address and [IPV6], all without a port",
             quoted.ptr);
        buf_release(&quoted);
    }
    buf_release(&path);
}

static void
check_route_backend(const struct check *check, size_t index)
{
    const char *name = check->config->routes[index].backend;
    struct spot spot = {SETTING_ROUTE, index, "backend", 0};
    struct nearest nearest = {.text = name};
    struct buf quoted = {0};

    if (config_section_find(check->config, SETTING_BACKEND, name) < check->config->backend_count) {
        return;
    }
    for (size_t i = 0; i < check->config->backend_count; i++) {
        nearest_offer(&nearest, check->config->backends[i].name);
    }
    value_quote(name, &quoted);
    if (nearest.name != NULL) {
        fail(check, &spot, "there is no backend %s; did you mean \"%s\"?", quoted.ptr,
             nearest.name);
    } else {
        fail(check, &spot, "there is no backend %s; add a section [backend:NAME] with that name",
             quoted.ptr);
    }
    buf_release(&quoted);
}

static void
check_route(const struct check *check, size_t index)
{
    static const char *const actions[] = {"static", "backend", "redirect", "respond"};
    const struct route_settings *route = &check->config->routes[index];
    struct spot section = {SETTING_ROUTE, index, NULL, 0};
    struct spot root = {SETTING_ROUTE, index, "static", 0};
    struct spot index_spot = {SETTING_ROUTE, index, "index", 0};
    struct spot last = section;
    struct spot first = section;
    size_t action_count = 0;
    bool is_damaged = origins_of(check, &section)->is_damaged;

    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        size_t row = setting_find(SETTING_ROUTE, actions[i]);
        if (setting_is_set(setting_at(row), route)) {
            first = action_count == 0 ? (struct spot){SETTING_ROUTE, index, actions[i], 0} : first;
            last = (struct spot){SETTING_ROUTE, index, actions[i], 0};
            action_count++;
        }
    }
    if (action_count > 1) {
        enum config_layer layer;
        fail(check, &last, "a route has one action; it has %s already (at %s)", first.key,
             place_of(check, &first, &layer));
    } else if (action_count == 0 && !is_damaged) {
        fail(check, &section, "must have an action: static, backend, redirect or respond");
    }
    if (route->backend != NULL) {
        check_route_backend(check, index);
    }
    if (route->index != NULL && strchr(route->index, '/') != NULL) {
        fail(check, &index_spot, "must be the name of a file, without '/'");
    }
    if (!is_damaged) {
        check_needs(check, SETTING_ROUTE, index);
    }
    check_folder(check, &root, route->static_path);
}

static void
check_routes(const struct check *check, bool needs_route)
{
    const struct config *config = check->config;
    struct keyed_list keys = {0};

    if (needs_route && config->route_count == 0 && check->errors->count == 0) {
        if (config->path == NULL) {
            config_errors_add(check->errors, "%s", CONFIG_NOTHING_TO_SERVE);
            return;
        }
        config_errors_add(check->errors,
                          "%s: there is no route, so nothing would be served; add a section "
                          "[route:NAME] with path and an action (static, backend, redirect or "
                          "respond)",
                          config->path);
    }
    for (size_t i = 0; i < config->route_count; i++) {
        check_route(check, i);
        collect_route_keys(check, i, &keys);
    }
    keyed_list_check(check, &keys, "is there twice (a request has one route)");
}

static void
check_worker(const struct check *check)
{
    struct spot spot = {SETTING_WORKER, 0, "connection_memory", 0};
    const struct worker_settings *worker = &check->config->worker;
    int64_t least_bytes = config_connection_memory(worker).least_bytes;

    if (!origins_of(check, &spot)->is_damaged && worker->connection_memory_bytes < least_bytes) {
        fail(check, &spot,
             "must be at least %lldk for this limit_request_head and limit_request_line",
             (long long)(least_bytes + 1023) / 1024);
    }
}

void
config_check(const struct config *config, bool needs_route, struct config_errors *errors)
{
    const struct check check = {config, errors};

    check_master(&check);
    check_worker(&check);
    check_access_format(&check);
    for (size_t i = 0; i < config->backend_count; i++) {
        check_backend(&check, i);
        check_backend_host(&check, i);
    }
    check_routes(&check, needs_route);
}
