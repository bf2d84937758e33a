/* SPDX-License-Identifier: Apache-2.0
 *
 * The settings as bytes, for workers: the master writes them into a sealed memfd, a worker reads
 * them back. A header, then records of one kind byte each, in the byte order of the machine (both
 * ends run on it):
 *
 *   'P' text                          the settings file
 *   'S' section u8, text name         a section begins; its values follow
 *   'V' row u16, text place, text     a value (an item of a list); text as a settings file has it
 *   'R' count u32, count times u32    scoreboard records of the backend that began last
 *   'E'                               the end
 *
 * A text is a u32 length and its bytes. Only values that somebody gave are there; the rest are the
 * defaults of the table, and the hash of the table in the header makes sure that both ends have
 * the same. The reader trusts nothing: a length is checked before it is used, a value goes
 * through the parser that read it first.
 */
#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/config_private.h"
#include "config/setting.h"

#define IMAGE_MAGIC "NWCONFIG"
#ifndef IMAGE_VERSION /* a test builds another one */
#define IMAGE_VERSION 1
#endif
/* A file of 1 MiB, its places, and the records of all backends are far below. */
#define IMAGE_BYTES_MAX (64 * 1024 * 1024)
/* More scoreboard records than any backend has servers or instances. */
#define IMAGE_RECORDS_MAX 65536

struct image_header {
    char magic[8];
    uint32_t version;
    uint32_t reserved;
    uint64_t table_hash;
    uint64_t length; /* of the whole image */
};

enum image_record {
    IMAGE_PATH = 'P',
    IMAGE_SECTION = 'S',
    IMAGE_VALUE = 'V',
    IMAGE_RECORDS = 'R',
    IMAGE_END = 'E'
};

/* FNV-1a: not against forgery, only to tell tables apart. */
static uint64_t
hash_text(uint64_t hash, const char *text)
{
    for (; *text != '\0'; text++) {
        hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    }
    return (hash ^ 0xff) * UINT64_C(0x100000001b3); /* a byte that no text holds, between texts */
}

static uint64_t
table_hash(void)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t row = 0; row < SETTING_ROWS; row++) {
        const struct setting *setting = setting_at(row);
        char numbers[96];
        (void)snprintf(numbers, sizeof(numbers), "%d %d %lld %lld", (int)setting->section,
                       (int)setting->type, (long long)setting->min, (long long)setting->max);
        hash = hash_text(hash, setting->key);
        hash = hash_text(hash, setting->default_text);
        hash = hash_text(hash, numbers);
    }
    return hash;
}

/* ---- writing ------------------------------------------------------------------------------- */

static void
add_u8(struct buf *out, unsigned int value)
{
    uint8_t byte = (uint8_t)value;

    buf_add(out, &byte, sizeof(byte));
}

static void
add_u32(struct buf *out, size_t value)
{
    uint32_t word = (uint32_t)value;

    CHECK(value <= UINT32_MAX);
    buf_add(out, &word, sizeof(word));
}

static void
add_text(struct buf *out, const char *text)
{
    size_t length = strlen(text);

    add_u32(out, length);
    buf_add(out, text, length);
}

static void
add_value(struct buf *out, size_t row, const char *place, const char *text)
{
    uint16_t number = (uint16_t)row;

    add_u8(out, IMAGE_VALUE);
    buf_add(out, &number, sizeof(number));
    add_text(out, place);
    add_text(out, text);
}

static void
add_setting(struct buf *out, const struct config *config, size_t row, size_t index)
{
    const struct setting *setting = setting_at(row);
    const struct section_origins *origins = config_section_origins(config, setting->section, index);
    const void *field =
        setting_field_const(setting, config_section(config, setting->section, index));
    size_t count = value_count(setting->type, field);

    if (origins->key[row].place.count == 0) {
        return; /* nobody gave it: the reader has the same default */
    }
    if (count == 0) {
        add_value(out, row, config_item_origin(origins, row, 0), "");
    }
    for (size_t i = 0; i < count; i++) {
        struct buf text = {0};
        value_print(setting->type, field, i, &text);
        add_value(out, row, config_item_origin(origins, row, i), text.ptr);
        buf_release(&text);
    }
}

static void
add_section(struct buf *out, const struct config *config, enum setting_section section,
            size_t index)
{
    const char *name = config_section_name_of(config, section, index);

    add_u8(out, IMAGE_SECTION);
    add_u8(out, section);
    add_text(out, name == NULL ? "" : name);
    for (size_t row = 0; row < SETTING_ROWS; row++) {
        if (setting_at(row)->section == section) {
            add_setting(out, config, row, index);
        }
    }
    if (section == SETTING_BACKEND) {
        const struct backend_settings *backend = &config->backends[index];
        add_u8(out, IMAGE_RECORDS);
        add_u32(out, backend->record_count);
        buf_add(out, backend->records, backend->record_count * sizeof(*backend->records));
    }
}

