/* SPDX-License-Identifier: Apache-2.0
 *
 * Death records: who ended it, the ring and its bounds, crash loops, the words for log and JSON.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "master/child.h"
#include "master/deaths.h"
#include "master/respawn.h"

/* Wait statuses as wait(2) encodes them. */
#define EXITED(code) ((code) << 8)
#define KILLED(number) (number)
#define DUMPED(number) ((number) | 0x80)

static struct scoreboard *board;

static void
make_board(void)
{
    board = aligned_alloc(BOARD_LINE, sizeof(*board));
    cr_assert_not_null(board);
    memset(board, 0, sizeof(*board));
}

static void
free_board(void)
{
    free(board);
}

TestSuite(deaths, .init = make_board, .fini = free_board);

static struct board_death
record_of(const char *name, int status, const char *ours, bool oom)
{
    const struct rusage usage = {.ru_utime = {.tv_sec = 1, .tv_usec = 500000},
                                 .ru_stime = {.tv_usec = 20000},
                                 .ru_maxrss = 4096,
                                 .ru_nvcsw = 7,
                                 .ru_nivcsw = 3};
    const struct child_death death = {.pid = 42,
                                      .status = status,
                                      .uptime_ms = 3000,
                                      .ready_ms = 2000,
                                      .before = CHILD_READY,
                                      .ours = ours};
    struct board_death record;

    death_record(&record, name, &death, &usage, oom);
    return record;
}

/* All zero when there is none; until the next call. */
static const struct board_death *
newest(uint32_t back)
{
    static struct board_death record;

    if (!deaths_newest(board, back, &record)) {
        memset(&record, 0, sizeof(record));
    }
    return &record;
}

Test(deaths, somebody_ended_it)
{
    static const struct {
        int status;
        const char *ours;
        bool oom;
        enum death_cause cause;
    } rows[] = {
        {EXITED(0), NULL, false, DEATH_ITSELF},
        {EXITED(3), NULL, false, DEATH_ITSELF},
        {DUMPED(SIGSEGV), NULL, false, DEATH_ITSELF},
        {KILLED(SIGABRT), NULL, false, DEATH_ITSELF},
        {KILLED(SIGABRT), "timeout", false, DEATH_NARWHAL},
        {KILLED(SIGKILL), "boot_timeout", false, DEATH_NARWHAL},
        {KILLED(SIGKILL), NULL, true, DEATH_OOM},
        {KILLED(SIGKILL), NULL, false, DEATH_UNKNOWN},
        {KILLED(SIGTERM), NULL, false, DEATH_UNKNOWN},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct board_death record =
            record_of("worker slot=0", rows[i].status, rows[i].ours, rows[i].oom);
        cr_expect_eq(record.cause, rows[i].cause, "row %zu: %u", i, record.cause);
        cr_expect_eq(record.oom_kill, rows[i].oom ? 1 : 0);
    }
}

Test(deaths, facts_of_a_line_name_only_what_is_there)
{
    struct buf out = {0};
    struct board_death record = record_of("worker slot=0", EXITED(1), NULL, false);

    death_add_facts(&record, &out);
    cr_expect_str_eq(out.ptr, " by=itself cpu_ms=1520 maxrss_kib=4096");
    buf_clear(&out);
    record = record_of("worker slot=0", KILLED(SIGKILL), NULL, true);
    strcpy(record.request, "GET /report");
    record.request_age_ms = 90;
    death_add_facts(&record, &out);
    cr_expect_str_eq(out.ptr, " by=kernel-oom cpu_ms=1520 maxrss_kib=4096 oom_kill=+1"
                              " last_request=\"GET /report\" last_request_age=90ms");
    buf_release(&out);
}

Test(deaths, ring_keeps_the_newest)
{
    cr_expect_eq(newest(0)->pid, 0);
    for (int i = 0; i < BOARD_DEATHS_MAX + 10; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "worker slot=%d", i);
        struct board_death record = record_of(name, EXITED(i % 100), NULL, false);
        deaths_add(board, &record, 1);
        cr_assert_str_eq(newest(0)->name, name);
    }
    cr_expect_str_eq(newest(BOARD_DEATHS_MAX - 1)->name, "worker slot=10");
    cr_expect_eq(newest(BOARD_DEATHS_MAX)->pid, 0);
}

Test(deaths, crash_loop_does_not_push_out_what_was_before)
{
    struct board_death other = record_of("worker slot=1", DUMPED(SIGSEGV), NULL, false);

    deaths_add(board, &other, 1);
    for (uint32_t i = 1; i <= 500; i++) {
        struct board_death record = record_of("instance app/0", EXITED(3), NULL, false);
        deaths_add(board, &record, i);
        if (i == 250) {
            struct board_death between = record_of("worker slot=2", EXITED(9), NULL, false);
            deaths_add(board, &between, 1);
        }
    }
    cr_expect_eq(board->death_count, RESPAWN_TOLD_ONE_BY_ONE + 2);
    cr_expect_eq(newest(0)->deaths, 500);
    cr_expect_str_eq(newest(0)->name, "instance app/0");
    cr_expect_str_eq(newest(1)->name, "worker slot=2");
    cr_expect_str_eq(newest(board->death_count - 1)->name, "worker slot=1");
}

