/* SPDX-License-Identifier: Apache-2.0
 *
 * Parsing and printing of every type of value, behind one table of operations. Printing and
 * parsing are each other's inverse: --print-config, the image for the workers and the reload diff
 * rest on it. Errors name the text and what is allowed. No state.
 */
#include "config/value.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/log.h"
#include "config/nearest.h"
#include "config/value_private.h"

/* A text in an error message is cut here, so that one line of the log can hold the message. */
#define QUOTE_MAX 80

/* ---- errors -------------------------------------------------------------------------------- */

void
value_quote(const char *text, struct buf *out)
{
    size_t length = strnlen(text, QUOTE_MAX + 1);
    bool is_cut = length > QUOTE_MAX;

    buf_add_text(out, "\"");
    for (size_t i = 0; i < (is_cut ? QUOTE_MAX : length); i++) {
        unsigned char c = (unsigned char)text[i];
        char shown = c < 0x20 || c == 0x7f ? '?' : text[i];
        buf_add(out, &shown, 1);
    }
    buf_add_text(out, is_cut ? "...\"" : "\"");
}

char *
value_error(const char *text, const char *format, ...)
{
    struct buf message = {0};
    va_list args;
    char rest[512];

    va_start(args, format);
    (void)vsnprintf(rest, sizeof(rest), format, args);
    va_end(args);
    value_quote(text, &message);
    buf_addf(&message, " %s", rest);
    return buf_take(&message);
}

/* ---- numbers ------------------------------------------------------------------------------- */

struct unit {
    const char *name;
    int64_t factor;
};

/* Largest first: printing takes the first that divides. */
static const struct unit duration_units[] = {
    {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0}};
static const struct unit size_units[] = {
    {"g", INT64_C(1) << 30}, {"m", INT64_C(1) << 20}, {"k", INT64_C(1) << 10}, {"", 1}, {NULL, 0}};
static const struct unit plain_units[] = {{"", 1}, {NULL, 0}};

static const struct unit *
units_of(enum value_type type)
{
    return type == VALUE_DURATION ? duration_units : type == VALUE_SIZE ? size_units : plain_units;
}

bool
value_scan_number(const char **text, int64_t *ret_number)
{
    const char *next = *text;
    int64_t number = 0;

    if (*next < '0' || *next > '9') {
        return false;
    }
    for (; *next >= '0' && *next <= '9'; next++) {
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, *next - '0', &number)) {
            return false;
        }
    }
    *text = next;
    *ret_number = number;
    return true;
}

static void
print_number(enum value_type type, int64_t number, struct buf *out)
{
    const struct unit *unit = units_of(type);

    if (number == 0) {
        buf_add_text(out, "0");
        return;
    }
    while (number % unit->factor != 0) {
        unit++;
    }
    buf_addf(out, "%lld%s", (long long)(number / unit->factor), unit->name);
}

static void
print_range(enum value_type type, const struct value_rules *rules, struct buf *out)
{
    if (type == VALUE_WORKERS) {
        buf_add_text(out, "auto or ");
    }
    print_number(type, rules->min, out);
    buf_add_text(out, " to ");
    print_number(type, rules->max, out);
}

static char *
number_error(enum value_type type, const struct value_rules *rules, const char *text,
             const char *what)
{
    struct buf range = {0};

    print_range(type, rules, &range);
    char *error = value_error(
        text, "%s; it must be %s%s%s", what, type == VALUE_WORKERS ? "" : "from ", range.ptr,
        type == VALUE_DURATION ? ", a whole number with the unit ms, s, m or h"
        : type == VALUE_SIZE   ? ", a whole number of bytes or with k, m or g"
                               : "");
    buf_release(&range);
    return error;
}

