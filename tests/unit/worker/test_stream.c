/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams over a socket pair and a loop that is stepped by hand: every byte once and in order,
 * whatever the peer takes at a time.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/stream.h"

static struct ev_loop *loop;
static struct stream_batch batch;
static struct stream stream;
static int client; /* the other end */

/* What the client must see in the end, and what it has seen. */
static char *expected;
static size_t expected_length;
static char *seen;
static size_t seen_length;
static bool seen_eof;
#define SEEN_MAX (5u * STREAM_SEND_SLICE_BYTES)

static void
on_stream_io(struct ev_loop *of, ev_io *io, int revents)
{
    cr_assert_eq(io, &stream.io);
    if (revents & EV_WRITE) {
        stream_send(&stream, 0);
        if (stream_is_drained(&stream) || stream.error != 0) {
            stream_watch(&stream, of, 0);
        }
    }
}

static void
start(void)
{
    int ends[2];
    int small = 8192;

    (void)signal(SIGPIPE, SIG_DFL); /* must never be raised */
    loop = ev_loop_new(0);
    cr_assert_not_null(loop);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    /* So that the peer takes little at a time. */
    cr_assert_eq(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    client = ends[1];
    stream_init(&stream, &batch, ends[0], on_stream_io);
    expected = malloc(SEEN_MAX);
    seen = malloc(SEEN_MAX);
    cr_assert(expected != NULL && seen != NULL);
}

static void
stop(void)
{
    stream_close(&stream, loop);
    cr_assert_eq(batch.owner, NULL);
    cr_assert_eq(stream.queued_bytes, 0);
    if (client != -1) {
        (void)close(client);
    }
    ev_loop_destroy(loop);
    free(expected);
    free(seen);
}

TestSuite(stream, .init = start, .fini = stop);

/* Reads at most size bytes at the client's end; false when there are none. */
static bool
client_read(size_t size)
{
    cr_assert_leq(seen_length + size, SEEN_MAX);
    ssize_t n = read(client, seen + seen_length, size);
    if (n == -1) {
        cr_assert_eq(errno, EAGAIN);
        return false;
    }
    seen_eof = n == 0;
    seen_length += (size_t)n;
    return n > 0;
}

/* One step of the loop, as after a turn: watches for writing while something is queued. */
static void
step(void)
{
    stream_watch(&stream, loop, stream_is_drained(&stream) ? 0 : EV_WRITE);
    (void)ev_run(loop, EVRUN_NOWAIT);
}

/* Steps and reads, up to piece bytes at a time, until nothing is left on either side. */
static void
drain(size_t piece)
{
    unsigned int idle = 0;

    while (idle < 3) {
        step();
        idle = client_read(piece) || !stream_is_drained(&stream) ? 0 : idle + 1;
        cr_assert_eq(stream.error, 0);
    }
}

static void
expect_bytes(const void *bytes, size_t size)
{
    cr_assert_leq(expected_length + size, SEEN_MAX);
    memcpy(expected + expected_length, bytes, size);
    expected_length += size;
}

static void
check_seen(void)
{
    cr_assert_eq(seen_length, expected_length);
    cr_assert_eq(memcmp(seen, expected, expected_length), 0);
    cr_assert_eq(stream.sent_bytes, expected_length);
    cr_assert_eq(stream.queued_bytes, 0);
    cr_assert(stream_is_drained(&stream));
}

/* Bytes that tell their place. */
static void
fill(char *bytes, size_t size, unsigned int seed)
{
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (char)(i * 31 + (i >> 8) * 7 + seed);
    }
}

/* ---- reading -------------------------------------------------------------------------------- */

Test(stream, reads_what_there_is_then_again_then_eof)
{
    char bytes[8];
    size_t length = 77;

    cr_assert_eq(stream_read(&stream, bytes, sizeof(bytes), &length), STREAM_AGAIN);
    cr_assert_eq(length, 77);
    cr_assert_eq(write(client, "hello world", 11), 11);
    cr_assert_eq(stream_read(&stream, bytes, sizeof(bytes), &length), STREAM_OK);
    cr_assert_eq(length, 8);
    cr_assert_arr_eq(bytes, "hello wo", 8);
    cr_assert_eq(stream_read(&stream, bytes, sizeof(bytes), &length), STREAM_OK);
    cr_assert_eq(length, 3);
    cr_assert_eq(stream_read(&stream, bytes, sizeof(bytes), &length), STREAM_AGAIN);
    (void)shutdown(client, SHUT_WR);
    cr_assert_eq(stream_read(&stream, bytes, sizeof(bytes), &length), STREAM_EOF);
    cr_assert_eq(stream_read(&stream, bytes, sizeof(bytes), &length), STREAM_EOF);
}

