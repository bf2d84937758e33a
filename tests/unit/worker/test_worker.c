/* SPDX-License-Identifier: Apache-2.0
 *
 * A whole worker in a child process, driven through its channel as the master does it: birth,
 * lanes, settings, drain, and what happens when either side misbehaves.
 */
#include "worker/worker.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "worker/channel.h"
#include "worker/scoreboard.h"

/* Longest wait for an event; only a failing test waits that long. */
#define PATIENCE_MS 30000

struct rig {
    pid_t pid;
    int channel;
    int listener;
    struct scoreboard *board;
    char folder[64];
    char socket_path[96];
};

static int
make_image(const char *respond_text)
{
    char path[] = "/tmp/narwhal-unit-XXXXXX";
    int fd = mkstemp(path);
    char text[256];
    char name[] = "narwhal";
    char option[] = "-c";
    char *argv[] = {name, option, path, NULL};
    char *envp[] = {NULL};
    struct config_args args;
    struct config_errors errors = {0};

    int length =
        snprintf(text, sizeof(text), "[route:r]\npath = /\nrespond = 200 %s\n", respond_text);
    cr_assert_eq(write(fd, text, (size_t)length), length);
    close(fd);
    config_args_parse(&args, 3, argv, envp);
    struct config *config = config_load(&args, &errors);
    unlink(path);
    cr_assert_not_null(config, "%s", errors.count > 0 ? errors.item[0] : "");
    int image = config_write_image(config);
    cr_assert_geq(image, 0);
    config_free(config);
    config_args_release(&args);
    return image;
}

static void
rig_start(struct rig *rig)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int theirs = -1;
    int board_fd = -1;

    (void)snprintf(rig->folder, sizeof(rig->folder), "/tmp/narwhal-unit-XXXXXX");
    cr_assert_not_null(mkdtemp(rig->folder));
    (void)snprintf(rig->socket_path, sizeof(rig->socket_path), "%s/s", rig->folder);
    (void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", rig->socket_path);
    rig->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(rig->listener, (struct sockaddr *)&un, sizeof(un)), 0);
    cr_assert_eq(listen(rig->listener, 64), 0);
    rig->board = scoreboard_create(&board_fd);
    cr_assert_not_null(rig->board);
    close(board_fd);
    atomic_store(&rig->board->workers[0].state, BOARD_STARTING);
    cr_assert_eq(channel_pair(&rig->channel, &theirs), 0);
    rig->pid = fork();
    if (rig->pid == 0) {
        struct heritage heritage = {.channel_fd = theirs,
                                    .error_log_fd = STDERR_FILENO,
                                    .access_log_fd = -1,
                                    .board = rig->board,
                                    .master_pid = getppid()};
        close(rig->channel);
        close(rig->listener);
        log_setup(STDERR_FILENO, LOG_LEVEL_ERROR, "worker 0");
        exit(worker_main(&heritage));
    }
    close(theirs);
}

static void
rig_release(struct rig *rig)
{
    close(rig->channel);
    close(rig->listener);
    unlink(rig->socket_path);
    rmdir(rig->folder);
    munmap(rig->board, sizeof(*rig->board));
}

static void
tell(struct rig *rig, enum channel_type type, int fd)
{
    struct channel_message message = {.type = type, .serial = 1, .timeout_ms = PATIENCE_MS};

    cr_assert_eq(channel_send(rig->channel, &message, fd), 0);
}

static struct channel_message
hear(struct rig *rig)
{
    struct pollfd poll_fd = {.fd = rig->channel, .events = POLLIN};
    struct channel_message message = {0};
    int fd = -1;

    cr_assert_eq(poll(&poll_fd, 1, PATIENCE_MS), 1, "the worker says nothing");
    int result = channel_receive(rig->channel, &message, &fd);
    cr_assert_eq(fd, -1);
    if (result != 1) {
        message.type = CHANNEL_NONE; /* it closed its end */
    }
    return message;
}

