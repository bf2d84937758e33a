/* SPDX-License-Identifier: Apache-2.0
 *
 * The rows of settings.def at run time, and what can be done with one row: find it by name, read
 * its text into the field, print it, compare it. Everything that walks "all settings" walks this
 * table, so a new row needs no other code.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "config/value.h"

enum setting_section {
    SETTING_MASTER = 0,
    SETTING_WORKER,
    SETTING_LOG,
    SETTING_BACKEND,
    SETTING_ROUTE,
    SETTING_SECTION_COUNT
};

struct setting {
    enum setting_section section;
    enum value_type type;
    const char *key;
    const char *default_text;
    int64_t min;
    int64_t max;
    enum reload_class reload;
    const char *documentation;
    size_t offset; /* of the field in the struct of its section */
};

/* Rows of all sections together; a row is its index, in the order of settings.def. */
#define SETTING(...) +1
enum {
    SETTING_ROWS = 0
#include "config/settings.def"
};

const struct setting *setting_at(size_t row);
/* Row of section and key, or SETTING_ROWS. */
size_t setting_find(enum setting_section section, const char *key);
/* Row of a name of the command line ("graceful-timeout", "log-level") or of the environment
 * ("GRACEFUL_TIMEOUT", without NARWHAL_), or SETTING_ROWS: there are none for named sections. */
size_t setting_find_flag(const char *name);
size_t setting_find_variable(const char *name);
/* Adds those names of a row, without "--" and "NARWHAL_". */
void setting_print_flag(const struct setting *setting, struct buf *out);
void setting_print_variable(const struct setting *setting, struct buf *out);

/* "master", "backend", … */
const char *setting_section_name(enum setting_section section);
/* Whether sections of this kind have names: [backend:NAME]. */
bool setting_section_is_named(enum setting_section section);
/* "LIVE", "WORKERS", "RESTART" */
const char *setting_reload_name(enum reload_class reload);

/* Field of the row in the struct of its section. */
void *setting_field(const struct setting *setting, void *section_struct);
const void *setting_field_const(const struct setting *setting, const void *section_struct);

/* As value_parse(), into the row's field. folder: see struct value_rules. */
char *setting_parse(const struct setting *setting, const char *folder, const char *text,
                    void *section_struct);
/* All items, separated by ", "; "(not set)" without any. */
void setting_print(const struct setting *setting, const void *section_struct, struct buf *out);
bool setting_is_set(const struct setting *setting, const void *section_struct);
bool setting_equal(const struct setting *setting, const void *a, const void *b);

/* Whether setting the row means anything beside the others of its section: instances does only
 * with command. *ret_needs names the key that is missing, when it does not. */
bool setting_applies(const struct setting *setting, const void *section_struct,
                     const char **ret_needs);

/* Stores the defaults in a struct of the section that is all zero, and frees what one owns. */
void setting_init_section(enum setting_section section, void *section_struct);
void setting_release_section(enum setting_section section, void *section_struct);