static void
print_image(const struct config *config, struct buf *out)
{
    struct image_header header = {.version = IMAGE_VERSION, .table_hash = table_hash()};

    memcpy(header.magic, IMAGE_MAGIC, sizeof(header.magic));
    buf_add(out, &header, sizeof(header));
    if (config->path != NULL) {
        add_u8(out, IMAGE_PATH);
        add_text(out, config->path);
    }
    for (enum setting_section section = 0; section < SETTING_SECTION_COUNT; section++) {
        for (size_t i = 0; i < config_section_count(config, section); i++) {
            add_section(out, config, section, i);
        }
    }
    add_u8(out, IMAGE_END);
    header.length = out->len;
    memcpy(out->ptr, &header, sizeof(header));
}

int
config_write_image(const struct config *config)
{
    struct buf bytes = {0};
    int result = 0;
    int fd = memfd_create("narwhal-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd == -1) {
        return -errno;
    }
    print_image(config, &bytes);
    if (bytes.len > IMAGE_BYTES_MAX) {
        result = -EFBIG;
    } else {
        result = fd_write_all(fd, bytes.ptr, bytes.len);
    }
    if (result == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == -1) {
        result = -errno;
    }
    buf_release(&bytes);
    if (result != 0) {
        fd_close(&fd);
        return result;
    }
    return fd;
}

/* ---- reading ------------------------------------------------------------------------------- */

struct image_reader {
    const char *next;
    size_t left;
    struct config *config;
    char *error; /* size CONFIG_IMAGE_ERROR_MAX; told once, by refuse() */
    bool has_section;
    enum setting_section section;
    size_t index;
};

__attribute__((format(printf, 2, 3))) static bool
refuse(struct image_reader *reader, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(reader->error, CONFIG_IMAGE_ERROR_MAX, format, args);
    va_end(args);
    return false;
}

static bool
take(struct image_reader *reader, void *ret_bytes, size_t size)
{
    if (reader->left < size) {
        return refuse(reader, "the image of the settings ends in the middle of a record");
    }
    memcpy(ret_bytes, reader->next, size);
    reader->next += size;
    reader->left -= size;
    return true;
}

/* The caller frees *ret_text when it is not NULL. */
static bool
take_text(struct image_reader *reader, char **ret_text)
{
    uint32_t length = 0;

    *ret_text = NULL;
    if (!take(reader, &length, sizeof(length))) {
        return false;
    }
    if (length > reader->left) {
        return refuse(reader, "the image of the settings ends in the middle of a text");
    }
    if (memchr(reader->next, '\0', length) != NULL) {
        return refuse(reader, "the image of the settings has a NUL byte in a text");
    }
    *ret_text = xstrndup(reader->next, length);
    reader->next += length;
    reader->left -= length;
    return true;
}

static bool
take_path(struct image_reader *reader)
{
    free(reader->config->path);
    return take_text(reader, &reader->config->path);
}

static bool
take_section(struct image_reader *reader)
{
    uint8_t section = 0;
    char *name;
    bool is_ok = false;

    reader->has_section = false;
    if (!take(reader, &section, sizeof(section)) || !take_text(reader, &name)) {
        return false;
    }
    if (section >= SETTING_SECTION_COUNT) {
        (void)refuse(reader, "the image of the settings has an unknown section %u", section);
    } else if (!setting_section_is_named(section)) {
        reader->index = 0;
        is_ok = name[0] == '\0' || refuse(reader, "the image names a section that has no name");
    } else if (config_section_name_error(name) != NULL ||
               config_section_count(reader->config, section) == CONFIG_SECTIONS_MAX ||
               config_section_find(reader->config, section, name) <
                   config_section_count(reader->config, section)) {
        (void)refuse(reader, "the image of the settings has a section with a bad name");
    } else {
        reader->index = config_section_add(reader->config, section, name);
        is_ok = true;
    }
    reader->section = section;
    reader->has_section = is_ok;
    free(name);
    return is_ok;
}

static bool
store_value(struct image_reader *reader, size_t row, const char *place, const char *text)
{
    const struct setting *setting = setting_at(row);
    void *settings = config_section_mutable(reader->config, reader->section, reader->index);
    struct section_origins *origins =
        config_section_origins(reader->config, reader->section, reader->index);

    if (origins->key[row].place.count == 0 && value_is_list(setting->type)) {
        value_release(setting->type, setting_field(setting, settings)); /* the default items */
    }
    /* An item per place, and the reader's memory stays a small multiple of the image. */
    if (origins->key[row].place.count > 0 &&
        (!value_is_list(setting->type) || text[0] == '\0' || origins->key[row].is_empty)) {
        return refuse(reader, "the image of the settings has %s twice", setting->key);
    }
    config_add_origin(origins, row, LAYER_FILE, place);
    origins->key[row].is_empty = text[0] == '\0';
    char *error = setting_parse(setting, NULL, text, settings);
    if (error != NULL) {
        (void)refuse(reader, "the image of the settings: %s: %s", setting->key, error);
        free(error);
        return false;
    }
    return true;
}