static char *
parse_number(enum value_type type, const struct value_rules *rules, const char *text, void *field)
{
    const char *next = text;
    int64_t number;
    int64_t *ret_number = field;

    if (type == VALUE_WORKERS && strcmp(text, "auto") == 0) {
        *ret_number = 0;
        return NULL;
    }
    if (text[strspn(text, "0123456789")] == '\0' && text[0] != '\0' &&
        !value_scan_number(&next, &number)) {
        return number_error(type, rules, text, "is out of range");
    }
    next = text;
    if (!value_scan_number(&next, &number)) {
        return number_error(type, rules, text,
                            type == VALUE_DURATION ? "is not a duration"
                            : type == VALUE_SIZE   ? "is not a size"
                                                   : "is not a whole number");
    }
    const struct unit *unit = units_of(type);
    while (unit->name != NULL && strcasecmp(unit->name, next) != 0) {
        unit++;
    }
    if (unit->name == NULL) {
        if (type == VALUE_DURATION && *next == '\0') {
            if (number != 0) {
                return number_error(type, rules, text, "has no unit");
            }
            unit = duration_units; /* 0 is 0 in any unit */
        } else {
            return number_error(type, rules, text,
                                type == VALUE_DURATION ? "is not a duration"
                                : type == VALUE_SIZE   ? "is not a size"
                                                       : "is not a whole number");
        }
    }
    if (__builtin_mul_overflow(number, unit->factor, &number) || number < rules->min ||
        number > rules->max) {
        return number_error(type, rules, text, "is out of range");
    }
    *ret_number = number;
    return NULL;
}

/* Always octal, with or without a 0 in front: nobody means a mode in decimal. */
static char *
parse_octal(const struct value_rules *rules, const char *text, int64_t *ret_number)
{
    size_t length = strspn(text, "01234567");
    int64_t number = 0;

    for (size_t i = 0; i < length && i < 8; i++) {
        number = number * 8 + (text[i] - '0');
    }
    if (length == 0 || length > 8 || text[length] != '\0' || number < rules->min ||
        number > rules->max) {
        return value_error(text, "must be an octal number from %04llo to %04llo",
                           (unsigned long long)rules->min, (unsigned long long)rules->max);
    }
    *ret_number = number;
    return NULL;
}

/* ---- words --------------------------------------------------------------------------------- */

static const char *const bool_names[] = {"off", "on", NULL};
static const char *const level_names[] = {"error", "warn", "info", "debug", NULL};
static const char *const balance_names[] = {
    [BALANCE_LEAST_BUSY] = "least_busy",
    [BALANCE_ROUND_ROBIN] = "round_robin",
    [BALANCE_HASH] = "hash",
    [BALANCE_RANDOM2] = "random2",
    [BALANCE_COUNT] = NULL,
};
static const char *const listen_names[] = {
    [LISTEN_AUTO] = "auto", [LISTEN_FD] = "fd",         [LISTEN_SOCKET] = "socket",
    [LISTEN_PORT] = "port", [LISTEN_MODE_COUNT] = NULL,
};
static const char *const proxy_names[] = {
    [PROXY_OFF] = "off", [PROXY_V1] = "v1", [PROXY_V2] = "v2", [PROXY_VERSION_COUNT] = NULL};
static const char *const told_names[] = {[TOLD_BY_X_FORWARDED] = "x_forwarded",
                                         [TOLD_BY_FORWARDED] = "forwarded",
                                         [TOLD_BY_COUNT] = NULL};
static const char *const sandbox_names[] = {[SANDBOX_AUTO] = "auto",
                                            [SANDBOX_ON] = "on",
                                            [SANDBOX_OFF] = "off",
                                            [SANDBOX_MODE_COUNT] = NULL};
_Static_assert(sizeof(level_names) / sizeof(level_names[0]) == LOG_LEVEL_COUNT + 1,
               "a name for each level");

static const char *const *
names_of(enum value_type type)
{
    return type == VALUE_BOOL      ? bool_names
           : type == VALUE_LEVEL   ? level_names
           : type == VALUE_BALANCE ? balance_names
           : type == VALUE_PROXY   ? proxy_names
           : type == VALUE_TOLD    ? told_names
           : type == VALUE_SANDBOX ? sandbox_names
                                   : listen_names;
}

const char *
sandbox_mode_name(enum sandbox_mode mode)
{
    return sandbox_names[mode];
}

static void
print_names(const char *const *names, struct buf *out)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        buf_addf(out, "%s%s", i == 0 ? "" : names[i + 1] == NULL ? " or " : ", ", names[i]);
    }
}

