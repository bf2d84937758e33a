/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a struct config: made from defaults, filled by the settings file, the environment
 * and the flags in this order, checked, and then never changed (but for the scoreboard records
 * that the master adds before anyone else sees it). Beside every value its origin is kept, for
 * --print-config and for errors. Runs in the master; a worker uses only what config_image.c needs.
 *
 * Relative paths: in the file they are relative to the file's own folder, elsewhere to the folder
 * the master runs in. The master never changes its folder, so a reload finds args->path again.
 */
#include "config/config.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/config_private.h"
#include "config/ini_source.h"
#include "config/nearest.h"
#include "config/setting.h"

/* More is no help to anyone, and a file of garbage must not fill the memory with errors. */
#define ERRORS_MAX 500

/* ---- errors -------------------------------------------------------------------------------- */

void
config_errors_add(struct config_errors *errors, const char *format, ...)
{
    struct buf message = {0};
    va_list args;
    va_list again;

    if (errors->count >= ERRORS_MAX) {
        return;
    }
    if (errors->count == ERRORS_MAX - 1) {
        buf_addf(&message, "there are more than %d errors; the rest is not listed", ERRORS_MAX - 1);
    } else {
        va_start(args, format);
        va_copy(again, args);
        int length = vsnprintf(NULL, 0, format, args);
        va_end(args);
        CHECK(length >= 0);
        char *text = buf_reserve(&message, (size_t)length);
        (void)vsnprintf(text, (size_t)length + 1, format, again);
        va_end(again);
        /* Texts of the file come here, such as the name of an unknown section with its tabs. */
        for (char *c = text; *c != '\0'; c++) {
            if ((unsigned char)*c < 0x20 || *c == 0x7f) {
                *c = '?';
            }
        }
    }
    errors->item = xrealloc(errors->item, (errors->count + 1) * sizeof(*errors->item));
    errors->item[errors->count++] = buf_take(&message);
}

void
config_errors_release(struct config_errors *errors)
{
    for (size_t i = 0; i < errors->count; i++) {
        free(errors->item[i]);
    }
    free(errors->item);
    *errors = (struct config_errors){0};
}

void
config_report(struct config_errors *errors, enum config_layer layer, const char *place,
              enum setting_section section, const char *name, const char *key, const char *message)
{
    struct buf text = {0};

    if (place != NULL) {
        buf_addf(&text, "%s: ", place);
    }
    if (layer == LAYER_FILE || layer == LAYER_DEFAULT) {
        config_print_section(section, name, &text);
        buf_addf(&text, "%s%s: ", key == NULL ? "" : " ", key == NULL ? "" : key);
    }
    buf_add_text(&text, message);
    config_errors_add(errors, "%s", text.ptr);
    buf_release(&text);
}

/* ---- sections ------------------------------------------------------------------------------ */

size_t
config_section_count(const struct config *config, enum setting_section section)
{
    return section == SETTING_BACKEND ? config->backend_count
           : section == SETTING_ROUTE ? config->route_count
                                      : 1;
}

const void *
config_section(const struct config *config, enum setting_section section, size_t index)
{
    CHECK(index < config_section_count(config, section));
    switch (section) {
    case SETTING_MASTER:
        return &config->master;
    case SETTING_WORKER:
        return &config->worker;
    case SETTING_LOG:
        return &config->log;
    case SETTING_BACKEND:
        return &config->backends[index];
    case SETTING_ROUTE:
        return &config->routes[index];
    case SETTING_SECTION_COUNT:
        break;
    }
    CHECK(section < SETTING_SECTION_COUNT);
    return NULL;
}

void *
config_section_mutable(struct config *config, enum setting_section section, size_t index)
{
    CHECK(index < config_section_count(config, section));
    switch (section) {
    case SETTING_MASTER:
        return &config->master;
    case SETTING_WORKER:
        return &config->worker;
    case SETTING_LOG:
        return &config->log;
    case SETTING_BACKEND:
        return &config->backends[index];
    case SETTING_ROUTE:
        return &config->routes[index];
    case SETTING_SECTION_COUNT:
        break;
    }
    CHECK(section < SETTING_SECTION_COUNT);
    return NULL;
}