static bool
take_value(struct image_reader *reader)
{
    uint16_t row = 0;
    char *place = NULL;
    char *text = NULL;
    bool is_ok = false;

    if (!take(reader, &row, sizeof(row)) || !take_text(reader, &place) ||
        !take_text(reader, &text)) {
        goto done;
    }
    if (!reader->has_section || row >= SETTING_ROWS ||
        setting_at(row)->section != reader->section) {
        (void)refuse(reader, "the image of the settings has a value outside of its section");
        goto done;
    }
    is_ok = store_value(reader, row, place, text);

done:
    free(place);
    free(text);
    return is_ok;
}

static bool
take_records(struct image_reader *reader)
{
    uint32_t count = 0;

    if (!take(reader, &count, sizeof(count))) {
        return false;
    }
    if (!reader->has_section || reader->section != SETTING_BACKEND || count > IMAGE_RECORDS_MAX ||
        count * sizeof(uint32_t) > reader->left) {
        return refuse(reader, "the image of the settings has misplaced scoreboard records");
    }
    uint32_t *records = xcalloc((size_t)count + 1, sizeof(*records));
    bool is_ok = take(reader, records, count * sizeof(*records));
    config_set_records(&reader->config->backends[reader->index], records, count);
    free(records);
    return is_ok;
}

static bool
take_header(struct image_reader *reader)
{
    struct image_header header;
    size_t size = reader->left;

    if (size < sizeof(header)) {
        return refuse(reader, "the image of the settings is too short");
    }
    (void)take(reader, &header, sizeof(header));
    if (memcmp(header.magic, IMAGE_MAGIC, sizeof(header.magic)) != 0) {
        return refuse(reader, "this is no image of settings");
    }
    if (header.version != IMAGE_VERSION || header.table_hash != table_hash()) {
        return refuse(reader, "the image of the settings is of another version of narwhal");
    }
    if (header.length != size) {
        return refuse(reader, "the image of the settings has %zu bytes, not the %llu it names",
                      size, (unsigned long long)header.length);
    }
    return true;
}

static bool
take_all(struct image_reader *reader)
{
    if (!take_header(reader)) {
        return false;
    }
    for (;;) {
        uint8_t kind = 0;
        bool is_ok = false;
        if (!take(reader, &kind, sizeof(kind))) {
            return false;
        }
        switch (kind) {
        case IMAGE_PATH:
            is_ok = take_path(reader);
            break;
        case IMAGE_SECTION:
            is_ok = take_section(reader);
            break;
        case IMAGE_VALUE:
            is_ok = take_value(reader);
            break;
        case IMAGE_RECORDS:
            is_ok = take_records(reader);
            break;
        case IMAGE_END:
            return reader->left == 0 || refuse(reader, "bytes follow the end of the image");
        default:
            return refuse(reader, "the image of the settings has an unknown record");
        }
        if (!is_ok) {
            return false;
        }
    }
}

/* What every consumer takes for granted and no single record can promise. */
static bool
is_complete(struct image_reader *reader)
{
    const struct config *config = reader->config;

    for (size_t i = 0; i < config->route_count; i++) {
        const struct route_settings *route = &config->routes[i];
        if (route->backend != NULL &&
            config_section_find(config, SETTING_BACKEND, route->backend) == config->backend_count) {
            return refuse(reader, "the image of the settings has a route without its backend");
        }
    }
    return true;
}

struct config *
config_read_image(int fd, char error[CONFIG_IMAGE_ERROR_MAX])
{
    struct image_reader reader = {.error = error};
    struct stat status;
    char *bytes = NULL;
    size_t size = 0;
    bool is_ok = false;

    error[0] = '\0';
    if (fstat(fd, &status) == -1) {
        (void)refuse(&reader, "the image of the settings cannot be read: %s", strerror(errno));
        return NULL;
    }
    if (!S_ISREG(status.st_mode) || status.st_size < 0 || status.st_size > IMAGE_BYTES_MAX) {
        (void)refuse(&reader, "this is no image of settings");
        return NULL;
    }
    bytes = xcalloc((size_t)status.st_size + 1, 1);
    while (size < (size_t)status.st_size) {
        /* pread(2): workers share the offset of the descriptor that the master handed to all. */
        ssize_t n = pread(fd, bytes + size, (size_t)status.st_size - size, (off_t)size);
        if (n == -1 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            (void)refuse(&reader, "the image of the settings cannot be read: %s",
                         n == 0 ? "it became shorter" : strerror(errno));
            free(bytes);
            return NULL;
        }
        size += (size_t)n;
    }
    reader.next = bytes;
    reader.left = size;
    reader.config = config_new();
    is_ok = take_all(&reader) && is_complete(&reader);
    free(bytes);
    if (!is_ok) {
        config_free(reader.config);
        return NULL;
    }
    return reader.config;
}
