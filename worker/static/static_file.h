/* SPDX-License-Identifier: Apache-2.0
 *
 * Static files: from (root, normal path, request head) to an answer. The face of worker/static; it
 * knows no socket and no event loop. The connection sends what the answer says.
 *
 *   struct static_root    one served folder and its cache of files; one per static route
 *   struct static_file    one file as it was when it was looked at; shared by reference count
 *   struct static_answer  what one request gets
 *
 * Runs in workers, single-threaded; reference counts are plain.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "config/base/buf.h"
#include "config/base/str.h"
#include "worker/http/head_writer.h"
#include "worker/http/request.h"

/* A file up to this size is kept in memory; a larger one is kept as an open descriptor. */
#define STATIC_CONTENT_MAX (32u * 1024u)
/* What the cache of one root may hold. What responses in flight still use comes on top. */
#define STATIC_CACHE_FILES_MAX 1024u
#define STATIC_CACHE_BYTES_MAX (16u * 1024u * 1024u)
#define STATIC_CACHE_DESCRIPTORS_MAX 256u

/* Never changes after it was made: a file that changed on disk gets a new struct static_file.
 * Exactly one of content and fd is there. */
struct static_file {
    uint32_t references;
    int fd;              /* content == NULL: open for reading, for pread() and sendfile() with an
                            offset (the position is shared); else -1 */
    const char *content; /* size <= STATIC_CONTENT_MAX: the whole body; else NULL */
    uint64_t size;
    time_t last_modified;     /* as sent: whole seconds, never in the future when it was loaded */
    struct str etag;          /* strong, with its quotes */
    const char *content_type; /* a constant */
    /* Fields as they are sent, each line with CRLF; slices of one text. head_ok begins with the
     * status line and is all of a 200 but Date, Server, Connection and the empty line; the other
     * two are the ends of it. */
    struct str head_ok;
    struct str fields_file;       /* Accept-Ranges, Content-Type and fields_validators */
    struct str fields_validators; /* Last-Modified and ETag */
};

/* Returns file. */
struct static_file *static_file_ref(struct static_file *file);
/* Gives up one reference, and stores NULL. The last one closes and frees. */
void static_file_unref(struct static_file **file);

struct static_root;

/* Opens the folder path; index is the name of the file that answers for a folder, "" for none; both
 * are copied. 0 and *ret_root (the caller frees it), or a negative errno and in *ret_why a sentence
 * for the operator: what was attempted, why it failed, what helps. */
int static_root_open(const char *path, const char *index, struct static_root **ret_root,
                     struct buf *ret_why);
/* Frees *root and its cache, and stores NULL. Files that answers still refer to live on. */
void static_root_close(struct static_root **root);

/* A sandbox is closed around the process: from now on only what is below the folders of these roots
 * can be read. Roots that are opened later can be asked whether they are within. */
void static_root_fence(struct static_root *const *roots, size_t count);
/* The folder, O_PATH; the root's own. */
int static_root_folder(const struct static_root *root);
/* Whether the sandbox keeps the process from serving what the path of root names now: then the root
 * goes on with the folder that it has, or with none of its files. */
bool static_root_is_beyond_fence(const struct static_root *root);

/* Which body a response has. */
enum static_body {
    STATIC_BODY_NONE = 0, /* none at all: 204, 304 */
    STATIC_BODY_FILE,     /* bytes of file: 200, 206 */
    STATIC_BODY_PAGE,     /* the caller's small page for the status, with its Content-Type and
                             Content-Length: 301, 4xx, 5xx */
};

struct static_answer {
    int status;
    enum static_body body;
    struct static_file *file; /* a reference of the answer's; NULL when there is no such file */
    uint64_t first;           /* STATIC_BODY_FILE: what of the file this answer is about; */
    uint64_t length;          /* length is its Content-Length */
    uint64_t send_length;     /* bytes to send from first on: length, or 0 for HEAD */
    char *location;           /* 301: the answer's own; else NULL */
    const char *allow;        /* 204 and 405: methods; a constant; else NULL */
    const char *reason;       /* status >= 400: why, for the log; a constant; else NULL */
    int error;                /* the errno behind reason, 0 without one */
};

/* Answers one request. path: the normal form of the request's path (target_normalise()), which
 * begins with '/'; its first cut bytes are the route's and are not looked up below root. A '/' at
 * the cut may be on either side. now_ms: the loop's CLOCK_MONOTONIC; cache_ms: how long a file that
 * was looked at is used without asking the file system, 0 to ask at each request. Fills *ret, which
 * the caller gives to static_answer_release(). Never fails: errors are statuses.
 *
 * Blocks for as long as the file system does. */
void static_answer_make(struct static_root *root, struct str path, size_t cut,
                        const struct request_head *head, const char *base, int64_t now_ms,
                        int64_t cache_ms, struct static_answer *ret);
/* Gives up what the answer owns. To keep the file for longer: static_file_ref(), or take file and
 * store NULL in its place. */
void static_answer_release(struct static_answer *answer);

/* Writes the head of the answer but Date, Server, Connection and the empty line. With
 * STATIC_BODY_PAGE, Content-Type and Content-Length of the page are the caller's too. */
void static_head_put(struct head_writer *writer, const struct static_answer *answer);
/* The same without the status line, for a caller that writes it with its page. */
void static_head_put_fields(struct head_writer *writer, const struct static_answer *answer);
/* Most bytes that static_head_put() writes for this answer. */
size_t static_head_size_max(const struct static_answer *answer);
