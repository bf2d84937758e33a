/* SPDX-License-Identifier: Apache-2.0
 *
 * One served folder: resolves paths below it and nowhere else, and keeps what it found in a cache.
 *
 * Containment is the kernel's: openat2() with RESOLVE_BENEATH starts at the root's descriptor and
 * refuses every "..", symbolic link or race that would leave it, at the moment it opens. Nothing
 * here compares resolved paths, so that there is nothing between check and use.
 *
 * A root is what its path names now, not what it named when it was opened: deployments replace the
 * folder (a "current" link that is switched, a build that removes and makes it again). So the path
 * is asked as often as files are; when it names nothing for a moment, the folder last found serves
 * on.
 *
 * In a sandbox (worker/sandbox.h) a folder that is another one than at birth can be found and not
 * read. The root then says so, for a new process can, and the folder last found serves on.
 *
 * Runs in worker processes.
 */
#include "worker/static/static_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/fd.h"
#include "worker/static/static_cache.h"
#include "worker/static/static_private.h"

/* A ".." that races with a rename somewhere makes openat2() say EAGAIN, try again. */
#define OPEN_ATTEMPTS 8

struct static_root {
    char *path;
    char *index;
    size_t index_length;
    int fd; /* O_PATH */
    dev_t dev;
    ino_t ino;
    bool checked; /* checked_ms means something */
    int64_t checked_ms;
    bool is_beyond_fence;
    struct static_cache cache;
};

struct folder_id {
    dev_t dev;
    ino_t ino;
};

static struct {
    bool is_closed;
    size_t count;
    struct folder_id *folders; /* for the life of the process, as the sandbox is */
} fence;

/* ---- opening -------------------------------------------------------------------------------- */

static int
open_beneath(int root_fd, const char *name, int flags)
{
    struct open_how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};

    for (int attempt = 0; attempt < OPEN_ATTEMPTS; attempt++) {
        long fd = syscall(SYS_openat2, root_fd, name, &how, sizeof(how)); /* glibc has no wrapper */
        if (fd != -1) {
            return (int)fd;
        }
        if (errno != EAGAIN && errno != EINTR) {
            return -errno;
        }
    }
    return -EAGAIN;
}

/* Opens the folder that path names now. */
static int
root_open_folder(const char *path, int *ret_fd, struct stat *ret_st)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd == -1) {
        return -errno;
    }
    if (fstat(fd, ret_st) == -1) {
        int error = -errno;
        fd_close(&fd);
        return error;
    }
    *ret_fd = fd;
    return 0;
}

/* ---- the fence ------------------------------------------------------------------------------- */

void
static_root_fence(struct static_root *const *roots, size_t count)
{
    CHECK(!fence.is_closed);
    fence.is_closed = true;
    fence.folders = xcalloc(count > 0 ? count : 1, sizeof(*fence.folders));
    fence.count = count;
    for (size_t i = 0; i < count; i++) {
        fence.folders[i] = (struct folder_id){roots[i]->dev, roots[i]->ino};
    }
}

int
static_root_folder(const struct static_root *root)
{
    return root->fd;
}

bool
static_root_is_beyond_fence(const struct static_root *root)
{
    return root->is_beyond_fence;
}

/* A folder below one of those at birth is within, too, which only trying can tell. A folder that
 * its permissions keep from being listed looks the same as one beyond the fence; a new process then
 * serves it as well as this one could, so that nothing is lost but the change of processes. */
static bool
is_within_fence(int fd, const struct stat *st)
{
    for (size_t i = 0; i < fence.count; i++) {
        if (fence.folders[i].dev == st->st_dev && fence.folders[i].ino == st->st_ino) {
            return true;
        }
    }
    if (!fence.is_closed) {
        return true;
    }
    int probe = open_beneath(fd, ".", O_RDONLY | O_DIRECTORY);
    if (probe < 0) {
        return probe != -EACCES;
    }
    fd_close(&probe);
    return true;
}