const char *
config_section_name_of(const struct config *config, enum setting_section section, size_t index)
{
    return section == SETTING_BACKEND ? config->backends[index].name
           : section == SETTING_ROUTE ? config->routes[index].name
                                      : NULL;
}

struct section_origins *
config_section_origins(const struct config *config, enum setting_section section, size_t index)
{
    return section == SETTING_BACKEND ? config->origins->backends[index]
           : section == SETTING_ROUTE ? config->origins->routes[index]
                                      : &config->origins->single[section];
}

size_t
config_section_find(const struct config *config, enum setting_section section, const char *name)
{
    size_t count = config_section_count(config, section);
    size_t index = 0;

    while (index < count && strcmp(config_section_name_of(config, section, index), name) != 0) {
        index++;
    }
    return index;
}

size_t
config_section_add(struct config *config, enum setting_section section, const char *name)
{
    size_t index = config_section_count(config, section);
    size_t size = index + 1;
    struct config_origins *origins = config->origins;

    if (section == SETTING_BACKEND) {
        config->backends = xrealloc(config->backends, size * sizeof(*config->backends));
        config->backends[index] = (struct backend_settings){.name = xstrdup(name)};
        config->backend_count = size;
        origins->backends = xrealloc(origins->backends, size * sizeof(struct section_origins *));
        origins->backends[index] = xcalloc(1, sizeof(struct section_origins));
    } else {
        CHECK(section == SETTING_ROUTE);
        config->routes = xrealloc(config->routes, size * sizeof(*config->routes));
        config->routes[index] = (struct route_settings){.name = xstrdup(name)};
        config->route_count = size;
        origins->routes = xrealloc(origins->routes, size * sizeof(struct section_origins *));
        origins->routes[index] = xcalloc(1, sizeof(struct section_origins));
    }
    setting_init_section(section, config_section_mutable(config, section, index));
    return index;
}

const char *
config_section_name_error(const char *name)
{
    size_t length = strlen(name);

    if (length == 0 || length > CONFIG_NAME_MAX ||
        name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-")] != '\0') {
        return "the name must be 1 to 32 characters of a-z, 0-9, '_' and '-'";
    }
    return NULL;
}

void
config_print_section(enum setting_section section, const char *name, struct buf *out)
{
    buf_addf(out, "[%s%s%s]", setting_section_name(section), name == NULL ? "" : ":",
             name == NULL ? "" : name);
}

/* ---- origins ------------------------------------------------------------------------------- */

void
config_clear_origin(struct section_origins *origins, size_t row)
{
    struct key_origin *origin = &origins->key[row];

    value_release(VALUE_TEXTS, &origin->place);
    *origin = (struct key_origin){0};
}

void
config_add_origin(struct section_origins *origins, size_t row, enum config_layer layer,
                  const char *place)
{
    struct key_origin *origin = &origins->key[row];
    struct text_list *list = &origin->place;

    origin->layer = layer;
    list->item = xrealloc(list->item, (list->count + 1) * sizeof(*list->item));
    list->item[list->count++] = xstrdup(place);
}

const char *
config_item_origin(const struct section_origins *origins, size_t row, size_t item)
{
    const struct text_list *list = &origins->key[row].place;

    if (list->count == 0) {
        return "default";
    }
    return list->item[item < list->count ? item : 0];
}

const char *
config_origin(const struct config *config, const char *section, const char *name, const char *key)
{
    for (enum setting_section kind = 0; kind < SETTING_SECTION_COUNT; kind++) {
        if (strcmp(setting_section_name(kind), section) != 0) {
            continue;
        }
        size_t row = setting_find(kind, key);
        size_t index = name == NULL ? 0 : config_section_find(config, kind, name);
        if (row < SETTING_ROWS && index < config_section_count(config, kind)) {
            return config_item_origin(config_section_origins(config, kind, index), row, 0);
        }
    }
    return "default";
}

