/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes of the state: a header with magic, version, length and checksum, then records. A record is
 * its kind and length, then its fields in the order of state.def: a number as 8 bytes, a text or
 * bytes as length and content, all in the byte order of the machine, which writer and reader share.
 */
#include "master/state.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/base/hash.h"
#include "config/base/log.h"
#include "master/apps.h"
#include "master/child.h"
#include "master/operations.h"
#include "master/server_registry.h"
#include "worker/scoreboard.h"

/* "NWSTATE\0" */
#define STATE_MAGIC UINT64_C(0x004554415453574e)
#define NO_TEXT UINT32_MAX

struct state_header {
    uint64_t magic;
    uint32_t version;
    uint32_t unused;   /* zero */
    uint64_t length;   /* of all, the header included */
    uint64_t checksum; /* of what follows the header */
};

struct record_header {
    uint32_t kind;
    uint32_t length; /* of what follows */
};

/* ---- records in memory ----------------------------------------------------------------------- */

#define STATE_RECORD(name, kind)                                                                   \
    struct state_##name *state_add_##name(struct state *state)                                     \
    {                                                                                              \
        state->name = xrealloc(state->name, (state->name##_count + 1) * sizeof(*state->name));     \
        struct state_##name *record = &state->name[state->name##_count++];                         \
        memset(record, 0, sizeof(*record));
#define STATE_INT(field, lowest, highest)
#define STATE_FD(field) record->field = -1;
#define STATE_TEXT(field)
#define STATE_BYTES(field)
#define STATE_RECORD_END(name)                                                                     \
    return record;                                                                                 \
    }
#include "master/state.def"

void
state_release(struct state *state)
{
#define STATE_RECORD(name, kind)                                                                   \
    for (size_t i = 0; i < state->name##_count; i++) {                                             \
        struct state_##name *record = &state->name[i];                                             \
        (void)record;
#define STATE_INT(field, lowest, highest)
#define STATE_FD(field)
#define STATE_TEXT(field) free(record->field);
#define STATE_BYTES(field) buf_release(&record->field);
#define STATE_RECORD_END(name)                                                                     \
    }                                                                                              \
    free(state->name);
#include "master/state.def"
    *state = (struct state){0};
}

int
state_each_fd(const struct state *state, int (*act)(int fd, void *context), void *context)
{
    int result = 0;

#define STATE_RECORD(name, kind)                                                                   \
    for (size_t i = 0; i < state->name##_count && result == 0; i++) {                              \
        const struct state_##name *record = &state->name[i];                                       \
        (void)record;
#define STATE_INT(field, lowest, highest)
#define STATE_FD(field)                                                                            \
    if (result == 0 && record->field != -1) {                                                      \
        result = act(record->field, context);                                                      \
    }
#define STATE_TEXT(field)
#define STATE_BYTES(field)
#define STATE_RECORD_END(name) }
#include "master/state.def"
    return result;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void
put_int(struct buf *out, int64_t value)
{
    buf_add(out, &value, sizeof(value));
}

static void
put_bytes(struct buf *out, const void *bytes, size_t length)
{
    uint32_t size = bytes != NULL ? (uint32_t)length : NO_TEXT;

    CHECK(length < NO_TEXT);
    buf_add(out, &size, sizeof(size));
    if (bytes != NULL && length > 0) {
        buf_add(out, bytes, length);
    }
}

static void
finish_record(struct buf *out, size_t start)
{
    struct record_header header;

    memcpy(&header, out->ptr + start, sizeof(header));
    header.length = (uint32_t)(out->len - start - sizeof(header));
    memcpy(out->ptr + start, &header, sizeof(header));
}

void
state_write(const struct state *state, struct buf *out)
{
    struct state_header header = {.magic = STATE_MAGIC, .version = STATE_VERSION};
    size_t begin = out->len;

    buf_add(out, &header, sizeof(header));
#define STATE_RECORD(name, number)                                                                 \
    for (size_t i = 0; i < state->name##_count; i++) {                                             \
        const struct state_##name *record = &state->name[i];                                       \
        struct record_header record_header = {.kind = number};                                     \
        size_t start = out->len;                                                                   \
        buf_add(out, &record_header, sizeof(record_header));
#define STATE_INT(field, lowest, highest) put_int(out, record->field);
#define STATE_FD(field) put_int(out, record->field);
#define STATE_TEXT(field)                                                                          \
    put_bytes(out, record->field, record->field != NULL ? strlen(record->field) : 0);
#define STATE_BYTES(field)                                                                         \
    put_bytes(out, record->field.len > 0 ? record->field.ptr : "", record->field.len);
#define STATE_RECORD_END(name)                                                                     \
    finish_record(out, start);                                                                     \
    }
#include "master/state.def"
    header.length = out->len - begin;
    header.checksum =
        hash_bytes(0, out->ptr + begin + sizeof(header), out->len - begin - sizeof(header));
    memcpy(out->ptr + begin, &header, sizeof(header));
}

/* ---- reading --------------------------------------------------------------------------------- */

struct reader {
    const char *next;
    size_t left;        /* of the record */
    const char *record; /* its name, for messages */
    bool is_bad;
    char *error;
};

static void refuse(struct reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void
refuse(struct reader *reader, const char *format, ...)
{
    va_list args;

    if (reader->is_bad) {
        return; /* the first reason is the true one */
    }
    va_start(args, format);
    (void)vsnprintf(reader->error, STATE_ERROR_MAX, format, args);
    va_end(args);
    reader->is_bad = true;
}

static bool
take(struct reader *reader, void *ret_bytes, size_t size)
{
    if (reader->is_bad || reader->left == 0) {
        return false; /* the record ends here: written by a version without this field */
    }
    if (reader->left < size) {
        refuse(reader, "the state ends in the middle of a record \"%s\"", reader->record);
        return false;
    }
    memcpy(ret_bytes, reader->next, size);
    reader->next += size;
    reader->left -= size;
    return true;
}

static int64_t
get_int(struct reader *reader, const char *field, int64_t absent, int64_t lowest, int64_t highest)
{
    int64_t value = absent;

    if (take(reader, &value, sizeof(value)) && (value < lowest || value > highest)) {
        refuse(reader, "the state has a record \"%s\" with %s=%lld, not %lld to %lld",
               reader->record, field, (long long)value, (long long)lowest, (long long)highest);
        value = absent;
    }
    return value;
}

static void
get_bytes(struct reader *reader, const char *field, bool is_text, struct buf *ret_bytes)
{
    uint32_t size = NO_TEXT;

    if (!take(reader, &size, sizeof(size)) || size == NO_TEXT) {
        return;
    }
    if (size > reader->left) {
        refuse(reader, "the state has a record \"%s\" with %u bytes of %s, more than it has",
               reader->record, size, field);
        return;
    }
    if (is_text && memchr(reader->next, '\0', size) != NULL) {
        refuse(reader, "the state has a record \"%s\" with a NUL in %s", reader->record, field);
        return;
    }
    buf_add(ret_bytes, reader->next, size);
    reader->next += size;
    reader->left -= size;
}

static char *
get_text(struct reader *reader, const char *field)
{
    struct buf text = {0};

    get_bytes(reader, field, true, &text);
    return text.ptr != NULL ? buf_take(&text) : NULL;
}

static void
read_record(struct reader *reader, struct state *state, uint32_t kind)
{
    switch (kind) {
#define STATE_RECORD(name, number)                                                                 \
    case number: {                                                                                 \
        struct state_##name *record = state_add_##name(state);                                     \
        reader->record = #name;
#define STATE_INT(field, lowest, highest)                                                          \
    record->field = get_int(reader, #field, 0, lowest, highest);
#define STATE_FD(field) record->field = (int)get_int(reader, #field, -1, -1, INT_MAX);
#define STATE_TEXT(field) record->field = get_text(reader, #field);
#define STATE_BYTES(field) get_bytes(reader, #field, false, &record->field);
#define STATE_RECORD_END(name)                                                                     \
    break;                                                                                         \
    }
#include "master/state.def"
    default:
        break; /* of a later version, which says with its number that it may be skipped */
    }
}

/* ---- what no single record can promise ------------------------------------------------------- */

static void
check_reference(struct reader *reader, const char *record, const char *field, int64_t number,
                size_t count)
{
    if ((uint64_t)number >= count) {
        refuse(reader, "the state has a record \"%s\" with %s=%lld, and there are %zu", record,
               field, (long long)number, count);
    }
}

static void
check_child(struct reader *reader, const char *record, int64_t pid, int64_t child_state)
{
    bool has_process = child_state != CHILD_GONE && child_state != CHILD_BACKOFF;

    if (has_process != (pid != 0)) {
        refuse(reader, "the state has a record \"%s\" with pid=%lld in state %s", record,
               (long long)pid, child_state_name((enum child_state)child_state));
    }
}

static void
check_present(struct reader *reader, const char *record, const char *field, bool is_present)
{
    if (!is_present) {
        refuse(reader, "the state has a record \"%s\" without %s", record, field);
    }
}

static void
check_workers(struct reader *reader, const struct state *state)
{
    bool taken[BOARD_SLOTS_MAX][STATE_LEAVING] = {{false}};

    for (size_t i = 0; i < state->worker_count; i++) {
        const struct state_worker *worker = &state->worker[i];
        check_child(reader, "worker", worker->pid, worker->state);
        if (reader->is_bad || worker->role == STATE_LEAVING) {
            continue;
        }
        if (taken[worker->slot][worker->role]) {
            refuse(reader, "the state has two workers in the same place of slot=%lld",
                   (long long)worker->slot);
        }
        taken[worker->slot][worker->role] = true;
    }
    for (size_t i = 0; i < state->held_count; i++) {
        check_reference(reader, "held", "worker", state->held[i].worker, state->worker_count);
    }
}

static void
check_instances(struct reader *reader, const struct state *state)
{
    for (size_t i = 0; i < state->instance_count; i++) {
        const struct state_instance *instance = &state->instance[i];
        check_reference(reader, "instance", "app_slot", instance->app_slot, state->app_slot_count);
        check_child(reader, "instance", instance->pid, instance->state);
        for (size_t k = 0; k < i; k++) {
            if (state->instance[k].app_slot == instance->app_slot &&
                (state->instance[k].half == instance->half ||
                 (state->instance[k].role == instance->role && instance->role != STATE_LEAVING))) {
                refuse(reader, "the state has two instances in the same place of a slot");
            }
        }
    }
}

static void
check_all(struct reader *reader, const struct state *state)
{
    if (state->master_count != 1) {
        refuse(reader, "the state has %zu records \"master\", not one", state->master_count);
        return;
    }
    check_present(reader, "master", "version", state->master->version != NULL);
    check_present(reader, "master", "pidfile_path",
                  state->master->pidfile == -1 || state->master->pidfile_path != NULL);
    check_present(reader, "master", "runtime_path",
                  state->master->runtime == -1 || state->master->runtime_path != NULL);
    check_present(reader, "master", "control_path",
                  state->master->control == -1 || state->master->control_path != NULL);
    for (size_t i = 0; i < state->address_count; i++) {
        check_present(reader, "address", "wanted", state->address[i].wanted != NULL);
        check_present(reader, "address", "bound", state->address[i].bound != NULL);
    }
    for (size_t i = 0; i < state->lane_count; i++) {
        check_reference(reader, "lane", "address", state->lane[i].address, state->address_count);
        check_present(reader, "lane", "fd", state->lane[i].fd != -1);
    }
    check_workers(reader, state);
    for (size_t i = 0; i < state->app_count; i++) {
        check_present(reader, "app", "name", state->app[i].name != NULL);
    }
    for (size_t i = 0; i < state->app_slot_count; i++) {
        check_reference(reader, "app_slot", "app", state->app_slot[i].app, state->app_count);
    }
    for (size_t i = 0; i < state->listener_count; i++) {
        check_reference(reader, "listener", "app_slot", state->listener[i].app_slot,
                        state->app_slot_count);
        check_present(reader, "listener", "path", state->listener[i].path != NULL);
    }
    check_instances(reader, state);
    for (size_t i = 0; i < state->server_count; i++) {
        check_present(reader, "server", "key", state->server[i].key != NULL);
    }
}

static void
read_records(struct reader *reader, struct state *state, const char *bytes, size_t length)
{
    while (length > 0 && !reader->is_bad) {
        struct record_header header;
        if (length < sizeof(header)) {
            refuse(reader, "the state ends in the middle of a record");
            return;
        }
        memcpy(&header, bytes, sizeof(header));
        bytes += sizeof(header);
        length -= sizeof(header);
        if (header.length > length) {
            refuse(reader, "the state has a record that is longer than the rest");
            return;
        }
        reader->next = bytes;
        reader->left = header.length;
        read_record(reader, state, header.kind);
        bytes += header.length;
        length -= header.length;
    }
}

static void
check_header(struct reader *reader, const char *bytes, size_t length)
{
    struct state_header header;

    if (length < sizeof(header)) {
        refuse(reader, "this is no state of a master: it has only %zu bytes", length);
        return;
    }
    memcpy(&header, bytes, sizeof(header));
    if (header.magic != STATE_MAGIC) {
        refuse(reader, "this is no state of a master");
    } else if (header.version != STATE_VERSION) {
        refuse(reader, "the state is of version %u, and this program reads version %d",
               header.version, STATE_VERSION);
    } else if (header.length != length) {
        refuse(reader, "the state has %zu bytes and says that it has %llu", length,
               (unsigned long long)header.length);
    } else if (header.checksum != hash_bytes(0, bytes + sizeof(header), length - sizeof(header))) {
        refuse(reader, "the checksum of the state is wrong");
    }
}

int
state_read(struct state *ret_state, const char *bytes, size_t length, char error[STATE_ERROR_MAX])
{
    struct reader reader = {.error = error};
    struct state state = {0};

    check_header(&reader, bytes, length);
    if (!reader.is_bad) {
        read_records(&reader, &state, bytes + sizeof(struct state_header),
                     length - sizeof(struct state_header));
    }
    if (!reader.is_bad) {
        check_all(&reader, &state);
    }
    if (reader.is_bad) {
        state_release(&state);
        return -EBADMSG;
    }
    *ret_state = state;
    return 0;
}

/* ---- memfd ----------------------------------------------------------------------------------- */

int
state_to_memfd(const struct state *state)
{
    struct buf bytes = {0};
    int fd = memfd_create("narwhal-state", MFD_CLOEXEC);

    if (fd == -1) {
        return -errno;
    }
    state_write(state, &bytes);
    int result = fd_write_all(fd, bytes.ptr, bytes.len);
    buf_release(&bytes);
    if (result != 0) {
        fd_close(&fd);
        return result;
    }
    return fd;
}

int
state_from_fd(struct state *ret_state, int fd, char error[STATE_ERROR_MAX])
{
    struct stat st;
    size_t size = 0;

    if (fstat(fd, &st) == -1) {
        (void)snprintf(error, STATE_ERROR_MAX, "descriptor %d: %s", fd, strerror(errno));
        return -EBADMSG;
    }
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > STATE_BYTES_MAX) {
        (void)snprintf(error, STATE_ERROR_MAX, "descriptor %d is no state of a master", fd);
        return -EBADMSG;
    }
    char *bytes = xcalloc((size_t)st.st_size + 1, 1);
    while (size < (size_t)st.st_size) {
        ssize_t n = pread(fd, bytes + size, (size_t)st.st_size - size, (off_t)size);
        if (n == -1 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            (void)snprintf(error, STATE_ERROR_MAX, "the state cannot be read: %s",
                           n == 0 ? "it became shorter" : strerror(errno));
            free(bytes);
            return -EBADMSG;
        }
        size += (size_t)n;
    }
    int result = state_read(ret_state, bytes, size, error);
    free(bytes);
    return result;
}