static const char *
root_open_advice(int error)
{
    switch (error) {
    case ENOENT:
        return "make the folder, or correct the route's static setting";
    case ENOTDIR:
        return "static takes a folder; to serve one file, serve the folder it is in";
    case EACCES:
        return "the user that the workers run as needs search permission on the folder and on all "
               "folders above it";
    case EMFILE:
    case ENFILE:
        return "raise the limit of open files (LimitNOFILE of the service)";
    default:
        return "check the folder and its file system";
    }
}

int
static_root_open(const char *path, const char *index, struct static_root **ret_root,
                 struct buf *ret_why)
{
    struct stat st;
    int fd = -1;
    int probe = -1;

    if (strchr(index, '/') != NULL || strcmp(index, ".") == 0 || strcmp(index, "..") == 0) {
        buf_addf(ret_why,
                 "index = %s: must be the name of a file in the folder that is asked for, not a "
                 "path",
                 index);
        return -EINVAL;
    }
    int error = root_open_folder(path, &fd, &st);
    if (error != 0) {
        buf_addf(ret_why, "cannot serve the folder %s: %s; %s", path, strerror(-error),
                 root_open_advice(-error));
        return error;
    }
    probe = open_beneath(fd, ".", O_PATH | O_DIRECTORY);
    if (probe < 0) {
        /* ENOSYS: older than 5.6. EPERM: a seccomp filter that does not know the call (container
         * runtimes before 2020). Opening without it could not be kept inside the root. */
        error = probe;
        if (error == -ENOSYS || error == -EPERM) {
            buf_addf(ret_why,
                     "cannot serve the folder %s: openat2(2), which keeps requests inside of it, "
                     "fails: %s; it needs Linux 5.6 and a container runtime whose seccomp filter "
                     "allows it",
                     path, strerror(-error));
        } else {
            buf_addf(ret_why, "cannot serve the folder %s: %s; %s", path, strerror(-error),
                     root_open_advice(-error));
        }
        fd_close(&fd);
        return error;
    }
    fd_close(&probe);

    struct static_root *root = xcalloc(1, sizeof(*root));
    root->path = xstrdup(path);
    root->index = xstrdup(index);
    root->index_length = strlen(index);
    root->fd = fd;
    root->dev = st.st_dev;
    root->ino = st.st_ino;
    root->is_beyond_fence = !is_within_fence(fd, &st);
    static_cache_init(&root->cache);
    *ret_root = root;
    return 0;
}

void
static_root_close(struct static_root **root)
{
    struct static_root *gone = *root;

    *root = NULL;
    if (gone == NULL) {
        return;
    }
    static_cache_release(&gone->cache);
    fd_close(&gone->fd);
    free(gone->path);
    free(gone->index);
    free(gone);
}

/* Looks whether the path still names the folder that is open; if it names another one, goes there
 * and forgets the files of the old one. */
static void
root_refresh(struct static_root *root, int64_t now_ms, int64_t cache_ms)
{
    struct stat st;
    int fd = -1;

    if (root->checked && now_ms - root->checked_ms < cache_ms) {
        return;
    }
    root->checked = true;
    root->checked_ms = now_ms;
    if (stat(root->path, &st) == 0 && st.st_dev == root->dev && st.st_ino == root->ino) {
        return;
    }
    /* Whatever fails here (the link is being switched, a privilege was given up): what is open is
     * still there, and the next check tries again. */
    if (root_open_folder(root->path, &fd, &st) != 0) {
        return;
    }
    if (!is_within_fence(fd, &st)) {
        root->is_beyond_fence = true;
        fd_close(&fd);
        return;
    }
    root->is_beyond_fence = false;
    static_cache_clear(&root->cache);
    fd_close(&root->fd);
    root->fd = fd;
    root->dev = st.st_dev;
    root->ino = st.st_ino;
}

/* ---- paths ---------------------------------------------------------------------------------- */

/* Length of "%2F", "%252F", "%25252F" ... at p, 0 without one. target_normalise() leaves these as
 * they came; a file of that name could be reached by no other spelling, and what they mean is a
 * separator to some programs and a name to others. So no such file exists. */