static void
origins_release(struct section_origins *origins)
{
    free(origins->place);
    for (size_t row = 0; row < SETTING_ROWS; row++) {
        config_clear_origin(origins, row);
    }
}

/* ---- lifecycle ----------------------------------------------------------------------------- */

struct config *
config_new(void)
{
    struct config *config = xcalloc(1, sizeof(*config));

    config->origins = xcalloc(1, sizeof(*config->origins));
    setting_init_section(SETTING_MASTER, &config->master);
    setting_init_section(SETTING_WORKER, &config->worker);
    setting_init_section(SETTING_LOG, &config->log);
    return config;
}

void
config_free(struct config *config)
{
    if (config == NULL) {
        return;
    }
    for (enum setting_section section = 0; section < SETTING_SECTION_COUNT; section++) {
        for (size_t i = 0; i < config_section_count(config, section); i++) {
            struct section_origins *origins = config_section_origins(config, section, i);
            setting_release_section(section, config_section_mutable(config, section, i));
            origins_release(origins);
            if (setting_section_is_named(section)) {
                free(origins);
            }
        }
    }
    for (size_t i = 0; i < config->backend_count; i++) {
        free(config->backends[i].name);
        free(config->backends[i].records);
    }
    for (size_t i = 0; i < config->route_count; i++) {
        free(config->routes[i].name);
    }
    free(config->backends);
    free(config->routes);
    free(config->path);
    free(config->origins->backends);
    free(config->origins->routes);
    free(config->origins);
    free(config);
}

void
config_set_records(struct backend_settings *backend, const uint32_t *records, uint32_t count)
{
    free(backend->records);
    backend->records = count == 0 ? NULL : xcalloc(count, sizeof(*records));
    backend->record_count = count;
    if (count > 0) {
        memcpy(backend->records, records, count * sizeof(*records));
    }
}

/* ---- loading ------------------------------------------------------------------------------- */

struct loader {
    struct config *config;
    struct config_errors *errors;
    const char *path;  /* of the settings file, as it was given */
    char *file_folder; /* owned, absolute; NULL without a file */
    char *folder;      /* owned; the master's own; NULL when it cannot be told */
    bool has_begun;    /* the first section was seen */
    bool has_section;  /* false: before the first section and in one that was refused */
    enum setting_section section;
    size_t index;
};

/* What is given for a section and where. */
struct given {
    enum config_layer layer;
    const char *place;
    const char *folder;
    enum setting_section section;
    size_t index;
};

static void
report(struct loader *loader, const struct given *given, const char *key, const char *message)
{
    config_section_origins(loader->config, given->section, given->index)->is_damaged = true;
    config_report(loader->errors, given->layer, given->place, given->section,
                  config_section_name_of(loader->config, given->section, given->index), key,
                  message);
}

/* Whether this may be said here, beside what was already said for the key in the same layer. */
static bool
judge_repetition(struct loader *loader, const struct given *given, size_t row, const char *text)
{
    const struct setting *setting = setting_at(row);
    struct section_origins *origins =
        config_section_origins(loader->config, given->section, given->index);
    struct key_origin *origin = &origins->key[row];
    const char *first = config_item_origin(origins, row, 0);
    char *message = NULL;

    if (origin->layer != given->layer || origin->place.count == 0) {
        return true;
    }
    if (!value_is_list(setting->type)) {
        message = given->layer == LAYER_FILE
                      ? xasprintf("is given twice, first at %s; keep one", first)
                      : xasprintf("is given twice; keep one");
    } else if (text[0] == '\0' || origin->is_empty) {
        message =
            given->layer == LAYER_FILE
                ? xasprintf("is given both empty and with a value, first at %s; keep one", first)
                : xasprintf("is given both empty and with a value; keep one");
    } else {
        return true;
    }
    report(loader, given, setting->key, message);
    free(message);
    return false;
}