/* Index of text in names, or -1 with *ret_error set. */
static int
find_name(const char *const *names, const char *text, char **ret_error)
{
    struct nearest nearest = {.text = text};
    struct buf allowed = {0};

    *ret_error = NULL;
    for (int i = 0; names[i] != NULL; i++) {
        if (strcasecmp(names[i], text) == 0) {
            return i;
        }
        nearest_offer(&nearest, names[i]);
    }
    print_names(names, &allowed);
    if (nearest.name != NULL) {
        buf_addf(&allowed, "; did you mean \"%s\"?", nearest.name);
    }
    *ret_error = value_error(text, "is not allowed; it must be %s", allowed.ptr);
    buf_release(&allowed);
    return -1;
}

static char *
parse_bool(const char *text, bool *ret_value)
{
    static const struct {
        const char *name;
        bool value;
    } others[] = {{"yes", true}, {"no", false}, {"true", true}, {"false", false}};
    char *error;

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (strcasecmp(others[i].name, text) == 0) {
            *ret_value = others[i].value;
            return NULL;
        }
    }
    int index = find_name(bool_names, text, &error);
    if (index != -1) {
        *ret_value = index == 1;
    }
    return error;
}

/* Every enum of ours is an int to the compiler (all enumerators are small and not negative, GCC
 * manual "Structures unions enumerations and bit-fields": unsigned int), so that one function may
 * store any of them. */
_Static_assert(sizeof(enum log_level) == sizeof(unsigned int), "enum is as wide as unsigned");
_Static_assert(sizeof(enum balance) == sizeof(unsigned int), "enum is as wide as unsigned");
_Static_assert(sizeof(enum proxy_version) == sizeof(unsigned int), "enum is as wide as unsigned");
_Static_assert(sizeof(enum told_by) == sizeof(unsigned int), "enum is as wide as unsigned");
_Static_assert(sizeof(enum sandbox_mode) == sizeof(unsigned int), "enum is as wide as unsigned");
_Static_assert(sizeof(enum listen_mode) == sizeof(unsigned int), "enum is as wide as unsigned");

static unsigned int
enum_load(const void *field)
{
    unsigned int value;

    memcpy(&value, field, sizeof(value));
    return value;
}

static char *
parse_enum(enum value_type type, const char *text, void *field)
{
    char *error;
    int index = find_name(names_of(type), text, &error);

    if (index != -1) {
        unsigned int value = (unsigned int)index;
        memcpy(field, &value, sizeof(value));
    }
    return error;
}

/* ---- texts and paths ----------------------------------------------------------------------- */

static void
replace_text(char **field, char *text)
{
    free(*field);
    *field = text;
}

/* The path as it is kept: absolute, without "." segments, repeated or trailing slashes. ".." stays:
 * what it means depends on symbolic links. */
static char *
clean_path(const char *folder, const char *text)
{
    struct buf path = {0};
    char *whole = text[0] == '/' ? xstrdup(text) : xasprintf("%s/%s", folder, text);

    for (const char *next = whole; *next != '\0';) {
        size_t length = strcspn(next, "/");
        if (length > 0 && !(length == 1 && next[0] == '.')) {
            buf_add_text(&path, "/");
            buf_add(&path, next, length);
        }
        next += length;
        next += strspn(next, "/");
    }
    free(whole);
    if (path.len == 0) {
        buf_add_text(&path, "/");
    }
    return buf_take(&path);
}

/* PATH_MAX counts the NUL (limits.h); the kernel would answer ENAMETOOLONG later. */
#define PATH_BYTES_MAX 4095

static char *
parse_path(const struct value_rules *rules, const char *text, char **field)
{
    if (text[0] == '\0') {
        replace_text(field, NULL);
        return NULL;
    }
    if (text[0] != '/' && rules->folder == NULL) {
        return value_error(text, "must be an absolute path");
    }
    char *path = clean_path(rules->folder, text);
    if (strlen(path) > PATH_BYTES_MAX) {
        free(path);
        return value_error(text, "is longer than the %d bytes of a path", PATH_BYTES_MAX);
    }
    replace_text(field, path);
    return NULL;
}

static const char *const target_names[] = {
    [TARGET_OFF] = "off",       [TARGET_STDOUT] = "stdout",     [TARGET_STDERR] = "stderr",
    [TARGET_SYSLOG] = "syslog", [TARGET_JOURNALD] = "journald", [TARGET_FILE] = NULL,
};