static void
settings(struct rig *rig, const char *respond_text)
{
    int image = make_image(respond_text);

    tell(rig, CHANNEL_SETTINGS, image);
    close(image);
    cr_assert_eq(hear(rig).type, CHANNEL_SETTINGS_APPLIED);
}

static void
boot(struct rig *rig)
{
    rig_start(rig);
    settings(rig, "one");
    cr_assert_eq(hear(rig).type, CHANNEL_READY);
}

static int
connect_client(struct rig *rig)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", rig->socket_path);
    cr_assert_eq(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    return fd;
}

static void
ask(int fd)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    cr_assert_eq(write(fd, request, sizeof(request) - 1), (ssize_t)sizeof(request) - 1);
}

/* Reads one response and checks that its body is text. */
static void
expect_answer(int fd, const char *text)
{
    char answer[2048];
    size_t used = 0;

    do {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        cr_assert_eq(poll(&poll_fd, 1, PATIENCE_MS), 1, "no answer");
        ssize_t n = read(fd, answer + used, sizeof(answer) - 1 - used);
        cr_assert_gt(n, 0, "the connection ended before its answer");
        used += (size_t)n;
        answer[used] = '\0';
    } while (strstr(answer, "\r\n\r\n") == NULL ||
             strlen(strstr(answer, "\r\n\r\n") + 4) < strlen(text) + 1);
    cr_assert_eq(strncmp(answer, "HTTP/1.1 200 OK\r\n", 17), 0, "%s", answer);
    cr_assert_eq(strncmp(strstr(answer, "\r\n\r\n") + 4, text, strlen(text)), 0, "%s", answer);
}