Test(stream, a_reset_is_an_error_with_its_reason)
{
    char bytes[8];
    size_t length;

    stream_put_copy(&stream, "unread", 6);
    stream_flush(&stream);
    (void)close(client); /* with unread bytes: the other end gets ECONNRESET (unix(7)) */
    client = -1;
    cr_assert_eq(stream_read(&stream, bytes, sizeof(bytes), &length), STREAM_ERROR);
    cr_assert_eq(errno, ECONNRESET);
}

/* ---- writing what is taken at once ---------------------------------------------------------- */

Test(stream, pieces_go_out_in_order_with_one_flush_and_nothing_before)
{
    static const char text[] = "one two three four";

    stream_put(&stream, text, 4);
    stream_put(&stream, text + 4, 4); /* goes on where the last ended */
    stream_put(&stream, "", 0);
    char *room = stream_reserve(&stream, 100);
    memcpy(room, "three ", 6);
    stream_commit(&stream, 6);
    stream_put_copy(&stream, "four", 4);
    cr_assert_not(client_read(100));
    cr_assert_eq(stream.sent_bytes, 0);
    stream_flush(&stream);
    cr_assert(client_read(100));
    expect_bytes(text, 18);
    check_seen();
    cr_assert_null(batch.owner);
    stream_flush(&stream); /* nothing more */
    cr_assert_not(client_read(100));
}

Test(stream, a_flush_of_one_stream_leaves_the_batch_of_another)
{
    struct stream other;

    stream_put_copy(&stream, "mine", 4);
    stream_init(&other, &batch, dup(stream.io.fd), on_stream_io);
    stream_flush(&other);
    cr_assert_eq(batch.owner, &stream);
    stream_close(&other, loop);
    cr_assert_eq(batch.owner, &stream);
    stream_flush(&stream);
    expect_bytes("mine", 4);
    cr_assert(client_read(100));
    check_seen();
}

Test(stream, a_forgotten_flush_is_a_bug, .signal = SIGABRT)
{
    struct stream other;

    stream_init(&other, &batch, dup(stream.io.fd), on_stream_io);
    stream_put_copy(&stream, "mine", 4);
    stream_put_copy(&other, "theirs", 6);
}

Test(stream, more_pieces_than_the_batch_holds)
{
    static char pieces[10 * BATCH_IOV_MAX][3];

    for (unsigned int i = 0; i < 10 * BATCH_IOV_MAX; i++) {
        pieces[i][0] = (char)('a' + i % 26);
        pieces[i][1] = (char)('0' + i % 10);
        stream_put(&stream, pieces[i], 2); /* a byte between them: none goes on in the next */
        expect_bytes(pieces[i], 2);
    }
    stream_flush(&stream);
    drain(4096);
    check_seen();
}

Test(stream, more_memory_than_the_batch_holds)
{
    static char bytes[5000];

    for (unsigned int i = 0; i < 60; i++) { /* 300 kB through 48 KiB */
        fill(bytes, sizeof(bytes), i);
        stream_put_copy(&stream, bytes, sizeof(bytes));
        expect_bytes(bytes, sizeof(bytes));
    }
    char *room = stream_reserve(&stream, BATCH_MEMORY_BYTES);
    fill(room, BATCH_MEMORY_BYTES, 99);
    expect_bytes(room, BATCH_MEMORY_BYTES);
    stream_commit(&stream, BATCH_MEMORY_BYTES);
    stream_flush(&stream);
    drain(65536);
    check_seen();
}

/* What is held is counted, and is little more than the bytes that wait. */
static void
expect_dense_queue(size_t waiting)
{
    cr_assert_geq(stream.queued_bytes, waiting);
    cr_assert_leq(stream.queued_bytes, waiting + waiting / 16 + 8192);
}

/* ---- writing to a slow peer ----------------------------------------------------------------- */