/* min above TARGET_OFF takes "off" away: there must be an error log. */
static unsigned int
target_first(const struct value_rules *rules)
{
    return rules->min > (int64_t)TARGET_OFF ? TARGET_STDOUT : TARGET_OFF;
}

static char *
parse_target(const struct value_rules *rules, const char *text, struct log_target *target)
{
    for (unsigned int kind = target_first(rules); target_names[kind] != NULL; kind++) {
        if (strcmp(target_names[kind], text) == 0) {
            replace_text(&target->path, NULL);
            target->kind = kind;
            return NULL;
        }
    }
    struct nearest nearest = {.text = text};
    nearest_offer(&nearest, "stdout");
    nearest_offer(&nearest, "stderr");
    nearest_offer(&nearest, "syslog");
    nearest_offer(&nearest, "journald");
    /* "stder" must not become a file of that name. */
    if (strchr(text, '/') == NULL) {
        return value_error(
            text,
            "is not allowed; it must be %sstdout, stderr, syslog, journald, or the path of a file "
            "with a '/' in it%s%s%s",
            target_first(rules) == TARGET_OFF ? "off, " : "",
            nearest.name == NULL ? "" : "; did you mean \"",
            nearest.name == NULL ? "" : nearest.name, nearest.name == NULL ? "" : "\"?");
    }
    char *path = NULL;
    char *error = parse_path(rules, text, &path);
    const char *last = strrchr(text, '/') + 1;
    /* Of "/var/log/." only "/var/log" is kept, which would pass for the name of a file. */
    if (error == NULL && (last[0] == '\0' || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)) {
        free(path);
        return value_error(text, "names a folder; name the file itself");
    }
    if (error == NULL) {
        replace_text(&target->path, path);
        target->kind = TARGET_FILE;
    }
    return error;
}

/* ---- values of routes ---------------------------------------------------------------------- */

static char *
parse_pattern(const char *text, struct path_pattern *pattern)
{
    bool is_exact = text[0] == '=';
    const char *path = is_exact ? text + 1 : text;

    if (path[0] != '/') {
        return value_error(text, "must begin with '/', or with '=/' for that path only");
    }
    if (strpbrk(path, "?#") != NULL) {
        return value_error(text, "must be a path alone, without '?' and '#'");
    }
    /* Requests are matched by their path with %XX decoded, dot segments removed and runs of '/'
     * merged (worker/http/target.h); what follows could never match. */
    for (const char *percent = strchr(path, '%'); percent != NULL;
         percent = strchr(percent + 1, '%')) {
        if (isxdigit((unsigned char)percent[1]) && isxdigit((unsigned char)percent[2])) {
            return value_error(text, "must be written without %%XX: requests are matched after "
                                     "those are decoded");
        }
    }
    for (const char *segment = path + 1;; segment++) {
        size_t length = strcspn(segment, "/");
        if ((length == 1 && segment[0] == '.') || (length == 2 && memcmp(segment, "..", 2) == 0)) {
            return value_error(text, "must not have '.' or '..' as a part: requests are matched "
                                     "after those are resolved");
        }
        if (length == 0 && segment[0] == '/') {
            return value_error(text, "must not have '//': no request is matched by it");
        }
        segment += length;
        if (*segment == '\0') {
            break;
        }
    }
    replace_text(&pattern->path, xstrdup(path));
    pattern->exact = is_exact;
    return NULL;
}

