/* SPDX-License-Identifier: Apache-2.0
 *
 * struct config: all settings, checked, immutable once loaded. Loading never exits, logs or opens
 * a socket: what is wrong comes back as a list of errors, all of them at once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "config/base/log.h"
#include "config/value.h"

/* ---- the structs that settings.def generates: struct settings_MASTER, … --------------------- */
#define SETTING_FIELD_COUNT(key) int64_t key;
#define SETTING_FIELD_WORKERS(key) int64_t key; /* 0 = auto */
#define SETTING_FIELD_DURATION(key) int64_t key##_ms;
#define SETTING_FIELD_SIZE(key) int64_t key##_bytes;
#define SETTING_FIELD_BOOL(key) bool key;
#define SETTING_FIELD_TEXT(key) char *key;
#define SETTING_FIELD_PATH(key) char *key##_path;
#define SETTING_FIELD_LEVEL(key) enum log_level key;
#define SETTING_FIELD_BALANCE(key) enum balance key;
#define SETTING_FIELD_LISTEN(key) enum listen_mode key;
#define SETTING_FIELD_PROXY(key) enum proxy_version key;
#define SETTING_FIELD_TOLD(key) enum told_by key;
#define SETTING_FIELD_SANDBOX(key) enum sandbox_mode key;
#define SETTING_FIELD_OCTAL(key) int64_t key;
#define SETTING_FIELD_NETWORKS(key) struct network_list key;
#define SETTING_FIELD_TARGET(key) struct log_target key;
#define SETTING_FIELD_ADDRESSES(key) struct address_list key;
#define SETTING_FIELD_SERVERS(key) struct server_list key;
#define SETTING_FIELD_TEXTS(key) struct text_list key;
#define SETTING_FIELD_PATTERN(key) struct path_pattern key;
#define SETTING_FIELD_REDIRECT(key) struct redirect key;
#define SETTING_FIELD_RESPOND(key) struct respond key;

/* A struct per section takes only the rows of that section: the rows of the others expand to
 * nothing through the SETTING_IN_x_y pairs. */
#define SETTING_IN(wanted, section, field) SETTING_IN_##wanted##_##section(field)
#define SETTING_IN_MASTER_MASTER(field) field
#define SETTING_IN_MASTER_WORKER(field)
#define SETTING_IN_MASTER_LOG(field)
#define SETTING_IN_MASTER_BACKEND(field)
#define SETTING_IN_MASTER_ROUTE(field)
#define SETTING_IN_WORKER_MASTER(field)
#define SETTING_IN_WORKER_WORKER(field) field
#define SETTING_IN_WORKER_LOG(field)
#define SETTING_IN_WORKER_BACKEND(field)
#define SETTING_IN_WORKER_ROUTE(field)
#define SETTING_IN_LOG_MASTER(field)
#define SETTING_IN_LOG_WORKER(field)
#define SETTING_IN_LOG_LOG(field) field
#define SETTING_IN_LOG_BACKEND(field)
#define SETTING_IN_LOG_ROUTE(field)
#define SETTING_IN_BACKEND_MASTER(field)
#define SETTING_IN_BACKEND_WORKER(field)
#define SETTING_IN_BACKEND_LOG(field)
#define SETTING_IN_BACKEND_BACKEND(field) field
#define SETTING_IN_BACKEND_ROUTE(field)
#define SETTING_IN_ROUTE_MASTER(field)
#define SETTING_IN_ROUTE_WORKER(field)
#define SETTING_IN_ROUTE_LOG(field)
#define SETTING_IN_ROUTE_BACKEND(field)
#define SETTING_IN_ROUTE_ROUTE(field) field

struct master_settings {
#define SETTING(section, key, type, ...) SETTING_IN(MASTER, section, SETTING_FIELD_##type(key))
#include "config/settings.def"
};

struct worker_settings {
#define SETTING(section, key, type, ...) SETTING_IN(WORKER, section, SETTING_FIELD_##type(key))
#include "config/settings.def"
};

struct log_settings {
#define SETTING(section, key, type, ...) SETTING_IN(LOG, section, SETTING_FIELD_##type(key))
#include "config/settings.def"
};

struct backend_settings {
    char *name; /* owned; "api" of [backend:api] */
#define SETTING(section, key, type, ...) SETTING_IN(BACKEND, section, SETTING_FIELD_##type(key))
#include "config/settings.def"
    /* Records of the scoreboard that stand for the servers of this backend: one per server=, in
     * that order, or two per instance of command=. The master assigns them after loading
     * (config_set_records); they travel in the image. */
    uint32_t record_count;
    uint32_t *records; /* owned */
};

