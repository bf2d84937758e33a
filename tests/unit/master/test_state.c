/* SPDX-License-Identifier: Apache-2.0
 *
 * The state that one program hands to the next: what is written is read, and nothing else is.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/hash.h"
#include "master/child.h"
#include "master/operations.h"
#include "master/state.h"

/* Offsets in the header of state.c, which other versions have to keep. */
#define AT_VERSION 8
#define AT_LENGTH 16
#define AT_CHECKSUM 24
#define HEADER_BYTES 32

static struct state state;
static struct buf bytes;
static char error[STATE_ERROR_MAX];

static void
add_master(void)
{
    struct state_master *master = state_add_master(&state);

    master->version = xstrdup("0.1.0");
    master->pid = 4711;
    master->started_ms = 12;
    master->serial = 3;
    master->last_serial = 4;
    master->next_lane = 2;
    master->workers_more = -1;
    master->board = 7;
}

static void
begin(void)
{
    add_master();
    struct state_address *address = state_add_address(&state);
    address->wanted = xstrdup("127.0.0.1:0");
    address->bound = xstrdup("127.0.0.1:4711");
    struct state_lane *lane = state_add_lane(&state);
    lane->id = 1;
    lane->fd = 9;
    struct state_worker *worker = state_add_worker(&state);
    worker->slot = 1;
    worker->pid = 4712;
    worker->state = CHILD_READY;
    worker->channel = 10;
    worker->deadline_ms = -1;
    worker->ours = xstrdup("");
    struct state_held *held = state_add_held(&state);
    held->lane = 1;
    struct state_app *app = state_add_app(&state);
    app->name = xstrdup("api");
    (void)state_add_app_slot(&state);
    struct state_instance *instance = state_add_instance(&state);
    instance->state = CHILD_BACKOFF;
    instance->deadline_ms = 99;
    buf_add(&instance->unread, "a\0b", 3);
    struct state_operation *operation = state_add_operation(&state);
    operation->number = 7;
    operation->state = OPERATION_DONE;
    operation->subject = xstrdup("api");
    operation->mark = -1;
    operation->text = xstrdup("2 of 2");
}

static void
end(void)
{
    state_release(&state);
    buf_release(&bytes);
}

TestSuite(state, .init = begin, .fini = end);

/* The checksum is right whatever else is wrong, so that the rest of the reader is met. */
static void
sign(void)
{
    uint64_t length = bytes.len;
    uint64_t checksum = hash_bytes(0, bytes.ptr + HEADER_BYTES, bytes.len - HEADER_BYTES);

    memcpy(bytes.ptr + AT_LENGTH, &length, sizeof(length));
    memcpy(bytes.ptr + AT_CHECKSUM, &checksum, sizeof(checksum));
}

static void
expect_refused(const char *why)
{
    struct state read = {0};

    error[0] = '\0';
    int result = state_read(&read, bytes.ptr, bytes.len, error);
    cr_expect_eq(result, -EBADMSG, "taken, but: %s", why);
    cr_expect_not_null(strstr(error, why), "\"%s\" does not say \"%s\"", error, why);
    cr_expect_null(read.master);
    state_release(&read);
}

static void
write_and_expect_refused(const char *why)
{
    buf_clear(&bytes);
    state_write(&state, &bytes);
    expect_refused(why);
}

Test(state, what_is_written_is_read)
{
    struct state read = {0};

    state_write(&state, &bytes);
    cr_assert_eq(state_read(&read, bytes.ptr, bytes.len, error), 0, "%s", error);
    cr_expect_str_eq(read.master->version, "0.1.0");
    cr_expect_eq(read.master->pid, 4711);
    cr_expect_eq(read.master->workers_more, -1);
    cr_expect_eq(read.master->board, 7);
    cr_expect_eq(read.master->pidfile, -1);
    cr_expect_null(read.master->pidfile_path);
    cr_assert_eq(read.lane_count, 1);
    cr_expect_eq(read.lane->fd, 9);
    cr_expect_str_eq(read.address->bound, "127.0.0.1:4711");
    cr_expect_eq(read.worker->state, CHILD_READY);
    cr_expect_eq(read.worker->deadline_ms, -1);
    cr_expect_str_eq(read.worker->ours, "", "an empty text is one");
    cr_expect_null(read.worker->suspicion, "and none is none");
    cr_expect_eq(read.instance->unread.len, 3);
    cr_expect_arr_eq(read.instance->unread.ptr, "a\0b", 3);
    cr_expect_eq(read.operation->number, 7);
    cr_expect_eq(read.operation->state, OPERATION_DONE);
    cr_expect_str_eq(read.operation->subject, "api");
    cr_expect_eq(read.operation->mark, -1);
    cr_expect_str_eq(read.operation->text, "2 of 2");
    cr_expect_eq(read.listener_count, 0);
    state_release(&read);
}

