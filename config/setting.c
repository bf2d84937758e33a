/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of settings.def and the walks over it. The table is constant; a field is reached by
 * its offset in the struct that config.h makes from the same rows.
 */
#include "config/setting.h"

#include <ctype.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"

#define STRUCT_MASTER struct master_settings
#define STRUCT_WORKER struct worker_settings
#define STRUCT_LOG struct log_settings
#define STRUCT_BACKEND struct backend_settings
#define STRUCT_ROUTE struct route_settings

#define MEMBER_COUNT(key) key
#define MEMBER_WORKERS(key) key
#define MEMBER_DURATION(key) key##_ms
#define MEMBER_SIZE(key) key##_bytes
#define MEMBER_BOOL(key) key
#define MEMBER_TEXT(key) key
#define MEMBER_PATH(key) key##_path
#define MEMBER_LEVEL(key) key
#define MEMBER_BALANCE(key) key
#define MEMBER_LISTEN(key) key
#define MEMBER_PROXY(key) key
#define MEMBER_TOLD(key) key
#define MEMBER_SANDBOX(key) key
#define MEMBER_OCTAL(key) key
#define MEMBER_NETWORKS(key) key
#define MEMBER_TARGET(key) key
#define MEMBER_ADDRESSES(key) key
#define MEMBER_SERVERS(key) key
#define MEMBER_TEXTS(key) key
#define MEMBER_PATTERN(key) key
#define MEMBER_REDIRECT(key) key
#define MEMBER_RESPOND(key) key

