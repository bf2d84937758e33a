/* SPDX-License-Identifier: Apache-2.0
 *
 * One file as it was when it was looked at: its body or its descriptor, its validators and the
 * constant part of its response head, made once so that a request costs two memcpy().
 *
 * Runs in worker processes.
 */
#include "worker/static/static_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "worker/http/date.h"
#include "worker/static/mime.h"
#include "worker/static/static_private.h"

/* Room for the constant part of the head: the fixed texts, 20 digits, the longest row of mime.def,
 * a date and an entity tag are below 350 bytes. */
#define HEAD_TEXT_MAX 512
#define ETAG_SIZE sizeof("\"0123456789abcdef-0123456789abcdef-01234567\"")
/* How often a file that changes under the reader is read before it is taken as it is. */
#define READ_ATTEMPTS 4
/* Time stamps of a file are as fine as the file system keeps them: 2 s on FAT, 1 s on old ext3 and
 * NFS servers, a kernel tick on ext4 and xfs before Linux 6.13. */
#define TIMESTAMP_GRAIN_MS 2000

static bool
timespec_equal(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static struct static_identity
identity_of(const struct stat *st)
{
    return (struct static_identity){.dev = st->st_dev,
                                    .ino = st->st_ino,
                                    .size = st->st_size,
                                    .mtime = st->st_mtim,
                                    .ctime = st->st_ctim};
}

static bool
identity_equal(const struct static_identity *a, const struct static_identity *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           timespec_equal(a->mtime, b->mtime) && timespec_equal(a->ctime, b->ctime);
}

bool
static_identity_holds(const struct static_identity *known, const struct stat *now)
{
    struct static_identity identity = identity_of(now);

    return !known->unsettled && identity_equal(known, &identity);
}

/* Reads up to size bytes from the beginning; *ret_got is less when the file ends before. */
static int
read_content(int fd, char *out, size_t size, size_t *ret_got)
{
    size_t got = 0;

    while (got < size) {
        ssize_t n = pread(fd, out + got, size - got, (off_t)got);
        if (n == -1 && errno == EINTR) {
            continue;
        }
        if (n == -1) {
            return -errno;
        }
        if (n == 0) {
            break;
        }
        got += (size_t)n;
    }
    *ret_got = got;
    return 0;
}

/* Finds out what the file is, and reads it when it is small, until one state of it was seen from
 * begin to end. One that is never still (a log, a file of sysfs) is taken as the last attempt found
 * it, so that length and body at least belong together. */
static int
read_consistent(int fd, char *content, struct static_identity *ret_identity, uint64_t *ret_size)
{
    struct stat st;
    size_t got = 0;

    if (fstat(fd, &st) == -1) {
        return -errno;
    }
    for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
        *ret_identity = identity_of(&st);
        *ret_size = (uint64_t)st.st_size;
        if (*ret_size > STATIC_CONTENT_MAX) {
            return 0;
        }
        int error = read_content(fd, content, (size_t)*ret_size, &got);
        if (error != 0) {
            return error;
        }
        if (fstat(fd, &st) == -1) {
            return -errno;
        }
        if (got == *ret_size && static_identity_holds(ret_identity, &st)) {
            return 0;
        }
    }
    ret_identity->unsettled = true;
    *ret_size = got;
    return 0;
}

/* A strong entity tag: time of the last write to the nanosecond, size, and the inode number.
 *
 * Why strong: Range requests are only resumed on strong ones (RFC 9110 section 13.1.5), and all
 * that can make two different bodies share one is an in-place write of the same size within the
 * grain of the time stamp. Why the inode: files of one image or package often share one mtime
 * (SOURCE_DATE_EPOCH, 1 in Nix), and versions of one size are then told apart by the file that was
 * renamed into place. It is mixed, for it is nobody's business (CVE-2003-1418), with a fixed
 * function, for all workers must agree. */