static bool
is_slash_escape(const char *p, const char *end)
{
    if (*p++ != '%') {
        return false;
    }
    while (end - p >= 2 && p[0] == '2' && p[1] == '5') {
        p += 2;
    }
    return end - p >= 2 && p[0] == '2' && (p[1] == 'F' || p[1] == 'f');
}

/* NULL, or why no file can have this path. */
static const char *
path_refusal(struct str below)
{
    const char *end = below.ptr + below.len;

    for (const char *p = below.ptr; p < end; p++) {
        bool begins_segment = p == below.ptr || p[-1] == '/';
        if (begins_segment && *p == '.') {
            /* RFC 8615: the one name with a dot that is meant to be public, and only at the top. */
            struct str rest = {p, (size_t)(end - p)};
            const struct str well_known = STR(".well-known");
            if (p != below.ptr || !str_starts_with(rest, well_known) ||
                (rest.len > well_known.len && rest.ptr[well_known.len] != '/')) {
                return "hidden files are not served";
            }
        }
        if (is_slash_escape(p, end)) {
            return "an encoded slash in a file name";
        }
        if (*p == '\0') {
            return "a NUL in a file name";
        }
    }
    return NULL;
}

/* ---- looking up ----------------------------------------------------------------------------- */

static void
lookup_fail(struct static_lookup *lookup, int status, const char *reason, int error)
{
    *lookup = (struct static_lookup){.status = status, .reason = reason, .error = error};
}

/* error: positive. */
static void
lookup_fail_errno(struct static_lookup *lookup, int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        lookup_fail(lookup, 404, "no such file", error);
        break;
    case EXDEV:
        lookup_fail(lookup, 404, "a symbolic link leads out of the route's folder", error);
        break;
    case ELOOP:
        lookup_fail(lookup, 404, "too many symbolic links, or one of /proc", error);
        break;
    case ENAMETOOLONG:
    case EINVAL: /* names that the file system cannot have: vfat, cifs, case folding */
    case EILSEQ:
        lookup_fail(lookup, 404, "no file can have this name", error);
        break;
    case ENXIO: /* a socket, a device without a driver */
    case ENODEV:
        lookup_fail(lookup, 404, "not a regular file", error);
        break;
    case EACCES:
    case EPERM:
        lookup_fail(lookup, 403,
                    "the user that the workers run as may not read this file, or not search a "
                    "folder above it",
                    error);
        break;
    case EMFILE:
        lookup_fail(lookup, 503,
                    "the worker has too many open files: raise its limit (LimitNOFILE of the "
                    "service) or lower the connections setting",
                    error);
        break;
    case ENFILE:
        lookup_fail(lookup, 503, "the machine has too many open files: raise fs.file-max", error);
        break;
    case ENOMEM:
        lookup_fail(lookup, 503, "no memory to open the file", error);
        break;
    case EAGAIN:
        lookup_fail(lookup, 503, "the file or a folder above it is being changed all the time",
                    error);
        break;
    case EIO:
        lookup_fail(lookup, 500, "the file system failed to read the file", error);
        break;
    default:
        lookup_fail(lookup, 500, "the file could not be opened or read", error);
        break;
    }
}

/* Opens name. When descriptors have run out, those that only the cache needs are given back first:
 * a cache must never be the reason for a refusal. */
static int
root_open_file(struct static_root *root, const char *name)
{
    /* O_NONBLOCK: the open of a FIFO would wait for its writer, that of a device for its carrier;
     * it does nothing for a regular file. */
    int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY;
    int fd = open_beneath(root->fd, name, flags);

    if ((fd == -EMFILE || fd == -ENFILE) && static_cache_drop_descriptors(&root->cache) > 0) {
        fd = open_beneath(root->fd, name, flags);
    }
    return fd;
}

/* Whether name is a folder that may be searched but not listed: O_RDONLY was refused, yet files in
 * it may be served. */
static bool
is_unlistable_folder(struct static_root *root, const char *name)
{
    int fd = open_beneath(root->fd, name, O_PATH | O_DIRECTORY);

    if (fd < 0) {
        return false;
    }
    fd_close(&fd);
    return true;
}