struct route_settings {
    char *name; /* owned */
#define SETTING(section, key, type, ...) SETTING_IN(ROUTE, section, SETTING_FIELD_##type(key))
#include "config/settings.def"
};

enum reload_class { RELOAD_LIVE = 0, RELOAD_WORKERS, RELOAD_RESTART };

/* ---- the whole ----------------------------------------------------------------------------- */
struct config {
    struct master_settings master;
    struct worker_settings worker;
    struct log_settings log;
    size_t backend_count;
    struct backend_settings *backends; /* owned; in file order */
    size_t route_count;
    struct route_settings *routes;  /* owned; in file order */
    char *path;                     /* owned; the settings file, NULL without one */
    struct config_origins *origins; /* owned; where each value came from; opaque, config.c */
};

/* Everything wrong with the settings, in the order of the file. */
struct config_errors {
    size_t count;
    char **item; /* owned; each a whole sentence that begins with FILE:LINE: or the flag's name */
};
void config_errors_add(struct config_errors *errors, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void config_errors_release(struct config_errors *errors);

/* What the command line asked for. config_args_parse() borrows argv. */
enum config_command {
    CONFIG_RUN = 0,
    CONFIG_HELP,
    CONFIG_SHOW_VERSION,
    CONFIG_CHECK, /* --check-config */
    CONFIG_PRINT, /* --print-config */
    CONFIG_USAGE_ERROR
};

struct config_args {
    enum config_command command;
    int argc;
    char *const *argv;
    char *const *envp;
    const char *path;  /* -c FILE, --config FILE, or NULL */
    char *usage_error; /* owned; with CONFIG_USAGE_ERROR: what is wrong, a whole sentence */
};

/* Reads flags (--key value, --key=value); does not look at values yet. */
void config_args_parse(struct config_args *ret_args, int argc, char *const *argv,
                       char *const *envp);
void config_args_release(struct config_args *args);

/* Loads defaults < file < environment < flags, and checks all of it, also across settings (routes
 * name existing backends, static roots exist and are folders, one action per route …). With
 * CONFIG_PRINT there need be no route. Relative paths of flags and variables, args->path among
 * them, are relative to the process's folder: a master that reloads must not have changed it.
 * Returns NULL and fills errors when anything is wrong; errors must start zeroed. May be called
 * again with the same args: a reload. */
struct config *config_load(const struct config_args *args, struct config_errors *errors);
void config_free(struct config *config);

/* How connection_memory is divided. A connection at its worst holds all of it at once: an
 * unfinished or waiting head in a buffer that grew by doubling; another head, kept while it is
 * answered, with its path and the tables of the parser; the head rewritten for a server; one read
 * of either side; and what waits for the client. */
struct connection_memory {
    int64_t least_bytes; /* what connection_memory must be, for these limits of the head */
    int64_t read_bytes;  /* one read of a socket */
    int64_t queue_bytes; /* that wait for the client, before the backend is no longer read */
};
struct connection_memory config_connection_memory(const struct worker_settings *settings);

/* Stores the scoreboard records of a backend; copies the array. */
void config_set_records(struct backend_settings *backend, const uint32_t *records, uint32_t count);

/* Where the value of a key comes from: "default", "narwhal.ini:12", "NARWHAL_WORKERS",
 * "--workers". name is the NAME of a named section, else NULL. The text is the config's. */
const char *config_origin(const struct config *config, const char *section, const char *name,
                          const char *key);

/* Writes the settings as the user would write them, each with its origin (--print-config). */
void config_print(const struct config *config, FILE *out);
/* The text of --help. */
void config_print_help(FILE *out);

/* ---- reload -------------------------------------------------------------------------------- */
struct config_change {
    enum reload_class reload;
    char *text; /* owned; "[worker] keepalive: 75s -> 10s", "[route:x] added" */
};
struct config_diff {
    size_t count;
    struct config_change *item;  /* owned */
    enum reload_class strongest; /* meaningless when count is 0 */
};
void config_diff(const struct config *before, const struct config *after,
                 struct config_diff *ret_diff);
void config_diff_release(struct config_diff *diff);

/* ---- image --------------------------------------------------------------------------------- */
/* Writes the checked settings into a new sealed memfd (memfd_create(2), F_SEAL_*), which is how
 * workers receive them. Returns the descriptor, the caller's, or a negative errno. */
int config_write_image(const struct config *config);
/* Reads an image; does not take the descriptor. NULL when it is not one of this version; the
 * reason is then in error (size ERROR_MAX). Checks nothing that needs the file system again. */
#define CONFIG_IMAGE_ERROR_MAX 160
struct config *config_read_image(int fd, char error[CONFIG_IMAGE_ERROR_MAX]);