#define SETTING(section_, key_, type_, default_, min_, max_, reload_, documentation_)              \
    {.section = SETTING_##section_,                                                                \
     .type = VALUE_##type_,                                                                        \
     .key = #key_,                                                                                 \
     .default_text = (default_),                                                                   \
     .min = (min_),                                                                                \
     .max = (max_),                                                                                \
     .reload = RELOAD_##reload_,                                                                   \
     .documentation = (documentation_),                                                            \
     .offset = offsetof(STRUCT_##section_, MEMBER_##type_(key_))},
static const struct setting table[SETTING_ROWS] = {
#include "config/settings.def"
};

static const struct {
    const char *name;
    bool is_named;
    const char *prefix; /* of flags and variables; NULL: there are none */
} sections[SETTING_SECTION_COUNT] = {
    [SETTING_MASTER] = {"master", false, ""},
    [SETTING_WORKER] = {"worker", false, ""},
    /* --error alone would say nothing. */
    [SETTING_LOG] = {"log", false, "log_"},
    [SETTING_BACKEND] = {"backend", true, NULL},
    [SETTING_ROUTE] = {"route", true, NULL},
};

/* ---- finding ------------------------------------------------------------------------------- */

const struct setting *
setting_at(size_t row)
{
    CHECK(row < SETTING_ROWS);
    return &table[row];
}

size_t
setting_find(enum setting_section section, const char *key)
{
    size_t row = 0;

    while (row < SETTING_ROWS &&
           (table[row].section != section || strcmp(table[row].key, key) != 0)) {
        row++;
    }
    return row;
}

/* The three spellings differ in case and in '-' for '_' only. */
static size_t
find_outside(const char *name, void (*print)(const struct setting *, struct buf *))
{
    struct buf known = {0};
    size_t row = 0;

    for (; row < SETTING_ROWS; row++) {
        buf_clear(&known);
        if (sections[table[row].section].prefix == NULL) {
            continue;
        }
        print(&table[row], &known);
        if (strcmp(known.ptr, name) == 0) {
            break;
        }
    }
    buf_release(&known);
    return row;
}

size_t
setting_find_flag(const char *name)
{
    return find_outside(name, setting_print_flag);
}

size_t
setting_find_variable(const char *name)
{
    return find_outside(name, setting_print_variable);
}

static void
print_outside(const struct setting *setting, struct buf *out, bool is_flag)
{
    size_t start = out->len;

    CHECK(sections[setting->section].prefix != NULL);
    buf_addf(out, "%s%s", sections[setting->section].prefix, setting->key);
    for (char *c = out->ptr + start; *c != '\0'; c++) {
        *c = !is_flag ? (char)toupper((unsigned char)*c) : *c == '_' ? '-' : *c;
    }
}

void
setting_print_flag(const struct setting *setting, struct buf *out)
{
    print_outside(setting, out, true);
}

void
setting_print_variable(const struct setting *setting, struct buf *out)
{
    print_outside(setting, out, false);
}

const char *
setting_section_name(enum setting_section section)
{
    return sections[section].name;
}

bool
setting_section_is_named(enum setting_section section)
{
    return sections[section].is_named;
}

const char *
setting_reload_name(enum reload_class reload)
{
    static const char *const names[] = {
        [RELOAD_LIVE] = "LIVE", [RELOAD_WORKERS] = "WORKERS", [RELOAD_RESTART] = "RESTART"};

    return names[reload];
}

/* ---- one field ----------------------------------------------------------------------------- */

void *
setting_field(const struct setting *setting, void *section_struct)
{
    return (char *)section_struct + setting->offset;
}

const void *
setting_field_const(const struct setting *setting, const void *section_struct)
{
    return (const char *)section_struct + setting->offset;
}

char *
setting_parse(const struct setting *setting, const char *folder, const char *text,
              void *section_struct)
{
    struct value_rules rules = {.min = setting->min, .max = setting->max, .folder = folder};

    return value_parse(setting->type, &rules, text, setting_field(setting, section_struct));
}

void
setting_print(const struct setting *setting, const void *section_struct, struct buf *out)
{
    const void *field = setting_field_const(setting, section_struct);
    size_t count = value_count(setting->type, field);

    if (count == 0) {
        buf_add_text(out, "(not set)");
    }
    for (size_t i = 0; i < count; i++) {
        buf_add_text(out, i == 0 ? "" : ", ");
        value_print(setting->type, field, i, out);
    }
}

bool
setting_is_set(const struct setting *setting, const void *section_struct)
{
    return value_count(setting->type, setting_field_const(setting, section_struct)) > 0;
}

bool
setting_equal(const struct setting *setting, const void *a, const void *b)
{
    return value_equal(setting->type, setting_field_const(setting, a),
                       setting_field_const(setting, b));
}

bool
setting_applies(const struct setting *setting, const void *section_struct, const char **ret_needs)
{
    static const struct {
        enum setting_section section;
        const char *key;
        const char *needs;
    } pairs[] = {
        {SETTING_BACKEND, "instances", "command"},
        {SETTING_BACKEND, "listen", "command"},
        {SETTING_BACKEND, "directory", "command"},
        {SETTING_BACKEND, "environment", "command"},
        {SETTING_BACKEND, "max_requests", "command"},
        {SETTING_BACKEND, "max_requests_jitter", "command"},
        {SETTING_BACKEND, "max_lifetime", "command"},
        {SETTING_BACKEND, "max_lifetime_jitter", "command"},
        {SETTING_BACKEND, "max_memory", "command"},
        {SETTING_BACKEND, "health_host", "health_path"},
        {SETTING_BACKEND, "health_interval", "health_path"},
        {SETTING_BACKEND, "health_timeout", "health_path"},
        {SETTING_BACKEND, "health_status", "health_path"},
        {SETTING_BACKEND, "health_rise", "health_path"},
        {SETTING_BACKEND, "health_fall", "health_path"},
        {SETTING_ROUTE, "index", "static"},
        {SETTING_ROUTE, "strip_prefix", "backend"},
        {SETTING_ROUTE, "trailers", "backend"},
#ifdef NARWHAL_TEST_ROUTES
        {SETTING_ROUTE, "spin", "respond"},
#endif
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        if (pairs[i].section == setting->section && strcmp(pairs[i].key, setting->key) == 0) {
            size_t row = setting_find(setting->section, pairs[i].needs);
            *ret_needs = pairs[i].needs;
            return setting_is_set(setting_at(row), section_struct);
        }
    }
    *ret_needs = NULL;
    return true;
}

/* ---- a section ----------------------------------------------------------------------------- */

void
setting_init_section(enum setting_section section, void *section_struct)
{
    for (size_t row = 0; row < SETTING_ROWS; row++) {
        if (table[row].section == section && table[row].default_text[0] != '\0') {
            char *error = setting_parse(&table[row], NULL, table[row].default_text, section_struct);
            CHECK(error == NULL); /* a default of settings.def that its own row does not allow */
        }
    }
}

void
setting_release_section(enum setting_section section, void *section_struct)
{
    for (size_t row = 0; row < SETTING_ROWS; row++) {
        if (table[row].section == section) {
            value_release(table[row].type, setting_field(&table[row], section_struct));
        }
    }
}