static void
set_value(struct loader *loader, const struct given *given, size_t row, const char *text)
{
    const struct setting *setting = setting_at(row);
    void *settings = config_section_mutable(loader->config, given->section, given->index);
    struct section_origins *origins =
        config_section_origins(loader->config, given->section, given->index);

    if (!judge_repetition(loader, given, row, text)) {
        return;
    }
    if (origins->key[row].layer != given->layer) {
        config_clear_origin(origins, row);
        if (value_is_list(setting->type)) {
            value_release(setting->type, setting_field(setting, settings));
        }
    }
    char *error = setting_parse(setting, given->folder, text, settings);
    /* Also of a bad value: its place is where a second one is told to have its first. */
    config_add_origin(origins, row, given->layer, given->place);
    origins->key[row].is_empty = text[0] == '\0';
    if (error != NULL) {
        report(loader, given, setting->key, error);
        free(error);
    }
}

/* ---- the file ------------------------------------------------------------------------------ */

static void
on_file_error(void *user, int line, const char *message)
{
    struct loader *loader = user;

    if (line == 0) {
        config_errors_add(loader->errors, "%s: %s", loader->path, message);
        return;
    }
    if (loader->has_section) {
        config_section_origins(loader->config, loader->section, loader->index)->is_damaged = true;
    }
    config_errors_add(loader->errors, "%s:%d: %s", loader->path, line, message);
}

static void
report_unknown_section(struct loader *loader, const char *name, int line)
{
    struct nearest nearest = {.text = name};
    struct buf message = {0};
    char *kind = xstrndup(name, strcspn(name, ":"));

    buf_addf(&message, "unknown section [%s]; ", name);
    for (enum setting_section section = 0; section < SETTING_SECTION_COUNT; section++) {
        const char *known = setting_section_name(section);
        if (strcmp(known, kind) == 0) { /* [backend] without, or [master:x] with a NAME */
            nearest.name = known;
            break;
        }
        nearest.text = setting_section_is_named(section) ? kind : name;
        nearest_offer(&nearest, known);
    }
    if (nearest.name == NULL) {
        buf_add_text(&message,
                     "allowed are [master], [worker], [log], [backend:NAME] and [route:NAME]");
    } else {
        bool is_named = strcmp(nearest.name, "backend") == 0 || strcmp(nearest.name, "route") == 0;
        const char *own_name = strchr(name, ':');
        buf_addf(&message, "did you mean [%s%s]?", nearest.name,
                 !is_named                                 ? ""
                 : own_name == NULL || own_name[1] == '\0' ? ":NAME"
                                                           : own_name);
    }
    config_errors_add(loader->errors, "%s:%d: %s", loader->path, line, message.ptr);
    buf_release(&message);
    free(kind);
}

/* Finds out which section the line [text] begins; false when there is none such. */
static bool
find_section(struct loader *loader, const char *text, int line, const char **ret_name)
{
    *ret_name = NULL;
    for (enum setting_section section = 0; section < SETTING_SECTION_COUNT; section++) {
        const char *kind = setting_section_name(section);
        size_t length = strlen(kind);
        if (strncmp(text, kind, length) != 0) {
            continue;
        }
        if (setting_section_is_named(section) ? text[length] == ':' : text[length] == '\0') {
            loader->section = section;
            *ret_name = setting_section_is_named(section) ? text + length + 1 : NULL;
            return true;
        }
    }
    report_unknown_section(loader, text, line);
    return false;
}

static void
on_file_section(void *user, const char *text, int line)
{
    struct loader *loader = user;
    const char *name;

    loader->has_begun = true;
    loader->has_section = false;
    if (text == NULL || !find_section(loader, text, line, &name)) {
        return;
    }
    enum setting_section section = loader->section;
    const char *name_error = name == NULL ? NULL : config_section_name_error(name);
    if (name_error != NULL) {
        config_errors_add(loader->errors, "%s:%d: [%s]: %s", loader->path, line, text, name_error);
        return;
    }
    size_t index = name == NULL ? 0 : config_section_find(loader->config, section, name);
    if (name != NULL && index == config_section_count(loader->config, section)) {
        if (index == CONFIG_SECTIONS_MAX) {
            config_errors_add(loader->errors,
                              "%s:%d: [%s]: is one too many; at most %d sections [%s:NAME] are "
                              "allowed",
                              loader->path, line, text, CONFIG_SECTIONS_MAX,
                              setting_section_name(section));
            return;
        }
        (void)config_section_add(loader->config, section, name);
    }
    struct section_origins *origins = config_section_origins(loader->config, section, index);
    if (origins->place != NULL) {
        config_errors_add(loader->errors,
                          "%s:%d: [%s]: is there twice, first at %s; put its keys together",
                          loader->path, line, text, origins->place);
    } else {
        origins->place = xasprintf("%s:%d", loader->path, line);
        origins->layer = LAYER_FILE;
    }
    loader->index = index;
    loader->has_section = true;
}