static char *
parse_redirect(const char *text, struct redirect *redirect)
{
    static const int allowed[] = {301, 302, 303, 307, 308};
    const char *location = text;
    int64_t status = 308; /* permanent, and the method stays: RFC 9110 section 15.4.9 */

    if (text[0] == '\0') {
        replace_text(&redirect->location, NULL);
        redirect->status = 0;
        return NULL;
    }
    if (value_scan_number(&location, &status)) {
        bool is_allowed = false;
        for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++) {
            is_allowed = is_allowed || status == allowed[i];
        }
        if (!is_allowed || (*location != ' ' && *location != '\t' && *location != '\0')) {
            return value_error(text, "must begin with the status 301, 302, 303, 307 or 308, or "
                                     "with LOCATION");
        }
        location += strspn(location, " \t");
    }
    if (location[0] != '/' && strncasecmp(location, "http://", 7) != 0 &&
        strncasecmp(location, "https://", 8) != 0) {
        return value_error(text, "must have a LOCATION that begins with '/', http:// or https://");
    }
    for (const char *c = location; *c != '\0'; c++) {
        if (*c <= 0x20 || *c == 0x7f) { /* char is signed: takes all bytes above 0x7f too */
            return value_error(text, "must have a LOCATION of visible ASCII characters; write "
                                     "others as %%XX");
        }
    }
    for (const char *open = strchr(location, '{'); open != NULL; open = strchr(open + 1, '{')) {
        if (strncmp(open, "{path}", 6) != 0) {
            return value_error(text, "has a '{' that is not {path}, the only placeholder there is; "
                                     "write a plain one as %%7B");
        }
    }
    replace_text(&redirect->location, xstrdup(location));
    redirect->status = (int)status;
    return NULL;
}

static char *
parse_respond(const char *text, struct respond *respond)
{
    const char *next = text;
    int64_t status;

    if (text[0] == '\0') {
        replace_text(&respond->text, NULL);
        respond->status = 0;
        return NULL;
    }
    if (!value_scan_number(&next, &status) || (*next != '\0' && *next != ' ' && *next != '\t') ||
        status < 200 || status > 599) {
        return value_error(text, "must be a status from 200 to 599 and a text, for example 200 ok");
    }
    next += strspn(next, " \t");
    /* RFC 9110 sections 15.3.5 and 15.4.5: these responses have no content. */
    if (*next != '\0' && (status == 204 || status == 304)) {
        return value_error(text, "must not have a text: a %d response has no content", (int)status);
    }
    replace_text(&respond->text, xstrdup(next));
    respond->status = (int)status;
    return NULL;
}

/* ---- lists --------------------------------------------------------------------------------- */

static char *
list_full_error(const char *text, int max)
{
    return value_error(text, "is one too many; at most %d are allowed", max);
}

static char *
parse_addresses_item(const char *text, struct address_list *list)
{
    struct address address;

    if (list->count == VALUE_LIST_MAX) {
        return list_full_error(text, VALUE_LIST_MAX);
    }
    char *error = address_parse(text, &address);
    if (error == NULL) {
        list->item = xrealloc(list->item, (list->count + 1) * sizeof(*list->item));
        list->item[list->count++] = address;
    }
    return error;
}

static char *
parse_servers_item(const char *text, struct server_list *list)
{
    struct server server;

    if (list->count == VALUE_SERVERS_MAX) {
        return list_full_error(text, VALUE_SERVERS_MAX);
    }
    char *error = server_parse(text, &server);
    if (error == NULL) {
        list->item = xrealloc(list->item, (list->count + 1) * sizeof(*list->item));
        list->item[list->count++] = server;
    }
    return error;
}

static char *
parse_texts_item(const char *text, struct text_list *list)
{
    if (list->count == VALUE_LIST_MAX) {
        return list_full_error(text, VALUE_LIST_MAX);
    }
    list->item = xrealloc(list->item, (list->count + 1) * sizeof(*list->item));
    list->item[list->count++] = xstrdup(text);
    return NULL;
}

static char *
parse_networks_item(const char *text, struct network_list *list)
{
    struct network network;

    if (list->count == VALUE_LIST_MAX) {
        return list_full_error(text, VALUE_LIST_MAX);
    }
    char *error = network_parse(text, &network);
    if (error == NULL) {
        list->item = xrealloc(list->item, (list->count + 1) * sizeof(*list->item));
        list->item[list->count++] = network;
    }
    return error;
}

/* ---- one interface ------------------------------------------------------------------------- */

/* A control byte in a value could start a second line in a log or a second field in a response. */
static char *
control_byte_error(const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        unsigned char byte = (unsigned char)*c;
        if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
            return value_error(text,
                               "has the control byte 0x%02x at position %zu; only printable "
                               "text is allowed",
                               byte, (size_t)(c - text) + 1);
        }
    }
    return NULL;
}