Test(deaths, crash_loop_in_a_full_ring)
{
    for (uint32_t i = 0; i < 3 * BOARD_DEATHS_MAX; i++) {
        struct board_death record = record_of("worker slot=1", EXITED(1), NULL, false);
        deaths_add(board, &record, 1);
    }
    for (uint32_t i = 1; i <= 200; i++) {
        struct board_death record = record_of("instance app/0", EXITED(3), NULL, false);
        deaths_add(board, &record, i);
    }
    cr_expect_eq(board->death_count, BOARD_DEATHS_MAX);
    for (uint32_t back = 0; back < BOARD_DEATHS_MAX; back++) {
        cr_expect_str_eq(newest(back)->name,
                         back < RESPAWN_TOLD_ONE_BY_ONE ? "instance app/0" : "worker slot=1");
    }
    cr_expect_eq(newest(0)->deaths, 200);
}

Test(deaths, first_told_death_in_an_emptied_ring)
{
    /* Its earlier records were pushed out: there is nothing to replace. */
    struct board_death record = record_of("instance app/0", EXITED(3), NULL, false);

    deaths_add(board, &record, 77);
    cr_expect_eq(board->death_count, 1);
    cr_expect_eq(newest(0)->deaths, 77);
}

Test(deaths, json_tells_all)
{
    struct buf out = {0};
    struct board_death record = record_of("instance app/1", KILLED(SIGKILL), "boot_timeout", false);
    char words[1000];

    memset(words, 'x', sizeof(words) - 1);
    words[sizeof(words) - 1] = '\0';
    record.slot = 1;
    record.generation = 5;
    death_set_words(&record, words);
    deaths_add(board, &record, 1);
    deaths_print(board, &out);
    static const char *const expected[] = {
        "{\"deaths\":[{\"time\":\"",
        "\"name\":\"instance app/1\",\"slot\":1,\"pid\":42,\"generation\":5,",
        "\"signal\":\"SIGKILL\",\"core\":0,\"by\":\"narwhal\",\"reason\":\"boot_timeout\"",
        "\"cpu_user_ms\":1500,\"cpu_system_ms\":20,\"maxrss_kib\":4096,",
        "\"switches_voluntary\":7,\"switches_involuntary\":3,",
        "\"last_words\":\"xxx",
    };
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        cr_expect_not_null(strstr(out.ptr, expected[i]), "%s is not in %s", expected[i], out.ptr);
    }
    cr_expect_null(strstr(out.ptr, "last_request"));
    buf_release(&out);
}

Test(deaths, empty_ring_is_an_empty_list)
{
    struct buf out = {0};

    deaths_print(board, &out);
    cr_expect_str_eq(out.ptr, "{\"deaths\":[]}");
    buf_release(&out);
}

Test(deaths, leaving_when_asked_is_no_death)
{
    struct child_death death = {.status = EXITED(0), .before = CHILD_DRAINING};

    cr_expect(child_departed(&death));
    death.status = KILLED(SIGTERM);
    cr_expect(child_departed(&death));
    death.status = DUMPED(SIGSEGV);
    cr_expect_not(child_departed(&death));
    death.status = EXITED(0);
    death.before = CHILD_READY;
    cr_expect_not(child_departed(&death));
    death.before = CHILD_DRAINING;
    death.ours = "graceful_timeout";
    cr_expect_not(child_departed(&death));
}

/* The ring is where workers can write, and the master may be root. */
Test(deaths, a_spoilt_ring_harms_nobody)
{
    static const unsigned char bytes[] = {0xff, 0x80, 0x7f, 'x', 1};
    struct board_death record = record_of("worker slot=1", KILLED(SIGKILL), NULL, false);
    struct buf out = {0};

    for (size_t i = 0; i < sizeof(bytes); i++) {
        memset(board, bytes[i], sizeof(*board));
        buf_clear(&out);
        deaths_print(board, &out);
        cr_expect_lt(out.len, 256 * 1024);
        for (uint32_t k = 0; k < 3; k++) {
            memset(&board->death_next, bytes[i], sizeof(board->death_next));
            memset(&board->death_count, bytes[i], sizeof(board->death_count));
            deaths_add(board, &record, k == 0 ? 1 : RESPAWN_TOLD_ONE_BY_ONE + k);
        }
        cr_expect_str_eq(newest(0)->name, "worker slot=1");
        cr_expect_leq(board->death_count, BOARD_DEATHS_MAX);
        cr_expect_lt(board->death_next, BOARD_DEATHS_MAX);
        buf_clear(&out);
        deaths_print(board, &out);
        cr_expect_lt(out.len, 256 * 1024);
    }
    buf_release(&out);
}