static void
report_unknown_key(struct loader *loader, const char *key, int line)
{
    struct nearest nearest = {.text = key};
    struct buf message = {0};
    const char *other_section = NULL;

    for (size_t row = 0; row < SETTING_ROWS; row++) {
        const struct setting *setting = setting_at(row);
        if (setting->section == loader->section) {
            nearest_offer(&nearest, setting->key);
        } else if (strcmp(setting->key, key) == 0) {
            other_section = setting_section_name(setting->section);
        }
    }
    config_section_origins(loader->config, loader->section, loader->index)->is_damaged = true;
    buf_addf(&message, "%s:%d: ", loader->path, line);
    config_print_section(loader->section,
                         config_section_name_of(loader->config, loader->section, loader->index),
                         &message);
    buf_add_text(&message, " unknown key ");
    value_quote(key, &message);
    if (other_section != NULL) {
        buf_addf(&message, "; it belongs into [%s%s]", other_section,
                 strcmp(other_section, "backend") == 0 || strcmp(other_section, "route") == 0
                     ? ":NAME"
                     : "");
    } else if (nearest.name != NULL) {
        buf_addf(&message, "; did you mean \"%s\"?", nearest.name);
    } else {
        buf_add_text(&message, "; allowed are");
        const char *separator = " ";
        for (size_t row = 0; row < SETTING_ROWS; row++) {
            if (setting_at(row)->section == loader->section) {
                buf_addf(&message, "%s%s", separator, setting_at(row)->key);
                separator = ", ";
            }
        }
    }
    config_errors_add(loader->errors, "%s", message.ptr);
    buf_release(&message);
}

static void
on_file_value(void *user, const char *section, const char *key, const char *value, int line)
{
    struct loader *loader = user;

    (void)section; /* loader->section and index say the same and more */
    if (!loader->has_begun) {
        struct buf quoted = {0};
        value_quote(key, &quoted);
        config_errors_add(loader->errors,
                          "%s:%d: the key %s stands before the first section; put [master] or "
                          "another section above it",
                          loader->path, line, quoted.ptr);
        buf_release(&quoted);
        return;
    }
    if (!loader->has_section) {
        return; /* its section was refused, and that was told */
    }
    size_t row = setting_find(loader->section, key);
    if (row == SETTING_ROWS) {
        report_unknown_key(loader, key, line);
        return;
    }
    char *place = xasprintf("%s:%d", loader->path, line);
    struct given given = {LAYER_FILE, place, loader->file_folder, loader->section, loader->index};
    set_value(loader, &given, row, value);
    free(place);
}

static int
load_file(struct loader *loader)
{
    static const struct ini_source_events events = {
        .on_section = on_file_section, .on_value = on_file_value, .on_error = on_file_error};
    const char *slash = strrchr(loader->path, '/');
    int length = slash == NULL ? 0 : (int)(slash - loader->path);

    if (loader->path[0] == '/') {
        loader->file_folder = xasprintf("%.*s/", length, loader->path);
    } else if (loader->folder != NULL) {
        loader->file_folder = xasprintf("%s/%.*s", loader->folder, length, loader->path);
    }
    return ini_source_read(loader->path, &events, loader);
}

/* ---- the environment ----------------------------------------------------------------------- */

#define VARIABLE_PREFIX "NARWHAL_"

/* Blanks around a value count as little as in the file. */
static char *
trim(const char *text, size_t length)
{
    while (length > 0 && (text[0] == ' ' || text[0] == '\t')) {
        text++;
        length--;
    }
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t')) {
        length--;
    }
    return xstrndup(text, length);
}

