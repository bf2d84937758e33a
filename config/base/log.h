/* SPDX-License-Identifier: Apache-2.0
 *
 * The error log: one event, one line, one write(2), so that lines of many processes on one
 * descriptor never tear. Line form:
 *
 *   2026-11-21T10:40:01.123Z warn master[4711]: worker died slot=2 pid=4720 signal=SIGKILL
 *
 * Where systemd reads it (log_sink.h) the line begins with the priority and has no time; syslog and
 * journald get all but the message as fields. Message first, then key=value tails. errno is
 * preserved by every function here.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>

enum log_level {
    LOG_LEVEL_ERROR = 0,
    LOG_LEVEL_WARN,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_COUNT
};

/* A reader that does not read must not stop the process that writes: where the descriptor is no
 * file and takes nothing now, the line is dropped, and the next one that is taken says how many
 * were.
 *
 * Sets where lines go. fd stays the caller's; it must outlive the log. role names the process in
 * each line ("master", "worker 0") and is copied. May be called again (after fork, on reopen). */
void log_setup(int fd, enum log_level level, const char *role);
void log_set_level(enum log_level level);
void log_set_fd(int fd);
int log_fd(void);
/* Whether a line would be taken now. For who can wait with a line, and not for every line. */
bool log_takes_line(void);
bool log_enabled(enum log_level level);
const char *log_level_name(enum log_level level);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_write_v(enum log_level level, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

/* The level is tested before the arguments are evaluated. */
#define log_at(level, ...) (log_enabled(level) ? log_write((level), __VA_ARGS__) : (void)0)
#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)