Test(stream, what_the_peer_does_not_take_is_queued_and_sent_later)
{
    static char bytes[300000];

    fill(bytes, sizeof(bytes), 1);
    stream_put(&stream, bytes, sizeof(bytes));
    expect_bytes(bytes, sizeof(bytes));
    stream_flush(&stream);
    cr_assert_gt(stream.sent_bytes, 0);
    cr_assert_lt(stream.sent_bytes, sizeof(bytes));
    expect_dense_queue(sizeof(bytes) - stream.sent_bytes);
    cr_assert_not(stream_is_drained(&stream));
    memset(bytes, 0, sizeof(bytes)); /* the queue has its own copy */

    uint64_t before = stream.sent_bytes;
    step(); /* the peer is full: nothing to do */
    cr_assert_eq(stream.sent_bytes, before);
    drain(1000);
    check_seen();
}

Test(stream, small_pieces_are_queued_without_waste)
{
    static char bytes[200000];
    size_t waiting;

    fill(bytes, sizeof(bytes), 1);
    stream_put(&stream, bytes, sizeof(bytes));
    stream_flush(&stream);
    for (size_t size = 1; size < 9000; size = size * 2 + 1) {
        for (int i = 0; i < 40; i++) { /* as chunks are: a size line, data, an end of line */
            stream_put_copy(&stream, "1234\r\n", 6);
            stream_put(&stream, bytes, size);
            stream_put(&stream, "\r\n", 2);
            stream_flush(&stream);
        }
    }
    waiting = sizeof(bytes) - stream.sent_bytes;
    for (size_t size = 1; size < 9000; size = size * 2 + 1) {
        waiting += 40 * (size + 8);
    }
    expect_dense_queue(waiting);
}

/* Makes the stream and its client the two ends of a TCP connection. */
static void
become_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_neq(listener, -1);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, length), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    (void)close(client);
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(client, (struct sockaddr *)&address, length), 0);
    cr_assert_eq(fcntl(client, F_SETFL, O_NONBLOCK), 0);
    stream_close(&stream, loop);
    stream_init(&stream, &batch, accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC),
                on_stream_io);
    cr_assert_neq(stream.io.fd, -1);
    (void)close(listener);
}

static int
unsent_max(void)
{
    int bytes = 0;
    socklen_t length = sizeof(bytes);

    cr_assert_eq(getsockopt(stream.io.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, &length), 0);
    return bytes;
}

Test(stream, the_kernel_holds_little_for_a_slow_peer)
{
    static char bytes[65536];
    int unsent = 0;

    become_tcp();
    cr_assert_neq(unsent_max(), STREAM_UNSENT_MAX_BYTES);
    fill(bytes, sizeof(bytes), 1);
    for (int i = 0; i < 100 && stream_is_drained(&stream); i++) {
        stream_put(&stream, bytes, sizeof(bytes));
        stream_flush(&stream);
    }
    cr_assert_not(stream_is_drained(&stream), "nobody reads, and six megabytes went");
    cr_assert_eq(unsent_max(), STREAM_UNSENT_MAX_BYTES);
    cr_assert_eq(ioctl(stream.io.fd, SIOCOUTQNSD, &unsent), 0);
    cr_assert_leq(unsent, 2 * STREAM_UNSENT_MAX_BYTES);
}

Test(stream, a_peer_that_keeps_up_is_left_alone)
{
    static char bytes[65536];

    become_tcp();
    fill(bytes, sizeof(bytes), 1);
    for (int i = 0; i < 100; i++) {
        stream_put(&stream, bytes, sizeof(bytes));
        stream_flush(&stream);
        cr_assert(stream_is_drained(&stream));
        seen_length = 0;
        while (seen_length < sizeof(bytes)) {
            (void)client_read(sizeof(bytes) - seen_length);
        }
    }
    cr_assert_neq(unsent_max(), STREAM_UNSENT_MAX_BYTES);
}

/* A file of 8 MiB to a peer that takes what comes: one that asks the kernel for more each step_ms.
 */
static void
send_file_to_reader(int64_t step_ms)
{
    const uint64_t length = 8 << 20;
    int64_t now_ms = 1 << 30;
    int fd = memfd_create("file", MFD_CLOEXEC);

    cr_assert_eq(ftruncate(fd, (off_t)length), 0);
    stream_put_file(&stream, fd, 0, length, NULL, NULL);
    while (!stream_is_drained(&stream)) {
        stream_send(&stream, now_ms);
        cr_assert_eq(stream.error, 0);
        seen_length = 0;
        (void)client_read(65536);
        now_ms += step_ms;
    }
    (void)close(fd);
}