static void
report_unknown_variable(struct loader *loader, const char *name)
{
    struct nearest nearest = {.text = name + strlen(VARIABLE_PREFIX)};
    struct buf names[SETTING_ROWS] = {{0}};
    struct buf quoted = {0};

    for (size_t row = 0; row < SETTING_ROWS; row++) {
        if (!setting_section_is_named(setting_at(row)->section)) {
            setting_print_variable(setting_at(row), &names[row]);
            nearest_offer(&nearest, names[row].ptr);
        }
    }
    value_quote(name, &quoted);
    config_errors_add(loader->errors, "unknown environment variable %s; %s%s%s", quoted.ptr,
                      nearest.name == NULL ? "names that begin with " VARIABLE_PREFIX
                                             " are for settings, see --help"
                                           : "did you mean \"" VARIABLE_PREFIX,
                      nearest.name == NULL ? "" : nearest.name, nearest.name == NULL ? "" : "\"?");
    for (size_t row = 0; row < SETTING_ROWS; row++) {
        buf_release(&names[row]);
    }
    buf_release(&quoted);
}

/* Kubernetes gives every container variables about the services of its namespace, named after the
 * service: NARWHAL_SERVICE_HOST, NARWHAL_PORT, NARWHAL_PORT_80_TCP_ADDR … for one called narwhal.
 * They are nobody's typing errors. */
static bool
is_service_link(const char *name)
{
    size_t length = strlen(name);
    static const char host[] = "_SERVICE_HOST";
    static const char port[] = "_PORT";

    if (strstr(name, "_SERVICE_PORT") != NULL || strstr(name, "_PORT_") != NULL) {
        return true;
    }
    return (length >= sizeof(host) - 1 && strcmp(name + length - (sizeof(host) - 1), host) == 0) ||
           (length >= sizeof(port) - 1 && strcmp(name + length - (sizeof(port) - 1), port) == 0);
}

static void
load_variable(struct loader *loader, const char *name, const char *text)
{
    size_t row = setting_find_variable(name + strlen(VARIABLE_PREFIX));

    if (row == SETTING_ROWS) {
        if (!is_service_link(name)) {
            report_unknown_variable(loader, name);
        }
        return;
    }
    struct given given = {LAYER_ENVIRONMENT, name, loader->folder, setting_at(row)->section, 0};
    if (!value_is_list(setting_at(row)->type)) {
        char *value = trim(text, strlen(text));
        set_value(loader, &given, row, value);
        free(value);
        return;
    }
    for (;;) {
        size_t length = strcspn(text, ",");
        char *value = trim(text, length);
        set_value(loader, &given, row, value);
        free(value);
        if (text[length] == '\0') {
            break;
        }
        text += length + 1;
    }
}

static void
load_environment(struct loader *loader, char *const *envp)
{
    for (; envp != NULL && *envp != NULL; envp++) {
        const char *equals = strchr(*envp, '=');
        if (strncmp(*envp, VARIABLE_PREFIX, strlen(VARIABLE_PREFIX)) == 0 && equals != NULL) {
            char *name = xstrndup(*envp, (size_t)(equals - *envp));
            load_variable(loader, name, equals + 1);
            free(name);
        }
    }
}

/* ---- flags --------------------------------------------------------------------------------- */

#define SYNTHESISED_NAME "default"

static size_t
synthesise_section(struct loader *loader, enum setting_section section, const char *flag_name)
{
    size_t index = config_section_find(loader->config, section, SYNTHESISED_NAME);

    if (index == config_section_count(loader->config, section)) {
        struct section_origins *origins;
        (void)config_section_add(loader->config, section, SYNTHESISED_NAME);
        origins = config_section_origins(loader->config, section, index);
        origins->place = xstrdup(flag_name);
        origins->layer = LAYER_FLAG;
    }
    return index;
}

