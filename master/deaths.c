/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring of death records, and how they are told. Invariant: the death_count records before
 * death_next are filled in, oldest first. It is on the scoreboard for the master's successors,
 * where a worker that was taken over can write too: no index and no text is taken from there as it
 * is. Runs in the master.
 */
#include "master/deaths.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "config/base/buf.h"
#include "config/base/clock.h"
#include "master/child.h"
#include "master/json.h"
#include "master/respawn.h"

#define YEAR_9999_MS INT64_C(253402300799999)

static const char *const cause_words[DEATH_CAUSE_COUNT] = {
#define DEATH_CAUSE_WORD(name, word) [DEATH_##name] = word,
    DEATH_CAUSES(DEATH_CAUSE_WORD)
#undef DEATH_CAUSE_WORD
};

static const char *
cause_word(uint32_t cause)
{
    return cause < DEATH_CAUSE_COUNT ? cause_words[cause] : cause_words[DEATH_UNKNOWN];
}

/* ---- one record ------------------------------------------------------------------------------ */

/* Signals that the kernel sends to a process for what it did itself, and abort(3). */
static bool
is_crash(int number)
{
    return number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGFPE ||
           number == SIGTRAP || number == SIGSYS || number == SIGABRT || number == SIGXCPU ||
           number == SIGXFSZ;
}

static enum death_cause
cause_of(const struct child_death *death, bool oom)
{
    if (death->ours != NULL) {
        return DEATH_NARWHAL;
    }
    if (!WIFSIGNALED(death->status) || is_crash(WTERMSIG(death->status))) {
        return DEATH_ITSELF;
    }
    return oom ? DEATH_OOM : DEATH_UNKNOWN;
}

static int64_t
timeval_ms(struct timeval time)
{
    return (int64_t)time.tv_sec * 1000 + time.tv_usec / 1000;
}

void
death_record(struct board_death *ret_record, const char *name, const struct child_death *death,
             const struct rusage *usage, bool oom)
{
    struct board_death *record = ret_record;

    memset(record, 0, sizeof(*record));
    record->when_real_ms = clock_real_ms();
    record->uptime_ms = death->uptime_ms;
    record->ready_ms = death->ready_ms;
    record->was_ready = death->ready_ms > 0 || death->before == CHILD_READY;
    record->cpu_user_ms = timeval_ms(usage->ru_utime);
    record->cpu_system_ms = timeval_ms(usage->ru_stime);
    record->maxrss_kib = usage->ru_maxrss;
    record->switches_voluntary = usage->ru_nvcsw;
    record->switches_involuntary = usage->ru_nivcsw;
    record->pid = (uint32_t)death->pid;
    record->status = death->status;
    record->cause = cause_of(death, oom);
    record->oom_kill = oom ? 1 : 0;
    record->deaths = 1;
    (void)snprintf(record->name, sizeof(record->name), "%s", name);
    (void)snprintf(record->reason, sizeof(record->reason), "%s",
                   death->ours != NULL ? death->ours : "");
}

void
death_set_words(struct board_death *record, const char *words)
{
    (void)snprintf(record->words, sizeof(record->words), "%s", words);
}

void
death_add_facts(const struct board_death *record, struct buf *out)
{
    buf_addf(out, " by=%s cpu_ms=%lld maxrss_kib=%lld", cause_word(record->cause),
             (long long)(record->cpu_user_ms + record->cpu_system_ms),
             (long long)record->maxrss_kib);
    if (record->oom_kill > 0) {
        buf_addf(out, " oom_kill=+%u", record->oom_kill);
    }
    if (record->request[0] != '\0') {
        buf_addf(out, " last_request=\"%s\" last_request_age=%lldms", record->request,
                 (long long)record->request_age_ms);
    }
}

/* ---- the ring -------------------------------------------------------------------------------- */

static uint32_t
index_of(const struct scoreboard *board, uint32_t back)
{
    return (board->death_next + BOARD_DEATHS_MAX - 1 - back) % BOARD_DEATHS_MAX;
}

static uint32_t
count_of(const struct scoreboard *board)
{
    uint32_t count = board->death_count;

    return count < BOARD_DEATHS_MAX ? count : BOARD_DEATHS_MAX;
}

