/* SPDX-License-Identifier: Apache-2.0
 *
 * The program narwhalctl: sends a command to the control socket of a running master, shows the
 * answer, and says in its exit status how it went. A client for people and scripts, so it may wait,
 * but not for ever.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "master/ctl_json.h"
#include "master/ctl_show.h"
#include "master/ctl_table.h"

#define DEFAULT_PATH "/run/narwhal/narwhal.ctl"
#define ANSWER_TIMEOUT_S 5
#define ANSWER_BYTES_MAX ((size_t)16 << 20)
#define COMMAND_MAX 512
#define WAIT_DEFAULT_S 600
#define WAIT_MOST_S (7 * 24 * 3600)
/* How often an operation is asked for: soon at first, then rarely. */
#define POLL_FIRST_MS 20
#define POLL_MOST_MS 250
/* A master that exchanges its program, or is started again, is not there for a moment. */
#define AWAY_MS 5000
#define AWAY_LOOK_MS 100

static const char usage[] =
    "usage: narwhalctl [-s PATH] [--json] [--wait [--timeout SECONDS]] COMMAND [WORD…]\n"
    "\n"
    "look:\n"
    "  ping              is the master there?\n"
    "  status            everything below at once\n"
    "  workers           worker processes by slot\n"
    "  backends          backends with their servers\n"
    "  lanes             listening sockets: how many clients wait, which slot serves them\n"
    "  deaths            how workers and app instances died, newest first\n"
    "  events            what happens, as it happens, until it is interrupted\n"
    "  operation NUMBER  what came of an order\n"
    "order:\n"
    "  reload            read the settings again (SIGHUP)\n"
    "  restart BACKEND   replace the app instances of a backend one by one\n"
    "  scale N           that many workers\n"
    "  drain SLOT        replace the worker of a slot; it finishes what it has\n"
    "  upgrade           become the binary that now stands where narwhal was started from "
    "(SIGUSR2)\n"
    "  server BACKEND ADDRESS drain|disable|enable\n"
    "                    take a server of a backend out, or bring it back: drain lets what is "
    "open\n"
    "                    end and goes on asking for health_path, disable does not ask either\n"
    "\n"
    "  -s PATH           the control socket ([master] control); default $NARWHAL_CONTROL, else\n"
    "                    " DEFAULT_PATH "\n"
    "  --json            the answer as JSON, one line\n"
    "  --wait            until the order is carried out: reload, restart, scale, drain, upgrade,\n"
    "                    operation\n"
    "  --timeout SECONDS how long --wait waits at most; default 600\n"
    "  --help, --version\n"
    "\n"
    "exit status: 0 done, 1 refused or failed, 64 wrong usage, 69 no master answers, 74 the "
    "answer\n"
    "cannot be written, 75 it takes longer than --timeout\n";

struct options {
    const char *path;
    bool as_json;
    bool waits;
    long timeout_s; /* 0: not given */
};

/* ---- talking to the master ------------------------------------------------------------------- */

static int
usage_error(const char *what, const char *value)
{
    (void)fprintf(stderr, "narwhalctl: %s%s\n%s", what, value, usage);
    return EX_USAGE;
}

static int
unavailable(const char *path, const char *what, int error)
{
    (void)fprintf(stderr,
                  "narwhalctl: no answer from a master at %s: %s: %s; is narwhal running with "
                  "control = %s?\n",
                  path, what, strerror(error), path);
    return EX_UNAVAILABLE;
}

/* What went wrong while a master was asked: the step and the errno. */
struct trouble {
    const char *step;
    int error;
};

static int
fail(struct trouble *trouble, const char *step, int error)
{
    *trouble = (struct trouble){.step = step, .error = error};
    return -error;
}

static int
connect_to(const char *path, int *ret_fd, struct trouble *trouble)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct timeval timeout = {.tv_sec = ANSWER_TIMEOUT_S};

    if (strlen(path) >= sizeof(address.sun_path)) {
        return fail(trouble, "connect", ENAMETOOLONG);
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) == -1 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) == -1 ||
        connect(fd, (const struct sockaddr *)&address, sizeof(address)) == -1) {
        int error = errno == EAGAIN ? ETIMEDOUT : errno;
        fd_close(&fd);
        return fail(trouble, "connect", error);
    }
    *ret_fd = fd;
    return 0;
}