static void
synthesise(struct loader *loader, const char *flag_name, enum setting_section section,
           const char *key, const char *text)
{
    struct given given = {LAYER_FLAG, flag_name, loader->folder, section,
                          synthesise_section(loader, section, flag_name)};

    if (text[0] == '\0') {
        report(loader, &given, key, "must not be empty");
        return;
    }
    set_value(loader, &given, setting_find(section, key), text);
}

/* --backend and --app: a route for everything to one backend. */
static void
synthesise_backend(struct loader *loader, const char *flag_name, const char *key, const char *text)
{
    size_t route_count = loader->config->route_count;

    synthesise(loader, flag_name, SETTING_BACKEND, key, text);
    if (route_count == 0) {
        synthesise(loader, flag_name, SETTING_ROUTE, "path", "/");
        synthesise(loader, flag_name, SETTING_ROUTE, "backend", SYNTHESISED_NAME);
    }
}

static void
load_flag(struct loader *loader, const struct flag *flag)
{
    char *value = flag->value == NULL ? NULL : trim(flag->value, strlen(flag->value));

    switch (flag->kind) {
    case FLAG_SETTING: {
        struct given given = {LAYER_FLAG, flag->name, loader->folder,
                              setting_at(flag->row)->section, 0};
        set_value(loader, &given, flag->row, value);
        break;
    }
    case FLAG_STATIC:
        synthesise(loader, flag->name, SETTING_ROUTE, "path", "/");
        synthesise(loader, flag->name, SETTING_ROUTE, "static", value);
        break;
    case FLAG_BACKEND:
        synthesise_backend(loader, flag->name, "server", value);
        break;
    case FLAG_APP:
        synthesise_backend(loader, flag->name, "command", value);
        break;
    case FLAG_CONFIG:
    case FLAG_HELP:
    case FLAG_SHOW_VERSION:
    case FLAG_CHECK:
    case FLAG_PRINT:
    case FLAG_KIND_COUNT:
        break; /* not settings */
    }
    free(value);
}

static void
load_flags(struct loader *loader, const struct config_args *args)
{
    int position = 1;
    struct flag flag;
    char *usage_error;

    while (config_next_flag(args, &position, &flag, &usage_error)) {
        load_flag(loader, &flag);
    }
    if (usage_error != NULL) {
        config_errors_add(loader->errors, "%s", usage_error);
        free(usage_error);
    }
}

/* ---- all ----------------------------------------------------------------------------------- */

/* Line of an error of the file at path; what has no line comes last. */
static unsigned long
error_line(const char *path, const char *error)
{
    size_t length = path == NULL ? 0 : strlen(path);

    if (path == NULL || strncmp(error, path, length) != 0 || error[length] != ':') {
        return (unsigned long)-1;
    }
    unsigned long line = strtoul(error + length + 1, NULL, 10);
    return line;
}

/* Into the order of the file; stable. Checks across settings run after all lines were read. */
static void
sort_errors(const char *path, struct config_errors *errors)
{
    for (size_t i = 1; i < errors->count; i++) {
        char *error = errors->item[i];
        unsigned long line = error_line(path, error);
        size_t j = i;
        for (; j > 0 && error_line(path, errors->item[j - 1]) > line; j--) {
            errors->item[j] = errors->item[j - 1];
        }
        errors->item[j] = error;
    }
}

struct config *
config_load(const struct config_args *args, struct config_errors *errors)
{
    struct loader loader = {.config = config_new(),
                            .errors = errors,
                            .path = args->path,
                            .folder = getcwd(NULL, 0),
                            .section = SETTING_SECTION_COUNT};
    bool is_readable = true;

    if (args->path != NULL) {
        loader.config->path = xstrdup(args->path);
        is_readable = load_file(&loader) == 0;
    }
    load_environment(&loader, args->envp);
    load_flags(&loader, args);
    if (is_readable) {
        /* --print-config also shows what there is before the first route is written. */
        config_check(loader.config, args->command != CONFIG_PRINT, errors);
    }
    sort_errors(args->path, errors);
    free(loader.folder);
    free(loader.file_folder);
    if (errors->count > 0) {
        config_free(loader.config);
        return NULL;
    }
    return loader.config;
}
