/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the config_*.c files only: sections by number, origins, the flags of the command line.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "config/setting.h"

/* Most [backend:…] and most [route:…] sections, and the longest name of one. */
#define CONFIG_SECTIONS_MAX 10240
#define CONFIG_NAME_MAX 32

/* ---- origins ------------------------------------------------------------------------------- */

/* Who gave a value; a later one replaces what an earlier one gave. */
enum config_layer { LAYER_DEFAULT = 0, LAYER_FILE, LAYER_ENVIRONMENT, LAYER_FLAG };

struct key_origin {
    enum config_layer layer;
    bool is_empty;          /* given, as empty text */
    struct text_list place; /* "narwhal.ini:12", "--workers"; of a list, one per item */
};

struct section_origins {
    enum config_layer layer;
    char *place;                         /* owned; of the section's own line; may be NULL */
    bool is_damaged;                     /* a line of it was refused: what it lacks is no news */
    struct key_origin key[SETTING_ROWS]; /* by row; used are those of the section */
};

struct config_origins {
    struct section_origins single[SETTING_SECTION_COUNT]; /* master, worker, log */
    struct section_origins **backends;                    /* owned; as many as config->backends */
    struct section_origins **routes;
};

/* ---- sections by kind and number ----------------------------------------------------------- */

/* 1 for master, worker and log. */
size_t config_section_count(const struct config *config, enum setting_section section);
/* The settings struct, the NAME (NULL where there are none) and the origins of one section. */
const void *config_section(const struct config *config, enum setting_section section, size_t index);
const char *config_section_name_of(const struct config *config, enum setting_section section,
                                   size_t index);
struct section_origins *config_section_origins(const struct config *config,
                                               enum setting_section section, size_t index);
/* The same, to be filled while loading. */
void *config_section_mutable(struct config *config, enum setting_section section, size_t index);
/* Index of [section:name], or the section count when there is none. */
size_t config_section_find(const struct config *config, enum setting_section section,
                           const char *name);
/* Appends [section:name] with its default values and returns its index. */
size_t config_section_add(struct config *config, enum setting_section section, const char *name);
/* NULL, or why name is no NAME of a section; static. */
const char *config_section_name_error(const char *name);

/* A config with nothing but defaults. */
struct config *config_new(void);
/* Stores where a value (its next item) came from; a list keeps one place per item. */
void config_add_origin(struct section_origins *origins, size_t row, enum config_layer layer,
                       const char *place);
/* Forgets the value's places. */
void config_clear_origin(struct section_origins *origins, size_t row);
/* Where item of row came from; "default" when nobody gave it. */
const char *config_item_origin(const struct section_origins *origins, size_t row, size_t item);
/* Adds "[backend:api]". */
void config_print_section(enum setting_section section, const char *name, struct buf *out);

/* ---- errors -------------------------------------------------------------------------------- */

/* Adds "PLACE: [section:name] key: message", or "--flag: message": a flag and a variable name
 * their key themselves. place and key may be NULL. */
void config_report(struct config_errors *errors, enum config_layer layer, const char *place,
                   enum setting_section section, const char *name, const char *key,
                   const char *message);

/* All that one setting alone cannot show to be wrong; needs_route: also that nothing is served. */
void config_check(const struct config *config, bool needs_route, struct config_errors *errors);

#define CONFIG_NOTHING_TO_SERVE                                                                    \
    "nothing to serve; give a settings file with -c FILE, or --static FOLDER, --backend ADDRESS "  \
    "or --app COMMAND"

/* ---- flags --------------------------------------------------------------------------------- */

enum flag_kind {
    FLAG_SETTING = 0, /* of a row */
    FLAG_CONFIG,
    FLAG_STATIC,
    FLAG_BACKEND,
    FLAG_APP,
    FLAG_HELP,
    FLAG_SHOW_VERSION,
    FLAG_CHECK,
    FLAG_PRINT,
    FLAG_KIND_COUNT
};

struct flag {
    enum flag_kind kind;
    size_t row;        /* FLAG_SETTING */
    char name[64];     /* "--workers", also when -w was given */
    const char *value; /* borrowed from argv; NULL where the flag takes none */
};

/* Reads the flag at argv[*position] and moves *position behind it. False at the end, or when it is
 * wrong: then *ret_error is a sentence, the caller's. */
bool config_next_flag(const struct config_args *args, int *position, struct flag *ret_flag,
                      char **ret_error);