Test(stream, the_reader_of_a_file_is_bounded_until_it_keeps_up)
{
    become_tcp();
    send_file_to_reader(1000);
    cr_expect_eq(unsent_max(), STREAM_UNSENT_MAX_BYTES, "65,536 bytes a second");
    send_file_to_reader(0);
    cr_expect_neq(unsent_max(), STREAM_UNSENT_MAX_BYTES, "keeps up");
    send_file_to_reader(1000);
    cr_expect_eq(unsent_max(), STREAM_UNSENT_MAX_BYTES, "was fast, and is slow again");
}

/* Bytes of a file that are in the page cache. */
static size_t
resident_bytes(int fd, size_t length)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *pages = malloc(length / page);
    void *map = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);
    size_t count = 0;

    cr_assert_neq(map, MAP_FAILED);
    cr_assert_eq(mincore(map, length, pages), 0);
    for (size_t i = 0; i < length / page; i++) {
        count += pages[i] & 1u;
    }
    cr_assert_eq(munmap(map, length), 0);
    free(pages);
    return count * page;
}

/* The kernel would read up to two windows ahead of what is sent (read_ahead_kb), inside the call.
 */
Test(stream, a_cold_file_is_read_no_further_than_it_is_sent)
{
    const size_t length = 32u << 20;
    char name[] = "cold-file-XXXXXX"; /* beside the test: in memory nothing is cold */
    int fd = mkstemp(name);

    cr_assert_neq(fd, -1);
    cr_assert_eq(unlink(name), 0);
    cr_assert_eq(ftruncate(fd, (off_t)length), 0);
    become_tcp();
    stream_put_file(&stream, fd, 0, length, NULL, NULL);
    stream_send(&stream, 0);
    cr_assert_gt(stream.sent_bytes, 0);
    cr_expect_leq(resident_bytes(fd, length), stream.sent_bytes + 2 * STREAM_COLD_BYTES);
    (void)close(fd);
}

Test(stream, what_is_put_behind_a_queue_stays_behind)
{
    static char bytes[200000];

    fill(bytes, sizeof(bytes), 1);
    stream_put(&stream, bytes, sizeof(bytes));
    stream_flush(&stream);
    expect_bytes(bytes, sizeof(bytes));
    for (unsigned int i = 0; i < 200; i++) {
        uint64_t before = stream.sent_bytes;
        stream_put_copy(&stream, "small", 5);
        expect_bytes("small", 5);
        if (i % 3 == 0) {
            (void)client_read(700); /* there may be room in the kernel: still no overtaking */
        }
        stream_flush(&stream);
        cr_assert_eq(stream.sent_bytes, before);
    }
    expect_dense_queue(sizeof(bytes) + 1000 - stream.sent_bytes);
    drain(3333);
    check_seen();
}

Test(stream, a_megabyte_and_more_in_random_pieces)
{
    static char bytes[70000];

    srandom(11);
    for (unsigned int i = 0; i < 400; i++) {
        size_t size = (size_t)random() % (i % 40 == 0 ? sizeof(bytes) : 4000);
        fill(bytes, size, i);
        expect_bytes(bytes, size);
        if (random() % 2 == 0 && size <= BATCH_MEMORY_BYTES) {
            stream_put_copy(&stream, bytes, size);
        } else {
            stream_put(&stream, bytes, size);
            stream_flush(&stream); /* the next round overwrites the bytes */
        }
        if (random() % 3 == 0) {
            stream_flush(&stream);
            step();
            (void)client_read(1 + (size_t)random() % 20000);
        }
    }
    stream_flush(&stream);
    drain(50000);
    check_seen();
    cr_assert_gt(expected_length, 1000000);
}

/* ---- files ---------------------------------------------------------------------------------- */

static unsigned int released;

static void
on_release(void *owner)
{
    cr_assert_eq(owner, &released);
    released++;
}

static int
make_file(const char *bytes, size_t size)
{
    int fd = memfd_create("file", MFD_CLOEXEC);

    cr_assert_neq(fd, -1);
    cr_assert_eq(write(fd, bytes, size), (ssize_t)size);
    return fd;
}