static int
send_line(int fd, const char *command, struct trouble *trouble)
{
    char line[COMMAND_MAX + 1];
    int length = snprintf(line, sizeof(line), "%s\n", command);

    if (send(fd, line, (size_t)length, MSG_NOSIGNAL) != length) {
        return fail(trouble, "send", errno == EAGAIN ? ETIMEDOUT : errno);
    }
    return 0;
}

/* One line, without its end; what came behind it stays in rest, which is read first. */
static int
read_line(int fd, struct buf *rest, struct buf *ret_line, struct trouble *trouble)
{
    buf_clear(ret_line);
    for (;;) {
        char *end = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
        if (end != NULL) {
            size_t length = (size_t)(end - rest->ptr);
            buf_add(ret_line, rest->ptr, length);
            rest->len -= length + 1;
            memmove(rest->ptr, end + 1, rest->len);
            return 0;
        }
        if (rest->len > ANSWER_BYTES_MAX) {
            return fail(trouble, "read", EMSGSIZE);
        }
        ssize_t n = fd_read(fd, buf_reserve(rest, 8192), 8192);
        if (n <= 0) {
            return fail(trouble, "read", n == 0 ? ECONNRESET : errno == EAGAIN ? ETIMEDOUT : errno);
        }
        rest->len += (size_t)n;
    }
}

/* One command, one answer. */
static int
ask(const char *path, const char *command, struct buf *ret_line, struct trouble *trouble)
{
    struct buf rest = {0};
    int fd = -1;
    int result = connect_to(path, &fd, trouble);

    if (result == 0) {
        result = send_line(fd, command, trouble);
    }
    /* Also when it could not be sent: a master that turns clients away says why. */
    if (fd != -1 && (result == 0 || trouble->error == EPIPE)) {
        struct trouble reading;
        int read = read_line(fd, &rest, ret_line, &reading);
        if (result == 0 && read != 0) {
            *trouble = reading;
        }
        result = read == 0 ? 0 : result != 0 ? result : read;
    }
    fd_close(&fd);
    buf_release(&rest);
    return result;
}

/* ---- showing --------------------------------------------------------------------------------- */

static int
write_out(const char *text, size_t length)
{
    if (fwrite(text, 1, length, stdout) != length || fflush(stdout) == EOF) {
        perror("narwhalctl: cannot write to stdout");
        return EX_IOERR;
    }
    return EXIT_SUCCESS;
}

static bool
has_failed(const json_t *answer)
{
    return strcmp(ctl_text(answer, "state", ""), "failed") == 0 &&
           json_object_get(answer, "operation") != NULL;
}

static void
tell_error(const char *error)
{
    char text[1024];

    (void)snprintf(text, sizeof(text), "%s", error);
    ctl_make_harmless(text);
    (void)fprintf(stderr, "narwhalctl: %s\n", text);
}

/* The reason may have several lines; each is a whole sentence. */
static void
show_failure(const char *what, const char *why)
{
    (void)fprintf(stderr, "narwhalctl: %s failed:\n", what);
    while (*why != '\0') {
        size_t length = strcspn(why, "\n");
        struct buf line = {0};
        buf_add(&line, why, length);
        if (line.ptr != NULL) {
            ctl_make_harmless(line.ptr);
            (void)fprintf(stderr, "  %s\n", line.ptr);
        }
        buf_release(&line);
        why += length + (why[length] == '\n');
    }
}