char *
value_parse(enum value_type type, const struct value_rules *rules, const char *text, void *field)
{
    char *error = control_byte_error(text);

    if (error != NULL) {
        return error;
    }
    if (text[0] == '\0' && value_is_list(type)) {
        value_release(type, field);
        return NULL;
    }
    switch (type) {
    case VALUE_COUNT:
    case VALUE_WORKERS:
    case VALUE_DURATION:
    case VALUE_SIZE:
        return parse_number(type, rules, text, field);
    case VALUE_OCTAL:
        return parse_octal(rules, text, field);
    case VALUE_BOOL:
        return parse_bool(text, field);
    case VALUE_TEXT:
        replace_text(field, text[0] == '\0' ? NULL : xstrdup(text));
        return NULL;
    case VALUE_PATH:
        return parse_path(rules, text, field);
    case VALUE_LEVEL:
    case VALUE_BALANCE:
    case VALUE_LISTEN:
    case VALUE_PROXY:
    case VALUE_TOLD:
    case VALUE_SANDBOX:
        return parse_enum(type, text, field);
    case VALUE_TARGET:
        return parse_target(rules, text, field);
    case VALUE_ADDRESSES:
        return parse_addresses_item(text, field);
    case VALUE_SERVERS:
        return parse_servers_item(text, field);
    case VALUE_TEXTS:
        return parse_texts_item(text, field);
    case VALUE_NETWORKS:
        return parse_networks_item(text, field);
    case VALUE_PATTERN:
        return parse_pattern(text, field);
    case VALUE_REDIRECT:
        return parse_redirect(text, field);
    case VALUE_RESPOND:
        return parse_respond(text, field);
    case VALUE_TYPE_COUNT:
        break;
    }
    CHECK(type < VALUE_TYPE_COUNT);
    return NULL;
}

bool
value_is_list(enum value_type type)
{
    return type == VALUE_ADDRESSES || type == VALUE_SERVERS || type == VALUE_TEXTS ||
           type == VALUE_NETWORKS;
}

size_t
value_count(enum value_type type, const void *field)
{
    switch (type) {
    case VALUE_COUNT:
    case VALUE_WORKERS:
    case VALUE_DURATION:
    case VALUE_SIZE:
    case VALUE_OCTAL:
    case VALUE_BOOL:
    case VALUE_LEVEL:
    case VALUE_BALANCE:
    case VALUE_LISTEN:
    case VALUE_PROXY:
    case VALUE_TOLD:
    case VALUE_SANDBOX:
    case VALUE_TARGET:
        return 1;
    case VALUE_TEXT:
    case VALUE_PATH:
        return *(char *const *)field == NULL ? 0 : 1;
    case VALUE_ADDRESSES:
        return ((const struct address_list *)field)->count;
    case VALUE_SERVERS:
        return ((const struct server_list *)field)->count;
    case VALUE_TEXTS:
        return ((const struct text_list *)field)->count;
    case VALUE_NETWORKS:
        return ((const struct network_list *)field)->count;
    case VALUE_PATTERN:
        return ((const struct path_pattern *)field)->path == NULL ? 0 : 1;
    case VALUE_REDIRECT:
        return ((const struct redirect *)field)->status == 0 ? 0 : 1;
    case VALUE_RESPOND:
        return ((const struct respond *)field)->status == 0 ? 0 : 1;
    case VALUE_TYPE_COUNT:
        break;
    }
    CHECK(type < VALUE_TYPE_COUNT);
    return 0;
}

static void
print_server(const struct server *server, struct buf *out)
{
    buf_add_text(out, server->address.text);
    if (server->weight != 1) {
        buf_addf(out, " weight=%lld", (long long)server->weight);
    }
    if (server->slots >= 0) {
        buf_addf(out, " slots=%lld", (long long)server->slots);
    }
    if (server->backup) {
        buf_add_text(out, " backup");
    }
}