Test(stream, parts_of_files_go_between_other_bytes)
{
    static char bytes[200000];

    fill(bytes, sizeof(bytes), 5);
    int file = make_file(bytes, sizeof(bytes));
    stream_put_copy(&stream, "head;", 5);
    expect_bytes("head;", 5);
    stream_put_file(&stream, file, 0, sizeof(bytes), on_release, &released);
    expect_bytes(bytes, sizeof(bytes));
    stream_put_copy(&stream, ";next;", 6);
    stream_put_file(&stream, file, 1000, 1, on_release, &released);
    stream_put_file(&stream, file, sizeof(bytes) - 777, 777, NULL, NULL);
    stream_put_copy(&stream, ";end", 4);
    stream_flush(&stream);
    expect_bytes(";next;", 6);
    expect_bytes(bytes + 1000, 1);
    expect_bytes(bytes + sizeof(bytes) - 777, 777);
    expect_bytes(";end", 4);
    expect_dense_queue(4); /* a file that waits takes no memory */
    cr_assert_eq(released, 0);
    drain(5000);
    check_seen();
    cr_assert_eq(released, 2);
    cr_assert_eq(lseek(file, 0, SEEK_CUR), (off_t)sizeof(bytes)); /* others may read it as well */
    (void)close(file);
}

Test(stream, a_file_that_shrank_breaks_the_response)
{
    static char bytes[100000];

    fill(bytes, sizeof(bytes), 5);
    int file = make_file(bytes, sizeof(bytes));
    stream_put_file(&stream, file, 0, sizeof(bytes), on_release, &released);
    stream_put_copy(&stream, "next", 4);
    stream_flush(&stream);
    cr_assert_eq(ftruncate(file, 50000), 0);
    while (stream.error == 0) {
        step();
        (void)client_read(10000);
        cr_assert_not(stream_is_drained(&stream));
    }
    cr_assert_eq(stream.error, ENODATA);
    while (client_read(10000)) {
    }
    cr_assert_eq(seen_length, 50000); /* and nothing of what came behind it */
    cr_assert_eq(released, 0);
    stream_close(&stream, loop);
    cr_assert_eq(released, 1);
    (void)close(file);
}

Test(stream, one_turn_sends_no_more_than_a_slice)
{
    static char bytes[4 * STREAM_SEND_SLICE_BYTES];
    int large = 8 * STREAM_SEND_SLICE_BYTES;

    /* Only root may have a buffer that would take it all at once. */
    if (setsockopt(stream.io.fd, SOL_SOCKET, SO_SNDBUFFORCE, &large, sizeof(large)) == -1) {
        cr_skip_test("needs CAP_NET_ADMIN for SO_SNDBUFFORCE");
    }
    fill(bytes, sizeof(bytes), 5);
    int file = make_file(bytes, sizeof(bytes));
    stream_put_file(&stream, file, 0, sizeof(bytes), NULL, NULL);
    expect_bytes(bytes, sizeof(bytes));
    for (unsigned int turns = 0; !stream_is_drained(&stream); turns++) {
        uint64_t before = stream.sent_bytes;
        step();
        cr_assert_leq(stream.sent_bytes - before, STREAM_SEND_SLICE_BYTES);
        cr_assert_lt(turns, 1000);
        while (client_read(STREAM_SEND_SLICE_BYTES)) {
        }
    }
    drain(STREAM_SEND_SLICE_BYTES);
    check_seen();
    (void)close(file);
}

Test(stream, one_turn_sends_no_more_than_a_slice_of_memory)
{
    static char bytes[4 * STREAM_SEND_SLICE_BYTES];
    int large = 16 * STREAM_SEND_SLICE_BYTES;

    fill(bytes, sizeof(bytes), 5);
    stream_put(&stream, bytes, sizeof(bytes));
    stream_flush(&stream); /* what a small socket buffer does not take becomes one large segment */
    cr_assert_not(stream_is_drained(&stream));
    if (setsockopt(stream.io.fd, SOL_SOCKET, SO_SNDBUFFORCE, &large, sizeof(large)) == -1) {
        cr_skip_test("needs CAP_NET_ADMIN for SO_SNDBUFFORCE");
    }
    expect_bytes(bytes, sizeof(bytes));
    for (unsigned int turns = 0; !stream_is_drained(&stream); turns++) {
        uint64_t before = stream.sent_bytes;
        step();
        cr_assert_leq(stream.sent_bytes - before, STREAM_SEND_SLICE_BYTES);
        cr_assert_lt(turns, 1000);
        while (client_read(STREAM_SEND_SLICE_BYTES)) {
        }
    }
    drain(STREAM_SEND_SLICE_BYTES);
    check_seen();
}

/* ---- the end -------------------------------------------------------------------------------- */