static int
wait_exit(struct rig *rig)
{
    int status = -1;

    cr_assert_eq(waitpid(rig->pid, &status, 0), rig->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

Test(worker, serves_its_lane_and_quits, .timeout = 60)
{
    struct rig rig;

    boot(&rig);
    tell(&rig, CHANNEL_LANE_ASSIGN, rig.listener);
    int client = connect_client(&rig);
    ask(client);
    expect_answer(client, "one");
    cr_expect_eq(atomic_load(&rig.board->workers[0].counters.requests), 1);
    tell(&rig, CHANNEL_QUIT, -1);
    cr_expect_eq(wait_exit(&rig), WORKER_EXIT_OK);
    close(client);
    rig_release(&rig);
}

Test(worker, new_settings_reach_an_open_connection, .timeout = 60)
{
    struct rig rig;

    boot(&rig);
    tell(&rig, CHANNEL_LANE_ASSIGN, rig.listener);
    int client = connect_client(&rig);
    ask(client);
    expect_answer(client, "one");
    settings(&rig, "two");
    ask(client);
    expect_answer(client, "two");
    tell(&rig, CHANNEL_QUIT, -1);
    cr_expect_eq(wait_exit(&rig), WORKER_EXIT_OK);
    close(client);
    rig_release(&rig);
}

Test(worker, revoked_lane_is_emptied_first, .timeout = 60)
{
    struct rig rig;
    int clients[20];

    boot(&rig);
    for (size_t i = 0; i < 20; i++) {
        clients[i] = connect_client(&rig); /* they wait in the queue: nobody accepts yet */
        ask(clients[i]);
    }
    tell(&rig, CHANNEL_LANE_ASSIGN, rig.listener);
    tell(&rig, CHANNEL_LANE_REVOKE, -1);
    for (size_t i = 0; i < 20; i++) {
        expect_answer(clients[i], "one");
    }
    settings(&rig, "two"); /* its answer shows that the worker is past the revocation */
    int late = connect_client(&rig);
    ask(clients[0]);
    expect_answer(clients[0], "two");
    struct pollfd poll_fd = {.fd = rig.listener, .events = POLLIN};
    cr_expect_eq(poll(&poll_fd, 1, 0), 1, "a revoked lane must not be accepted from");
    tell(&rig, CHANNEL_QUIT, -1);
    cr_expect_eq(wait_exit(&rig), WORKER_EXIT_OK);
    for (size_t i = 0; i < 20; i++) {
        close(clients[i]);
    }
    close(late);
    rig_release(&rig);
}

Test(worker, drain_answers_with_close_and_leaves, .timeout = 60)
{
    struct rig rig;
    char rest[1024];

    boot(&rig);
    tell(&rig, CHANNEL_LANE_ASSIGN, rig.listener);
    int client = connect_client(&rig);
    ask(client);
    expect_answer(client, "one");
    tell(&rig, CHANNEL_DRAIN, -1);
    settings(&rig, "two"); /* its answer shows that the worker is draining */
    ask(client);
    ssize_t n = read(client, rest, sizeof(rest) - 1);
    cr_assert_gt(n, 0);
    rest[n] = '\0';
    cr_expect_not_null(strstr(rest, "\r\nConnection: close\r\n"), "%s", rest);
    cr_expect_eq(read(client, rest, sizeof(rest)), 0, "FIN follows the last response");
    close(client);
    cr_expect_eq(hear(&rig).type, CHANNEL_DRAINED);
    cr_expect_eq(wait_exit(&rig), WORKER_EXIT_OK);
    rig_release(&rig);
}

Test(worker, without_its_master_it_finishes_and_leaves, .timeout = 60)
{
    struct rig rig;

    boot(&rig);
    tell(&rig, CHANNEL_LANE_ASSIGN, rig.listener);
    int client = connect_client(&rig);
    ask(client);
    expect_answer(client, "one");
    close(rig.channel);
    ask(client);
    expect_answer(client, "one");
    close(client);
    cr_expect_eq(wait_exit(&rig), WORKER_EXIT_OK);
    rig.channel = -1;
    rig_release(&rig);
}

Test(worker, unusable_first_settings_end_it, .timeout = 60)
{
    struct rig rig;
    int garbage = memfd_create("garbage", MFD_CLOEXEC);

    cr_assert_eq(write(garbage, "not an image", 12), 12);
    rig_start(&rig);
    tell(&rig, CHANNEL_SETTINGS, garbage);
    struct channel_message message = hear(&rig);
    cr_expect_eq(message.type, CHANNEL_SETTINGS_REFUSED);
    cr_expect_gt(strlen(message.text), 0);
    cr_expect_eq(wait_exit(&rig), WORKER_EXIT_BOOT_FAILED);
    close(garbage);
    rig_release(&rig);
}

Test(worker, unusable_later_settings_are_refused_and_the_old_serve, .timeout = 60)
{
    struct rig rig;

    boot(&rig);
    tell(&rig, CHANNEL_LANE_ASSIGN, rig.listener);
    tell(&rig, CHANNEL_SETTINGS, -1);
    cr_expect_eq(hear(&rig).type, CHANNEL_SETTINGS_REFUSED);
    int client = connect_client(&rig);
    ask(client);
    expect_answer(client, "one");
    tell(&rig, CHANNEL_QUIT, -1);
    cr_expect_eq(wait_exit(&rig), WORKER_EXIT_OK);
    close(client);
    rig_release(&rig);
}

Test(worker, nonsense_on_the_channel_hurts_nobody, .timeout = 60)
{
    struct rig rig;

    boot(&rig);
    cr_assert_eq(send(rig.channel, "nonsense", 8, 0), 8);
    tell(&rig, CHANNEL_READY, -1); /* a type that only workers send */
    tell(&rig, CHANNEL_LANE_ASSIGN, -1);
    tell(&rig, CHANNEL_LANE_ASSIGN, rig.listener);
    int client = connect_client(&rig);
    ask(client);
    expect_answer(client, "one");
    tell(&rig, CHANNEL_QUIT, -1);
    cr_expect_eq(wait_exit(&rig), WORKER_EXIT_OK);
    close(client);
    rig_release(&rig);
}