static int
add_up(int fd, void *context)
{
    *(int *)context += fd;
    return 0;
}

static int
stop_at_nine(int fd, void *context)
{
    (void)context;
    return fd == 9 ? -ENOENT : 0;
}

Test(state, each_descriptor_once)
{
    int sum = 0;

    cr_expect_eq(state_each_fd(&state, add_up, &sum), 0);
    cr_expect_eq(sum, 7 + 9 + 10);
    cr_expect_eq(state_each_fd(&state, stop_at_nine, NULL), -ENOENT);
}

Test(state, memfd_there_and_back)
{
    struct state read = {0};
    int fd = state_to_memfd(&state);

    cr_assert_geq(fd, 0);
    cr_expect_eq(state_from_fd(&read, fd, error), 0, "%s", error);
    cr_expect_eq(read.worker_count, 1);
    state_release(&read);
    cr_expect_eq(state_from_fd(&read, fd, error), 0, "a second reader, too: %s", error);
    state_release(&read);
    cr_assert_eq(ftruncate(fd, HEADER_BYTES + 5), 0);
    cr_expect_eq(state_from_fd(&read, fd, error), -EBADMSG);
    (void)close(fd);
    cr_expect_eq(state_from_fd(&read, fd, error), -EBADMSG);
    cr_expect_not_null(strstr(error, "Bad file descriptor"), "%s", error);
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_expect_eq(state_from_fd(&read, ends[0], error), -EBADMSG, "would wait for ever");
    (void)close(ends[0]);
    (void)close(ends[1]);
}

Test(state, every_shorter_one_is_refused)
{
    struct state read = {0};

    state_write(&state, &bytes);
    for (size_t length = 0; length < bytes.len; length++) {
        /* In memory of its own, so that a byte read behind it is seen. */
        char *piece = xcalloc(length > 0 ? length : 1, 1);
        memcpy(piece, bytes.ptr, length);
        cr_expect_eq(state_read(&read, piece, length, error), -EBADMSG, "%zu bytes", length);
        free(piece);
    }
}

Test(state, every_shorter_one_with_a_right_checksum_breaks_nothing)
{
    struct state read = {0};

    state_write(&state, &bytes);
    for (size_t length = bytes.len - 1; length > HEADER_BYTES; length--) {
        bytes.len = length;
        sign();
        char *piece = xcalloc(length, 1);
        memcpy(piece, bytes.ptr, length);
        if (state_read(&read, piece, length, error) == 0) {
            state_release(&read); /* a whole number of records is a state, if a smaller one */
        }
        free(piece);
    }
}

Test(state, every_changed_byte_is_seen)
{
    state_write(&state, &bytes);
    for (size_t i = 0; i < bytes.len; i++) {
        struct state read = {0};
        if (i >= 12 && i < 16) {
            continue; /* unused, in the header */
        }
        bytes.ptr[i] ^= 0x20;
        cr_expect_eq(state_read(&read, bytes.ptr, bytes.len, error), -EBADMSG, "byte %zu", i);
        bytes.ptr[i] ^= 0x20;
    }
}