Test(stream, the_first_write_error_is_kept_and_no_more_is_sent)
{
    static char bytes[100000];
    int file = make_file("file", 4);

    stream_put(&stream, bytes, sizeof(bytes));
    stream_flush(&stream);
    cr_assert_not(stream_is_drained(&stream));
    (void)close(client);
    client = -1;
    stream_put_file(&stream, file, 0, 4, on_release, &released);
    while (stream.error == 0) {
        step();
    }
    cr_assert_eq(stream.error, EPIPE);
    uint64_t sent = stream.sent_bytes;
    size_t queued = stream.queued_bytes;
    stream_put_copy(&stream, "more", 4);
    stream_flush(&stream);
    stream_send(&stream, 0);
    stream_put_copy(&stream, "and more", 8);
    stream_flush(&stream);
    cr_assert_eq(stream.error, EPIPE);
    cr_assert_eq(stream.sent_bytes, sent);
    cr_assert_eq(stream.queued_bytes, queued); /* dropped, not gathered for ever */
    cr_assert_eq(released, 0);
    stream_close(&stream, loop);
    cr_assert_eq(released, 1);
    (void)close(file);
}

Test(stream, an_error_of_a_flush_is_kept)
{
    (void)close(client);
    client = -1;
    stream_put_copy(&stream, "x", 1);
    cr_assert_eq(stream.error, 0);
    stream_flush(&stream);
    cr_assert_eq(stream.error, EPIPE);
    cr_assert(stream_is_drained(&stream));
    cr_assert_null(batch.owner);
}

Test(stream, shutdown_comes_after_all_that_is_queued)
{
    static char bytes[100000];
    char byte;

    fill(bytes, sizeof(bytes), 8);
    stream_put(&stream, bytes, sizeof(bytes));
    expect_bytes(bytes, sizeof(bytes));
    stream_flush(&stream);
    stream_shutdown(&stream);
    cr_assert(stream.shutdown_wanted);
    cr_assert_not(stream.shutdown_done);
    for (unsigned int steps = 0; !stream.shutdown_done; steps++) {
        (void)client_read(2000);
        cr_assert_not(seen_eof);
        step();
        cr_assert_lt(steps, 10000);
    }
    while (client_read(4000)) {
    }
    cr_assert(seen_eof);
    check_seen();
    /* only this direction is closed */
    size_t length;
    cr_assert_eq(write(client, "x", 1), 1);
    cr_assert_eq(stream_read(&stream, &byte, 1, &length), STREAM_OK);
    stream_shutdown(&stream); /* once is enough */
    cr_assert(stream_is_open(&stream));
}

Test(stream, shutdown_of_an_idle_stream_is_at_once)
{
    stream_shutdown(&stream);
    cr_assert(stream.shutdown_done);
    cr_assert_not(client_read(10));
    cr_assert(seen_eof);
}

Test(stream, close_drops_all_and_is_safe_to_repeat)
{
    static char bytes[100000];
    int file = make_file("file", 4);
    int fd = stream.io.fd;

    stream_put(&stream, bytes, sizeof(bytes));
    stream_put_file(&stream, file, 0, 4, on_release, &released);
    stream_put_copy(&stream, "unflushed", 9);
    stream_watch(&stream, loop, EV_READ | EV_WRITE);
    cr_assert(stream_is_open(&stream));
    stream_close(&stream, loop);
    cr_assert_not(stream_is_open(&stream));
    cr_assert_not(ev_is_active(&stream.io));
    cr_assert_eq(released, 1);
    cr_assert_eq(stream.queued_bytes, 0);
    cr_assert_null(batch.owner);
    cr_assert_eq(fcntl(fd, F_GETFD), -1);
    stream_close(&stream, loop);
    cr_assert_eq(released, 1);
    (void)close(file);
}

/* ---- watching ------------------------------------------------------------------------------- */

Test(stream, watches_exactly_what_it_is_told)
{
    static const int interests[] = {EV_READ,  EV_READ, EV_WRITE, EV_READ | EV_WRITE, 0, 0,
                                    EV_WRITE, 0,       EV_READ};

    for (size_t i = 0; i < sizeof(interests) / sizeof(interests[0]); i++) {
        stream_watch(&stream, loop, interests[i]);
        cr_assert_eq(ev_is_active(&stream.io), interests[i] != 0);
        if (interests[i] != 0) {
            cr_assert_eq(stream.io.events & (EV_READ | EV_WRITE), interests[i]);
        }
    }
}