/* Asks the file system. */
static void
lookup_open(struct static_root *root, struct str below, const char *name, bool is_index,
            int64_t now_ms, struct static_lookup *ret)
{
    struct static_identity identity;
    struct static_file *file = NULL;
    struct stat st;

    int fd = root_open_file(root, name);
    if (fd < 0) {
        if (fd == -EACCES && !is_index && is_unlistable_folder(root, name)) {
            *ret = (struct static_lookup){.status = 301};
        } else {
            lookup_fail_errno(ret, -fd);
        }
        return;
    }
    /* Not before the open: it may drop entries. */
    struct static_entry *entry = static_cache_find(&root->cache, below);
    if (fstat(fd, &st) == -1) {
        lookup_fail_errno(ret, errno);
    } else if (S_ISDIR(st.st_mode)) {
        if (is_index) {
            lookup_fail(ret, 404, "the index of the folder is a folder itself", 0);
        } else {
            *ret = (struct static_lookup){.status = 301};
        }
    } else if (!S_ISREG(st.st_mode)) {
        lookup_fail(ret, 404, "not a regular file", 0);
    } else if (entry != NULL && static_identity_holds(&entry->identity, &st)) {
        entry->checked_ms = now_ms;
        *ret = (struct static_lookup){.status = 200, .file = static_file_ref(entry->file)};
    } else {
        int error = static_file_load(&fd, str_from(name), &file, &identity);
        if (error != 0) {
            lookup_fail_errno(ret, -error);
        } else {
            static_cache_put(&root->cache, below, file, &identity, now_ms);
            *ret = (struct static_lookup){.status = 200, .file = file};
        }
    }
    fd_close(&fd);
}

/* Whether the entry can be used without opening the file again. A large file is read only while it
 * is sent, so that its length and validators must be those of this moment: that costs one fstat(),
 * which is nothing next to sending it, and also tells that it was removed or renamed over (the link
 * count is part of ctime). */
static bool
entry_is_fresh(const struct static_entry *entry, int64_t now_ms, int64_t cache_ms)
{
    struct stat st;

    if (now_ms - entry->checked_ms >= cache_ms) {
        return false;
    }
    if (entry->file->content != NULL) {
        return true;
    }
    return fstat(entry->file->fd, &st) == 0 && static_identity_holds(&entry->identity, &st);
}

void
static_root_lookup(struct static_root *root, struct str below, int64_t now_ms, int64_t cache_ms,
                   struct static_lookup *ret)
{
    struct static_entry *entry = static_cache_find(&root->cache, below);

    if (entry != NULL && entry_is_fresh(entry, now_ms, cache_ms)) {
        *ret = (struct static_lookup){.status = 200, .file = static_file_ref(entry->file)};
        return;
    }

    bool is_index = below.len == 0 || below.ptr[below.len - 1] == '/';
    size_t index_length = is_index ? root->index_length : 0;
    char name[PATH_MAX];
    const char *refusal = path_refusal(below);

    if (refusal != NULL) {
        lookup_fail(ret, 404, refusal, 0);
        return;
    }
    if (is_index && index_length == 0) {
        lookup_fail(ret, 404, "a folder, and the route has no index", 0);
        return;
    }
    if (below.len + index_length >= sizeof(name)) {
        lookup_fail_errno(ret, ENAMETOOLONG);
        return;
    }
    if (below.len > 0) {
        memcpy(name, below.ptr, below.len);
    }
    memcpy(name + below.len, root->index, index_length);
    name[below.len + index_length] = '\0';

    root_refresh(root, now_ms, cache_ms);
    lookup_open(root, below, name, is_index, now_ms, ret);
    if (ret->status != 200) {
        /* What cannot be opened now must not come back from the cache later. The entry that was
         * found above may be gone by now. */
        entry = static_cache_find(&root->cache, below);
        if (entry != NULL) {
            static_cache_remove(&root->cache, entry);
        }
    }
}
