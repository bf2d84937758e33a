/* SPDX-License-Identifier: Apache-2.0
 *
 * The program narwhalctl: sends one command to the control socket of a running master, prints the
 * answer, and says in its exit status how it went. A client for people and scripts, so it may wait,
 * but not for ever.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "config/base/fd.h"

#define DEFAULT_PATH "/run/narwhal/narwhal.ctl"
#define TIMEOUT_S 5
#define COMMAND_MAX 512

static const char usage[] =
    "usage: narwhalctl [-s PATH] COMMAND\n"
    "\n"
    "  ping      is the master there?\n"
    "  status    workers, backends, listening sockets and totals, as JSON\n"
    "  deaths    how workers and app instances died, newest first, as JSON\n"
    "  upgrade   become the binary that now stands where narwhal was started from (SIGUSR2)\n"
    "  server BACKEND ADDRESS drain|disable|enable\n"
    "            take a server of a backend out, or bring it back: drain lets what is open end "
    "and\n"
    "            goes on asking for health_path, disable does not ask either\n"
    "\n"
    "  -s PATH   the control socket ([master] control); default $NARWHAL_CONTROL, else\n"
    "            " DEFAULT_PATH "\n"
    "  --help    this text\n"
    "  --version the version\n"
    "\n"
    "exit status: 0 done, 1 the master refused the command, 64 wrong usage, 69 no master answers\n";

static int
usage_error(const char *what, const char *value)
{
    (void)fprintf(stderr, "narwhalctl: %s%s\n%s", what, value, usage);
    return EX_USAGE;
}

static int
unavailable(const char *path, const char *what)
{
    (void)fprintf(stderr,
                  "narwhalctl: no answer from a master at %s: %s: %s; is narwhal running with "
                  "control = %s?\n",
                  path, what, strerror(errno), path);
    return EX_UNAVAILABLE;
}

static int
connect_to(const char *path, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct timeval timeout = {.tv_sec = TIMEOUT_S};

    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return unavailable(path, "connect");
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) == -1 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) == -1 ||
        connect(fd, (const struct sockaddr *)&address, sizeof(address)) == -1) {
        int status = unavailable(path, "connect");
        fd_close(&fd);
        return status;
    }
    *ret_fd = fd;
    return 0;
}

/* Prints the one line of the answer as it comes. */
static int
print_answer(int fd, const char *path)
{
    char bytes[8192];
    bool is_first = true;
    bool is_error = false;

    for (;;) {
        ssize_t n = fd_read(fd, bytes, sizeof(bytes));
        if (n <= 0) {
            errno = n == 0 ? ECONNRESET : errno == EAGAIN ? ETIMEDOUT : errno;
            return unavailable(path, "read");
        }
        if (is_first) {
            is_error = (size_t)n >= 8 && memcmp(bytes, "{\"error\"", 8) == 0;
            is_first = false;
        }
        (void)fwrite(bytes, 1, (size_t)n, stdout);
        if (bytes[n - 1] == '\n') {
            break;
        }
    }
    if (fflush(stdout) == EOF) {
        perror("narwhalctl: cannot write to stdout");
        return EXIT_FAILURE;
    }
    return is_error ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int
ask(const char *path, const char *command)
{
    char line[COMMAND_MAX + 1];
    int fd = -1;
    int status = connect_to(path, &fd);

    if (status != 0) {
        return status;
    }
    int length = snprintf(line, sizeof(line), "%s\n", command);
    if (send(fd, line, (size_t)length, MSG_NOSIGNAL) != length) {
        status = unavailable(path, "send");
    } else {
        status = print_answer(fd, path);
    }
    fd_close(&fd);
    return status;
}

/* How many words follow the command; -1: there is no such command. */
static int
command_arguments(const char *text)
{
    static const struct {
        const char *name;
        int arguments;
    } commands[] = {{"ping", 0}, {"status", 0}, {"deaths", 0}, {"upgrade", 0}, {"server", 3}};

    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(text, commands[i].name) == 0) {
            return commands[i].arguments;
        }
    }
    return -1;
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

int
main(int argc, char **argv)
{
    const char *from_environment = getenv("NARWHAL_CONTROL");
    const char *path = from_environment != NULL ? from_environment : DEFAULT_PATH;
    char command[COMMAND_MAX] = "";
    int words_left = -1; /* -1: no command yet */

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            (void)fputs(usage, stdout);
            return EXIT_SUCCESS;
        }
        if (strcmp(argv[i], "--version") == 0) {
            (void)puts("narwhalctl " NARWHAL_VERSION);
            return EXIT_SUCCESS;
        }
        if (strcmp(argv[i], "-s") == 0) {
            if (++i == argc) {
                return usage_error("-s needs a path", "");
            }
            path = argv[i];
        } else if (words_left != 0 && (words_left > 0 || command_arguments(argv[i]) >= 0)) {
            words_left = words_left > 0 ? words_left - 1 : command_arguments(argv[i]);
            if (!add_word(command, sizeof(command), argv[i])) {
                return usage_error("unusable argument ", argv[i]);
            }
        } else {
            return usage_error("unexpected argument ", argv[i]);
        }
    }
    if (words_left > 0) {
        return usage_error("something is missing behind ", command);
    }
    return words_left == 0 ? ask(path, command) : usage_error("which command?", "");
}