static void
etag_format(const struct static_identity *identity, uint64_t size, char out[ETAG_SIZE])
{
    uint64_t mtime_ns =
        (uint64_t)identity->mtime.tv_sec * 1000000000u + (uint64_t)identity->mtime.tv_nsec;
    uint64_t inode = (uint64_t)identity->ino;

    /* The finalizer of MurmurHash3. */
    inode = (inode ^ inode >> 33) * 0xff51afd7ed558ccdu;
    inode = (inode ^ inode >> 33) * 0xc4ceb9fe1a85ec53u;
    inode ^= inode >> 33;
    (void)snprintf(out, ETAG_SIZE, "\"%" PRIx64 "-%" PRIx64 "-%08" PRIx32 "\"", mtime_ns, size,
                   (uint32_t)inode);
}

/* RFC 9110 section 8.8.2.1: never later than the Date of the response, so that a file "from the
 * future" does not stay unmodified until then. A time before 1970 is sent as 1970: later than the
 * truth, which is the safe side. */
static time_t
last_modified_of(const struct static_identity *identity, int64_t real_ms)
{
    time_t now = (time_t)(real_ms / 1000);

    if (identity->mtime.tv_sec < 0) {
        return 0;
    }
    return identity->mtime.tv_sec > now ? now : identity->mtime.tv_sec;
}

static void
head_text_write(struct static_file *file, struct str etag, char *text)
{
    struct head_writer writer;
    char date[HTTP_DATE_LENGTH];

    head_writer_init(&writer, text, HEAD_TEXT_MAX);
    head_put_status_line(&writer, 200, STR(""));
    head_put_number_field(&writer, STR("Content-Length"), file->size);
    char *fields_file = writer.pos;
    head_put_field(&writer, STR("Accept-Ranges"), STR("bytes"));
    head_put_field(&writer, STR("Content-Type"), str_from(file->content_type));
    char *fields_validators = writer.pos;
    http_date_format(file->last_modified, date);
    head_put_field(&writer, STR("Last-Modified"), (struct str){date, sizeof(date)});
    head_put_field(&writer, STR("ETag"), etag);
    CHECK(head_writer_ok(&writer));

    file->head_ok = (struct str){text, head_writer_length(&writer)};
    file->fields_file = (struct str){fields_file, (size_t)(writer.pos - fields_file)};
    file->fields_validators =
        (struct str){fields_validators, (size_t)(writer.pos - fields_validators)};
    file->etag = (struct str){writer.pos - 2 - etag.len, etag.len};
}

int
static_file_load(int *fd, struct str name, struct static_file **ret_file,
                 struct static_identity *ret_identity)
{
    char content[STATIC_CONTENT_MAX];
    char etag[ETAG_SIZE];
    struct static_identity identity;
    uint64_t size = 0;

    int error = read_consistent(*fd, content, &identity, &size);
    if (error != 0) {
        return error;
    }
    bool in_memory = size <= STATIC_CONTENT_MAX;

    /* One allocation: the struct, the head's text, the body. */
    struct static_file *file =
        malloc(sizeof(*file) + HEAD_TEXT_MAX + (in_memory ? (size_t)size : 0));
    if (file == NULL) {
        return -ENOMEM;
    }
    int64_t real_ms = clock_real_ms();
    char *text = (char *)(file + 1);
    *file = (struct static_file){.references = 1,
                                 .fd = -1,
                                 .size = size,
                                 .last_modified = last_modified_of(&identity, real_ms),
                                 .content_type = mime_type_of(name)};
    if (in_memory) {
        memcpy(text + HEAD_TEXT_MAX, content, (size_t)size);
        file->content = text + HEAD_TEXT_MAX;
    } else {
        file->fd = *fd;
        *fd = -1;
    }
    etag_format(&identity, size, etag);
    head_text_write(file, str_from(etag), text);

    /* A clock that was set back makes a file look young for longer: it is only read more often. */
    int64_t changed_ms =
        (int64_t)identity.ctime.tv_sec * 1000 + (int64_t)identity.ctime.tv_nsec / 1000000;
    identity.unsettled |= real_ms - changed_ms < TIMESTAMP_GRAIN_MS;
    *ret_identity = identity;
    *ret_file = file;
    return 0;
}

struct static_file *
static_file_ref(struct static_file *file)
{
    file->references++;
    return file;
}

void
static_file_unref(struct static_file **file)
{
    struct static_file *gone = *file;

    *file = NULL;
    if (gone == NULL || --gone->references > 0) {
        return;
    }
    fd_close(&gone->fd);
    free(gone);
}