bool
deaths_newest(const struct scoreboard *board, uint32_t back, struct board_death *ret_record)
{
    if (back >= count_of(board)) {
        return false;
    }
    *ret_record = board->deaths[index_of(board, back)];
    ret_record->name[sizeof(ret_record->name) - 1] = '\0';
    ret_record->reason[sizeof(ret_record->reason) - 1] = '\0';
    ret_record->request[sizeof(ret_record->request) - 1] = '\0';
    ret_record->words[sizeof(ret_record->words) - 1] = '\0';
    if (ret_record->when_real_ms < 0 || ret_record->when_real_ms > YEAR_9999_MS) {
        ret_record->when_real_ms = 0; /* no instant of any clock */
    }
    return true;
}

/* Takes the newest record of the child of that name out; what is newer moves down. */
static void
remove_newest_of(struct scoreboard *board, const char *name)
{
    uint32_t count = count_of(board);
    uint32_t back = 0;

    while (back < count && strncmp(board->deaths[index_of(board, back)].name, name,
                                   sizeof(board->deaths[0].name)) != 0) {
        back++;
    }
    if (back == count) {
        return;
    }
    for (; back > 0; back--) {
        board->deaths[index_of(board, back)] = board->deaths[index_of(board, back - 1)];
    }
    board->death_next = index_of(board, 0);
    board->death_count = count - 1;
}

void
deaths_add(struct scoreboard *board, struct board_death *record, uint32_t in_row)
{
    record->deaths = in_row;
    if (in_row > RESPAWN_TOLD_ONE_BY_ONE) {
        remove_newest_of(board, record->name);
    }
    uint32_t count = count_of(board);
    uint32_t next = board->death_next % BOARD_DEATHS_MAX;
    board->deaths[next] = *record;
    board->death_next = (next + 1) % BOARD_DEATHS_MAX;
    board->death_count = count < BOARD_DEATHS_MAX ? count + 1 : count;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void
print_end(const struct board_death *record, struct buf *out)
{
    if (WIFSIGNALED(record->status)) {
        const char *name = sigabbrev_np(WTERMSIG(record->status));
        char text[32];
        (void)snprintf(text, sizeof(text), "SIG%s", name != NULL ? name : "?");
        json_text(out, "signal", text);
        json_number(out, "core", WCOREDUMP(record->status) ? 1 : 0);
    } else {
        json_number(out, "exit", WEXITSTATUS(record->status));
    }
    json_text(out, "by", cause_word(record->cause));
    if (record->reason[0] != '\0') {
        json_text(out, "reason", record->reason);
    }
    json_number(out, "oom_kill", record->oom_kill);
}

void
deaths_print_fields(const struct board_death *record, struct buf *out)
{
    json_text(out, "name", record->name);
    json_number(out, "slot", record->slot);
    json_number(out, "pid", record->pid);
    json_number(out, "generation", (int64_t)record->generation);
    print_end(record, out);
    json_number(out, "deaths", record->deaths);
    json_number(out, "uptime_ms", record->uptime_ms);
    if (record->was_ready) {
        json_number(out, "ready_ms", record->ready_ms);
    } else {
        json_none(out, "ready_ms");
    }
    json_number(out, "cpu_user_ms", record->cpu_user_ms);
    json_number(out, "cpu_system_ms", record->cpu_system_ms);
    json_number(out, "maxrss_kib", record->maxrss_kib);
    json_number(out, "switches_voluntary", record->switches_voluntary);
    json_number(out, "switches_involuntary", record->switches_involuntary);
    if (record->request[0] != '\0') {
        json_text(out, "last_request", record->request);
        json_number(out, "last_request_age_ms", record->request_age_ms);
    }
    if (record->words[0] != '\0') {
        json_text(out, "last_words", record->words);
    }
}

static void
print_record(const struct board_death *record, struct buf *out)
{
    char time[CLOCK_ISO8601_SIZE];

    clock_format_iso8601(record->when_real_ms, time);
    json_open(out, NULL, '{');
    json_text(out, "time", time);
    deaths_print_fields(record, out);
    json_close(out, '}');
}

void
deaths_print(const struct scoreboard *board, struct buf *out)
{
    struct board_death record;

    json_open(out, NULL, '{');
    json_open(out, "deaths", '[');
    for (uint32_t back = 0; deaths_newest(board, back, &record); back++) {
        print_record(&record, out);
    }
    json_close(out, ']');
    json_close(out, '}');
}