static int
show_answer(const struct options *options, const char *command, json_t *answer,
            const struct buf *line)
{
    const char *error = ctl_text(answer, "error", NULL);
    bool is_refused = error != NULL || has_failed(answer);
    struct buf out = {0};

    if (options->as_json) {
        buf_add(&out, line->ptr, line->len);
        buf_add(&out, "\n", 1);
    } else if (error != NULL) {
        tell_error(error);
    } else if (is_refused) {
        show_failure(ctl_text(answer, "kind", command), ctl_text(answer, "text", ""));
    } else {
        ctl_show(command, answer, &out);
    }
    int status = out.len > 0 ? write_out(out.ptr, out.len) : EXIT_SUCCESS;
    buf_release(&out);
    return status != EXIT_SUCCESS ? status : is_refused ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int
broken_answer(const char *path)
{
    (void)fprintf(stderr,
                  "narwhalctl: what answers at %s is no narwhal: its answer is no object of JSON; "
                  "is control = %s?\n",
                  path, path);
    return EX_UNAVAILABLE;
}

static json_t *
parse_object(const struct buf *line)
{
    return ctl_json_parse(line->len > 0 ? line->ptr : "", line->len);
}

/* ---- waiting for an order -------------------------------------------------------------------- */

static void
pause_ms(int64_t ms)
{
    (void)poll(NULL, 0, (int)ms);
}

struct progress {
    bool is_shown;
    bool is_tty;
    char *last; /* owned */
};

static void
progress_show(struct progress *progress, const json_t *answer)
{
    const char *text = ctl_text(answer, "text", "");

    if (!progress->is_shown || (progress->last != NULL && strcmp(progress->last, text) == 0)) {
        return;
    }
    free(progress->last);
    progress->last = strdup(text);
    if (progress->last != NULL) {
        ctl_make_harmless(progress->last);
    }
    /* A line that wraps could not be taken back. */
    (void)fprintf(stderr, progress->is_tty ? "\r\033[K%s: %.60s" : "%s: %s\n",
                  ctl_text(answer, "kind", "operation"),
                  progress->last != NULL ? progress->last : "");
}

static void
progress_end(struct progress *progress)
{
    if (progress->is_tty && progress->last != NULL) {
        (void)fputs("\r\033[K", stderr);
    }
    free(progress->last);
    progress->last = NULL;
}

static int
timed_out(const json_t *answer, int64_t timeout_ms)
{
    char text[1024];

    (void)snprintf(text, sizeof(text),
                   "%s is not done after %lld s: %s; it goes on, \"narwhalctl operation %s\" tells "
                   "what comes of it",
                   ctl_text(answer, "kind", "the operation"), (long long)timeout_ms / 1000,
                   ctl_text(answer, "text", "?"), ctl_text(answer, "operation", "?"));
    tell_error(text);
    return EX_TEMPFAIL;
}

/* Asks for the operation until it has ended. line and *answer are the answer to the order, and
 * become the last one. 0, or an exit status that was told. */
static int
wait_for(const struct options *options, struct buf *line, json_t **answer)
{
    int64_t timeout_ms =
        (int64_t)(options->timeout_s > 0 ? options->timeout_s : WAIT_DEFAULT_S) * 1000;
    int64_t until_ms = clock_mono_ms() + timeout_ms;
    int64_t delay_ms = POLL_FIRST_MS;
    int64_t away_since_ms = 0;
    struct progress progress = {.is_shown = !options->as_json, .is_tty = isatty(STDERR_FILENO)};
    struct trouble trouble;
    char command[64];
    int status = 0;

    (void)snprintf(command, sizeof(command), "operation %s", ctl_text(*answer, "operation", "0"));
    while (status == 0 && strcmp(ctl_text(*answer, "state", ""), "running") == 0) {
        progress_show(&progress, *answer);
        int64_t now_ms = clock_mono_ms();
        if (now_ms >= until_ms) {
            progress_end(&progress);
            status = timed_out(*answer, timeout_ms);
            break;
        }
        pause_ms(delay_ms < until_ms - now_ms ? delay_ms : until_ms - now_ms);
        delay_ms = delay_ms * 2 < POLL_MOST_MS ? delay_ms * 2 : POLL_MOST_MS;
        struct buf next = {0};
        if (ask(options->path, command, &next, &trouble) != 0) {
            now_ms = clock_mono_ms();
            away_since_ms = away_since_ms == 0 ? now_ms : away_since_ms;
            if (now_ms - away_since_ms >= AWAY_MS) {
                progress_end(&progress);
                status = unavailable(options->path, trouble.step, trouble.error);
            }
            buf_release(&next);
            continue;
        }
        away_since_ms = 0;
        json_decref(*answer);
        buf_release(line);
        *line = next;
        *answer = parse_object(line);
        if (*answer == NULL) {
            progress_end(&progress);
            status = broken_answer(options->path);
        }
    }
    progress_end(&progress);
    return status;
}

static int
run_command(const struct options *options, const char *name, const char *command)
{
    struct buf line = {0};
    struct trouble trouble;
    int status;

    if (ask(options->path, command, &line, &trouble) != 0) {
        buf_release(&line);
        return unavailable(options->path, trouble.step, trouble.error);
    }
    json_t *answer = parse_object(&line);
    status = answer == NULL ? broken_answer(options->path) : 0;
    if (status == 0 && options->waits && json_object_get(answer, "operation") != NULL) {
        status = wait_for(options, &line, &answer);
    }
    if (status == 0) {
        status = show_answer(options, name, answer, &line);
    }
    json_decref(answer);
    buf_release(&line);
    return status;
}

/* ---- events ---------------------------------------------------------------------------------- */

static int
show_event(const struct options *options, const struct buf *line)
{
    json_t *event = parse_object(line);
    struct buf out = {0};
    int status = EXIT_SUCCESS;

    if (event == NULL) {
        return broken_answer(options->path);
    }
    if (options->as_json) {
        buf_add(&out, line->ptr, line->len);
    } else if (ctl_text(event, "error", NULL) != NULL) {
        tell_error(ctl_text(event, "error", ""));
    } else {
        ctl_show_event(event, &out);
    }
    if (out.len > 0) {
        buf_add(&out, "\n", 1);
        status = write_out(out.ptr, out.len);
    }
    if (status == EXIT_SUCCESS && ctl_text(event, "error", NULL) != NULL) {
        status = EXIT_FAILURE;
    }
    buf_release(&out);
    json_decref(event);
    return status;
}

/* Until the stream ends (0), or what cannot be helped. */
static int
follow(const struct options *options, int fd, bool *ret_heard)
{
    const struct timeval forever = {0};
    struct buf rest = {0};
    struct buf line = {0};
    struct trouble trouble;
    int status = 0;

    while (status == 0 && read_line(fd, &rest, &line, &trouble) == 0) {
        *ret_heard = true;
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
        status = show_event(options, &line);
    }
    buf_release(&rest);
    buf_release(&line);
    return status;
}

/* A master that exchanges its program ends the stream: the next one goes on with it. */
static int
run_events(const struct options *options)
{
    struct trouble trouble = {.step = "read", .error = ECONNRESET};
    int64_t heard_ms = 0;

    for (;;) {
        int fd = -1;
        bool heard = false;
        int result = connect_to(options->path, &fd, &trouble);
        if (result == 0) {
            result = send_line(fd, "events", &trouble);
        }
        int status = result == 0 ? follow(options, fd, &heard) : 0;
        fd_close(&fd);
        if (status != 0) {
            return status;
        }
        if (heard) {
            heard_ms = clock_mono_ms();
            (void)fputs("narwhalctl: the stream ended; connecting again, what happened meanwhile "
                        "is missing\n",
                        stderr);
        }
        if (heard) {
            continue; /* who exchanges its program keeps the socket: it only has to wait in it */
        }
        if (heard_ms == 0 || clock_mono_ms() - heard_ms >= AWAY_MS) {
            return unavailable(options->path, trouble.step, trouble.error);
        }
        pause_ms(AWAY_LOOK_MS);
    }
}

/* ---- the command line ------------------------------------------------------------------------ */

struct command_form {
    const char *name;
    int words;
    bool may_wait;
};

static const struct command_form command_forms[] = {
    {"ping", 0, false},   {"status", 0, false}, {"workers", 0, false}, {"backends", 0, false},
    {"lanes", 0, false},  {"deaths", 0, false}, {"events", 0, false},  {"operation", 1, true},
    {"reload", 0, true},  {"restart", 1, true}, {"scale", 1, true},    {"drain", 1, true},
    {"upgrade", 0, true}, {"server", 3, false}};

static const struct command_form *
form_find(const char *name)
{
    for (size_t i = 0; i < sizeof(command_forms) / sizeof(command_forms[0]); i++) {
        if (strcmp(name, command_forms[i].name) == 0) {
            return &command_forms[i];
        }
    }
    return NULL;
}

/* Adds a word to the line that is sent. Blanks and line ends would make other words of it. */
static bool
add_word(char *line, size_t size, const char *word)
{
    size_t length = strlen(line);
    int written = snprintf(line + length, size - length, "%s%s", length > 0 ? " " : "", word);

    return word[strcspn(word, " \t\r\n")] == '\0' && word[0] != '\0' && written >= 0 &&
           (size_t)written < size - length;
}

static bool
parse_seconds(const char *text, long *ret_seconds)
{
    char *end = NULL;

    errno = 0;
    *ret_seconds = strtol(text, &end, 10);
    return errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == '\0' && *ret_seconds > 0 &&
           *ret_seconds <= WAIT_MOST_S;
}

/* The option at *i, and its value. -1: it is none; otherwise an exit status, 0 to go on. */
static int
take_option(char **argv, int argc, int *i, struct options *options)
{
    const char *name = argv[*i];

    if (strcmp(name, "--json") == 0) {
        options->as_json = true;
        return 0;
    }
    if (strcmp(name, "--wait") == 0) {
        options->waits = true;
        return 0;
    }
    if (strcmp(name, "-s") != 0 && strcmp(name, "--timeout") != 0) {
        return -1;
    }
    if (++*i == argc) {
        return usage_error(name, name[1] == 's' ? " needs a path" : " needs a number of seconds");
    }
    if (name[1] == 's') {
        options->path = argv[*i];
        return 0;
    }
    return parse_seconds(argv[*i], &options->timeout_s)
               ? 0
               : usage_error("--timeout needs a number of seconds from 1 on, not ", argv[*i]);
}

static int
check_options(const struct options *options, const struct command_form *form)
{
    if (options->path[0] == '\0') {
        (void)fputs("narwhalctl: there is no control socket to ask: $NARWHAL_CONTROL or -s is "
                    "empty; give the path that [master] control has\n",
                    stderr);
        return EX_USAGE;
    }
    if (options->waits && !form->may_wait) {
        return usage_error("there is nothing to --wait for in ", form->name);
    }
    if (options->timeout_s > 0 && !options->waits) {
        return usage_error("--timeout is for --wait", "");
    }
    return 0;
}

int
main(int argc, char **argv)
{
    const char *from_environment = getenv("NARWHAL_CONTROL");
    struct options options = {.path = from_environment != NULL ? from_environment : DEFAULT_PATH};
    const struct command_form *form = NULL;
    char command[COMMAND_MAX] = "";
    int words_left = 0;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return write_out(usage, strlen(usage));
        }
        if (strcmp(argv[i], "--version") == 0) {
            static const char version[] = "narwhalctl " NARWHAL_VERSION "\n";
            return write_out(version, strlen(version));
        }
        int status = take_option(argv, argc, &i, &options);
        if (status > 0) {
            return status;
        }
        if (status == 0) {
            continue;
        }
        if (form == NULL) {
            form = form_find(argv[i]);
            if (form == NULL) {
                return usage_error(argv[i][0] == '-' ? "unknown option " : "unknown command ",
                                   argv[i]);
            }
            words_left = form->words;
        } else if (words_left-- == 0) {
            return usage_error("unexpected argument ", argv[i]);
        }
        if (!add_word(command, sizeof(command), argv[i])) {
            return usage_error("unusable argument ", argv[i]);
        }
    }
    if (form == NULL) {
        return usage_error("which command?", "");
    }
    if (words_left > 0) {
        return usage_error("something is missing behind ", command);
    }
    int status = check_options(&options, form);
    if (status != 0) {
        return status;
    }
    return strcmp(form->name, "events") == 0 ? run_events(&options)
                                             : run_command(&options, form->name, command);
}
