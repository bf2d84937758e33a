/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages of the control channel, as a process that has lost its mind may send them: of any
 * length, with any descriptors, at either end. The input is one step after another:
 *
 *   length u16, descriptors u8, flags u8, bytes…
 *
 * Flag 1 puts a valid magic and a type in range at the beginning, flag 2 pads to the size of a
 * message. Whatever comes, a message that is handed on has the form that channel.h promises,
 * everything else is -EBADMSG, and no descriptor is left open.
 */
#include "worker/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "tests/fuzz/fuzz.h"

#define FLAG_HEADER 1
#define FLAG_PAD 2
#define FLAG_TO_MASTER 4
#define DESCRIPTORS_MAX 6
#define BYTES_MAX 1024
#define STEPS_MAX 16

/* Every descriptor that is open below it, as bits: to see that none is left behind. */
#define WATCHED_MAX 64
static uint64_t
open_descriptors(void)
{
    uint64_t bits = 0;

    for (int fd = 0; fd < WATCHED_MAX; fd++) {
        if (fcntl(fd, F_GETFD) != -1) {
            bits |= UINT64_C(1) << fd;
        }
    }
    return bits;
}

static bool
send_raw(int channel_fd, const void *bytes, size_t length, size_t descriptors)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

    if (descriptors > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(descriptors * sizeof(int));
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(descriptors * sizeof(int));
        for (size_t i = 0; i < descriptors; i++) {
            memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &channel_fd, sizeof(int));
        }
    }
    return sendmsg(channel_fd, &header, MSG_NOSIGNAL) == (ssize_t)length;
}

/* The log line of a text that a worker sent: one line, nothing that drives a terminal. */
static void
check_log_line(const char *text)
{
    static int fd = -1;
    char line[1024];

    if (fd == -1) {
        char path[] = "/tmp/narwhal-fuzz-XXXXXX";
        fd = mkostemp(path, O_CLOEXEC);
        CHECK(fd != -1);
        CHECK(unlink(path) == 0);
        log_setup(fd, LOG_LEVEL_ERROR, "fuzz");
    }
    CHECK(ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0);
    log_error("a worker cannot use the settings: %s", text);
    ssize_t length = pread(fd, line, sizeof(line), 0);
    FUZZ_CHECK(length > 0 && line[length - 1] == '\n', "no line");
    for (ssize_t i = 0; i + 1 < length; i++) {
        FUZZ_CHECK((unsigned char)line[i] >= 0x20 && line[i] != 0x7f, "a control byte in the log");
    }
}

static void
receive(int channel_fd, const char *sent, size_t length, size_t descriptors)
{
    struct channel_message message;
    struct channel_message as_sent;
    int fd = -2;

    memset(&message, 0xa5, sizeof(message));
    int result = channel_receive(channel_fd, &message, &fd);
    bool is_whole = length == sizeof(message);
    if (is_whole) {
        memcpy(&as_sent, sent, sizeof(as_sent));
    }
    bool is_good = is_whole && as_sent.magic == CHANNEL_MAGIC && as_sent.type > CHANNEL_NONE &&
                   as_sent.type < CHANNEL_TYPE_COUNT;
    if (result != 1) {
        FUZZ_CHECK(fd == -1, "a descriptor came with result %d", result);
        /* An empty message cannot be told from the end (recv(2)); who sends one is to be let go. */
        FUZZ_CHECK(length == 0 ? result == 0 : result == -EBADMSG, "result %d", result);
        FUZZ_CHECK(!is_good || descriptors > 1, "a good message was refused");
        return;
    }
    FUZZ_CHECK(is_good, "%zu bytes were taken for a message", length);
    FUZZ_CHECK((fd != -1) == (descriptors > 0), "%zu descriptors, and got %d", descriptors, fd);
    FUZZ_CHECK(message.type == as_sent.type && message.serial == as_sent.serial &&
                   message.lane == as_sent.lane && message.timeout_ms == as_sent.timeout_ms,
               "another message than was sent");
    FUZZ_CHECK(memchr(message.text, '\0', sizeof(message.text)) != NULL, "a text without its end");
    FUZZ_CHECK(channel_type_name((enum channel_type)message.type)[0] != '?', "a type without name");
    if (fd != -1) {
        FUZZ_CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0, "a descriptor that exec would pass on");
        fd_close(&fd);
    }
    check_log_line(message.text);
}

/* What one end sends with channel_send() the other receives. */
static void
check_sent(int from, int to, const char *bytes, size_t length)
{
    struct channel_message message = {0};
    struct channel_message got;
    int fd;

    memcpy(&message, bytes, length < sizeof(message) ? length : sizeof(message));
    message.type = CHANNEL_NONE + 1 + message.type % (CHANNEL_TYPE_COUNT - 1);
    message.text[CHANNEL_TEXT_MAX - 1] = '\0';
    FUZZ_CHECK(channel_send(from, &message, -1) == 0, "cannot send");
    FUZZ_CHECK(channel_receive(to, &got, &fd) == 1 && fd == -1, "cannot receive");
    FUZZ_CHECK(memcmp(&message, &got, sizeof(got)) == 0, "another message than was sent");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct channel_message none;
    int ends[2];
    int fd;

    check_log_line(""); /* opens its file before descriptors are counted */
    uint64_t before = open_descriptors();
    CHECK(channel_pair(&ends[0], &ends[1]) == 0);
    for (int step = 0; step < STEPS_MAX && size >= 4; step++) {
        static char bytes[BYTES_MAX];
        size_t length = ((size_t)data[0] << 8 | data[1]) % (BYTES_MAX + 1);
        size_t descriptors = data[2] % (DESCRIPTORS_MAX + 1);
        uint8_t flags = data[3];
        data += 4;
        size -= 4;
        size_t part = length < size ? length : size;
        memset(bytes, 0, sizeof(bytes));
        memcpy(bytes, data, part);
        data += part;
        size -= part;
        if ((flags & FLAG_PAD) != 0) {
            length = sizeof(struct channel_message);
        }
        if ((flags & FLAG_HEADER) != 0) {
            uint32_t words[2] = {CHANNEL_MAGIC, 0};
            memcpy(&words[1], bytes + 4, sizeof(words[1]));
            words[1] %= CHANNEL_TYPE_COUNT + 1;
            memcpy(bytes, words, sizeof(words));
        }
        int to = (flags & FLAG_TO_MASTER) != 0 ? 0 : 1;
        if (send_raw(ends[1 - to], bytes, length, descriptors)) {
            receive(ends[to], bytes, length, descriptors);
        }
        FUZZ_CHECK(channel_receive(ends[to], &none, &fd) == -EAGAIN && fd == -1,
                   "something is left of a message");
        check_sent(ends[1 - to], ends[to], bytes, length);
    }
    fd_close(&ends[0]);
    FUZZ_CHECK(channel_receive(ends[1], &none, &fd) == 0 && fd == -1, "no end of file");
    fd_close(&ends[1]);
    FUZZ_CHECK(open_descriptors() == before, "descriptors were left open");
    return 0;
}