Test(state, every_changed_byte_with_a_right_checksum_breaks_nothing)
{
    for (int change = 1; change < 256; change = change * 2 + 1) {
        buf_clear(&bytes);
        state_write(&state, &bytes);
        for (size_t i = HEADER_BYTES; i < bytes.len; i++) {
            struct state read = {0};
            bytes.ptr[i] = (char)(bytes.ptr[i] ^ change);
            sign();
            if (state_read(&read, bytes.ptr, bytes.len, error) == 0) {
                state_release(&read);
            }
            bytes.ptr[i] = (char)(bytes.ptr[i] ^ change);
        }
    }
}

Test(state, another_version)
{
    state_write(&state, &bytes);
    bytes.ptr[AT_VERSION] = STATE_VERSION + 1;
    expect_refused("of version 2, and this program reads version 1");
}

Test(state, something_else)
{
    buf_add_text(&bytes, "[master]\nbind = 127.0.0.1:8000\nworkers = 2\n");
    expect_refused("no state of a master");
    buf_clear(&bytes);
    expect_refused("no state of a master");
}

Test(state, a_later_version_may_say_more)
{
    struct state read = {0};
    const uint32_t unknown[] = {99, 4, 0xdeadbeef};
    size_t at;
    uint32_t length;

    state_write(&state, &bytes);
    /* A record of a kind that this version does not know … */
    buf_add(&bytes, unknown, sizeof(unknown));
    /* … and a field at the end of a record that it does. */
    at = bytes.len;
    struct state lane = {0};
    state_add_lane(&lane)->id = 5;
    lane.lane->fd = 11;
    struct buf more = {0};
    state_write(&lane, &more);
    buf_add(&bytes, more.ptr + HEADER_BYTES, more.len - HEADER_BYTES);
    memcpy(&length, bytes.ptr + at + 4, sizeof(length));
    length += 8;
    memcpy(bytes.ptr + at + 4, &length, sizeof(length));
    buf_add(&bytes, "12345678", 8);
    sign();
    cr_assert_eq(state_read(&read, bytes.ptr, bytes.len, error), 0, "%s", error);
    cr_assert_eq(read.lane_count, 2);
    cr_expect_eq(read.lane[1].fd, 11);
    state_release(&read);
    state_release(&lane);
    buf_release(&more);
}

Test(state, numbers_out_of_bounds)
{
    state.worker->slot = 256;
    write_and_expect_refused("slot=256, not 0 to 255");
    state.worker->slot = -1;
    write_and_expect_refused("slot=-1");
    state.worker->slot = 0;
    state.worker->state = CHILD_STATE_COUNT;
    write_and_expect_refused("\"worker\" with state=");
    state.worker->state = CHILD_READY;
    state.lane->fd = -2;
    write_and_expect_refused("\"lane\" with fd=-2");
}

Test(state, references_to_nothing)
{
    state.lane->address = 1;
    write_and_expect_refused("address=1, and there are 1");
    state.lane->address = 0;
    state.held->worker = 5;
    write_and_expect_refused("worker=5");
    state.held->worker = 0;
    state.instance->app_slot = 2;
    write_and_expect_refused("app_slot=2");
    state.instance->app_slot = 0;
    state.app_slot->app = 1;
    write_and_expect_refused("app=1");
}

Test(state, children_that_cannot_be)
{
    state.worker->pid = 0;
    write_and_expect_refused("pid=0 in state READY");
    state.worker->pid = 4712;
    state.instance->pid = 4713;
    write_and_expect_refused("pid=4713 in state BACKOFF");
}

Test(state, two_in_one_place)
{
    struct state_worker *worker = state_add_worker(&state);

    worker->slot = 1;
    worker->state = CHILD_BACKOFF;
    write_and_expect_refused("two workers in the same place of slot=1");
    worker->role = STATE_LEAVING;
    struct state_instance *instance = state_add_instance(&state);
    instance->state = CHILD_BACKOFF;
    instance->role = STATE_NEXT;
    write_and_expect_refused("two instances");
}

Test(state, what_must_be_there)
{
    add_master();
    write_and_expect_refused("2 records \"master\"");
    free(state.master[1].version);
    state.master_count = 1;
    state.master->control = 12;
    write_and_expect_refused("without control_path");
    state.master->control = -1;
    state.lane->fd = -1;
    write_and_expect_refused("\"lane\" without fd");
}