void
value_print(enum value_type type, const void *field, size_t index, struct buf *out)
{
    CHECK(index < value_count(type, field));
    switch (type) {
    case VALUE_COUNT:
    case VALUE_DURATION:
    case VALUE_SIZE:
        print_number(type, *(const int64_t *)field, out);
        break;
    case VALUE_WORKERS:
        if (*(const int64_t *)field == 0) {
            buf_add_text(out, "auto");
        } else {
            print_number(type, *(const int64_t *)field, out);
        }
        break;
    case VALUE_OCTAL:
        buf_addf(out, "%04llo", (unsigned long long)*(const int64_t *)field);
        break;
    case VALUE_BOOL:
        buf_add_text(out, bool_names[*(const bool *)field ? 1 : 0]);
        break;
    case VALUE_TEXT:
    case VALUE_PATH:
        buf_add_text(out, *(char *const *)field);
        break;
    case VALUE_LEVEL:
    case VALUE_BALANCE:
    case VALUE_LISTEN:
    case VALUE_PROXY:
    case VALUE_TOLD:
    case VALUE_SANDBOX:
        buf_add_text(out, names_of(type)[enum_load(field)]);
        break;
    case VALUE_TARGET: {
        const struct log_target *target = field;
        buf_add_text(out, target->kind == TARGET_FILE ? target->path : target_names[target->kind]);
        break;
    }
    case VALUE_ADDRESSES:
        buf_add_text(out, ((const struct address_list *)field)->item[index].text);
        break;
    case VALUE_SERVERS:
        print_server(&((const struct server_list *)field)->item[index], out);
        break;
    case VALUE_TEXTS:
        buf_add_text(out, ((const struct text_list *)field)->item[index]);
        break;
    case VALUE_NETWORKS:
        network_print(&((const struct network_list *)field)->item[index], out);
        break;
    case VALUE_PATTERN: {
        const struct path_pattern *pattern = field;
        buf_addf(out, "%s%s", pattern->exact ? "=" : "", pattern->path);
        break;
    }
    case VALUE_REDIRECT: {
        const struct redirect *redirect = field;
        buf_addf(out, "%d %s", redirect->status, redirect->location);
        break;
    }
    case VALUE_RESPOND: {
        const struct respond *respond = field;
        buf_addf(out, "%d%s%s", respond->status, respond->text[0] == '\0' ? "" : " ",
                 respond->text);
        break;
    }
    case VALUE_TYPE_COUNT:
        CHECK(type < VALUE_TYPE_COUNT);
    }
}

/* Equal values have equal texts: printing is the inverse of parsing. Off the request path, so one
 * rule for all types is worth the copies. */
bool
value_equal(enum value_type type, const void *a, const void *b)
{
    size_t count = value_count(type, a);
    bool is_equal = count == value_count(type, b);

    for (size_t i = 0; i < count && is_equal; i++) {
        struct buf a_text = {0};
        struct buf b_text = {0};
        value_print(type, a, i, &a_text);
        value_print(type, b, i, &b_text);
        is_equal = strcmp(a_text.ptr, b_text.ptr) == 0;
        buf_release(&a_text);
        buf_release(&b_text);
    }
    return is_equal;
}

void
value_release(enum value_type type, void *field)
{
    switch (type) {
    case VALUE_COUNT:
    case VALUE_WORKERS:
    case VALUE_DURATION:
    case VALUE_SIZE:
    case VALUE_OCTAL:
        *(int64_t *)field = 0;
        return;
    case VALUE_BOOL:
        *(bool *)field = false;
        return;
    case VALUE_LEVEL:
    case VALUE_BALANCE:
    case VALUE_LISTEN:
    case VALUE_PROXY:
    case VALUE_TOLD:
    case VALUE_SANDBOX:
        memset(field, 0, sizeof(unsigned int));
        return;
    case VALUE_TEXT:
    case VALUE_PATH:
        replace_text(field, NULL);
        return;
    case VALUE_TARGET: {
        struct log_target *target = field;
        free(target->path);
        *target = (struct log_target){0};
        return;
    }
    case VALUE_ADDRESSES: {
        struct address_list *list = field;
        free(list->item);
        *list = (struct address_list){0};
        return;
    }
    case VALUE_SERVERS: {
        struct server_list *list = field;
        free(list->item);
        *list = (struct server_list){0};
        return;
    }
    case VALUE_TEXTS: {
        struct text_list *list = field;
        for (size_t i = 0; i < list->count; i++) {
            free(list->item[i]);
        }
        free(list->item);
        *list = (struct text_list){0};
        return;
    }
    case VALUE_NETWORKS: {
        struct network_list *list = field;
        free(list->item);
        *list = (struct network_list){0};
        return;
    }
    case VALUE_PATTERN: {
        struct path_pattern *pattern = field;
        free(pattern->path);
        *pattern = (struct path_pattern){0};
        return;
    }
    case VALUE_REDIRECT: {
        struct redirect *redirect = field;
        free(redirect->location);
        *redirect = (struct redirect){0};
        return;
    }
    case VALUE_RESPOND: {
        struct respond *respond = field;
        free(respond->text);
        *respond = (struct respond){0};
        return;
    }
    case VALUE_TYPE_COUNT:
        break;
    }
    CHECK(type < VALUE_TYPE_COUNT);
}

void
value_print_allowed(enum value_type type, const struct value_rules *rules, struct buf *out)
{
    switch (type) {
    case VALUE_COUNT:
    case VALUE_WORKERS:
    case VALUE_DURATION:
    case VALUE_SIZE:
        print_range(type, rules, out);
        return;
    case VALUE_OCTAL:
        buf_addf(out, "%04llo to %04llo, in octal", (unsigned long long)rules->min,
                 (unsigned long long)rules->max);
        return;
    case VALUE_BOOL:
        buf_add_text(out, "on or off (also yes, no, true, false)");
        return;
    case VALUE_TEXT:
        buf_add_text(out, "a text");
        return;
    case VALUE_PATH:
        buf_add_text(out, "a path");
        return;
    case VALUE_LEVEL:
    case VALUE_BALANCE:
    case VALUE_LISTEN:
    case VALUE_PROXY:
    case VALUE_TOLD:
    case VALUE_SANDBOX:
        print_names(names_of(type), out);
        return;
    case VALUE_TARGET:
        buf_addf(out, "%sstdout, stderr, syslog, journald or a path with a '/' in it",
                 target_first(rules) == TARGET_OFF ? "off, " : "");
        return;
    case VALUE_ADDRESSES:
        buf_add_text(out,
                     "HOST:PORT, [IPV6]:PORT, :PORT, unix:/PATH, systemd:NAME or fd://N; may be "
                     "repeated");
        return;
    case VALUE_SERVERS:
        buf_add_text(out, "HOST:PORT, [IPV6]:PORT or unix:/PATH, then weight=N, slots=N and backup "
                          "if wanted; may be "
                          "repeated");
        return;
    case VALUE_TEXTS:
        buf_add_text(out, "a text; may be repeated");
        return;
    case VALUE_NETWORKS:
        buf_add_text(out, "ADDRESS, ADDRESS/BITS or unix; may be repeated");
        return;
    case VALUE_PATTERN:
        buf_add_text(out, "/PATH or =/PATH");
        return;
    case VALUE_REDIRECT:
        buf_add_text(out, "LOCATION, or 301, 302, 303, 307 or 308 and LOCATION");
        return;
    case VALUE_RESPOND:
        buf_add_text(out, "200 to 599 and a text");
        return;
    case VALUE_TYPE_COUNT:
        break;
    }
    CHECK(type < VALUE_TYPE_COUNT);
}

/* ---- hash_key ------------------------------------------------------------------------------ */

bool
hash_key_parse(const char *text, struct hash_key *ret_key)
{
    /* RFC 9110 section 5.6.2: names of fields are tokens; those of cookies are as well (RFC 6265
     * section 4.1.1). */
    static const char token[] = "!#$%&'*+-.^_`|~0123456789"
                                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

    *ret_key = (struct hash_key){.source = HASH_ADDRESS};
    if (strcmp(text, "address") == 0) {
        return true;
    }
    if (strcmp(text, "path") == 0) {
        ret_key->source = HASH_PATH;
        return true;
    }
    bool is_header = strncmp(text, "header:", 7) == 0;
    if (!is_header && strncmp(text, "cookie:", 7) != 0) {
        return false;
    }
    ret_key->source = is_header ? HASH_HEADER : HASH_COOKIE;
    ret_key->name = text + 7;
    size_t length = strspn(ret_key->name, token);
    return length > 0 && ret_key->name[length] == '\0';
}
