/* SPDX-License-Identifier: Apache-2.0
 *
 * One child for each identity; it answers through a pipe, one struct for each path. Nothing is
 * opened but folders, and nothing is changed. Runs in the doctor.
 */
#include "master/doctor_paths.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/fd.h"
#include "master/doctor_unit.h"
#include "master/identity.h"

#define TOPIC "permissions"
#define DEPTH_MAX 32

struct answer {
    int error;     /* 0, or why the path cannot be used */
    bool missing;  /* it is not there, and its folder decided */
    uint32_t seen; /* of a tree */
    uint32_t bad;
    char first[256]; /* bad one, below the path */
};

void
doctor_paths_add(struct doctor_paths *paths, const struct doctor_path *path, const char *what)
{
    paths->item = xrealloc(paths->item, (paths->count + 1) * sizeof(*paths->item));
    paths->item[paths->count] = *path;
    paths->item[paths->count].path = xstrdup(path->path);
    paths->item[paths->count].what = xstrdup(what);
    paths->count++;
}

void
doctor_paths_release(struct doctor_paths *paths)
{
    for (size_t i = 0; i < paths->count; i++) {
        free(paths->item[i].path);
        free(paths->item[i].what);
    }
    free(paths->item);
    *paths = (struct doctor_paths){0};
}

static char *
folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL) {
        return xstrdup(".");
    }
    return slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

/* ---- in the child ---------------------------------------------------------------------------- */

static void
look_at_tree(int folder_fd, const char *name, int depth, struct answer *answer)
{
    DIR *folder = fdopendir(folder_fd);
    const struct dirent *entry;

    if (folder == NULL) {
        (void)close(folder_fd);
        return;
    }
    while (answer->seen < DOCTOR_TREE_MAX && (entry = readdir(folder)) != NULL) {
        char path[PATH_MAX];
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        answer->seen++;
        bool is_folder = fstatat(dirfd(folder), entry->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
        int length =
            snprintf(path, sizeof(path), "%s%s%s", name, name[0] != '\0' ? "/" : "", entry->d_name);
        if (faccessat(dirfd(folder), entry->d_name, is_folder ? R_OK | X_OK : R_OK, AT_EACCESS) ==
            -1) {
            if (answer->bad++ == 0) {
                (void)snprintf(answer->first, sizeof(answer->first), "%.*s",
                               (int)sizeof(answer->first) - 1, path);
            }
        } else if (is_folder && depth < DEPTH_MAX && length >= 0 && (size_t)length < sizeof(path)) {
            int below = openat(dirfd(folder), entry->d_name,
                               O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below != -1) {
                look_at_tree(below, path, depth + 1, answer);
            }
        }
    }
    (void)closedir(folder);
}

static void
look_at(const struct doctor_path *path, struct answer *ret_answer)
{
    memset(ret_answer, 0, sizeof(*ret_answer));
    if (faccessat(AT_FDCWD, path->path, path->access, AT_EACCESS) == 0) {
        int fd = path->tree ? open(path->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        if (fd != -1) {
            look_at_tree(fd, "", 0, ret_answer);
        }
        return;
    }
    ret_answer->error = errno;
    if (errno == ENOENT && path->is_made) {
        char *folder = folder_of(path->path);
        ret_answer->missing = true;
        ret_answer->error = faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) == 0 ? 0 : errno;
        free(folder);
    }
}

static _Noreturn void
run_child(const struct doctor_paths *paths, enum doctor_who who, const struct identity *identity,
          int fd)
{
    struct answer answer;
    int result = identity_take(identity, false);

    for (size_t i = 0; i < paths->count && result == 0; i++) {
        if (paths->item[i].who == who) {
            look_at(&paths->item[i], &answer);
            result = fd_write_all(fd, &answer, sizeof(answer));
        }
    }
    _exit(result == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
}

/* ---- in the doctor --------------------------------------------------------------------------- */

static bool
read_whole(int fd, void *bytes, size_t size)
{
    size_t have = 0;

    while (have < size) {
        ssize_t n = fd_read(fd, (char *)bytes + have, size - have);
        if (n <= 0) {
            return false;
        }
        have += (size_t)n;
    }
    return true;
}

static const char *
verb_of(int access_mode)
{
    return (access_mode & W_OK) != 0 ? "write" : (access_mode & R_OK) != 0 ? "read" : "use";
}

static void
say_error(const struct doctor_path *path, const struct answer *answer, const char *name,
          struct doctor_report *report)
{
    char *folder = folder_of(path->path);

    if (answer->missing && answer->error == ENOENT) {
        doctor_say(report, DOCTOR_FAIL, TOPIC, "%s: the folder %s of %s is not there: make it",
                   path->what, folder, path->path);
    } else if (answer->missing) {
        doctor_say(report, DOCTOR_FAIL, TOPIC,
                   "%s: %s cannot make %s in %s: %s; give it the folder (chown, chmod)", path->what,
                   name, path->path, folder, strerror(answer->error));
    } else if (answer->error == ENOENT) {
        doctor_say(report, DOCTOR_WARN, TOPIC,
                   "%s: %s is not there now; who makes it has to, before it is needed", path->what,
                   path->path);
    } else {
        doctor_say(report, DOCTOR_FAIL, TOPIC,
                   "%s: %s cannot %s %s: %s; it needs the rights there, and x on each folder above "
                   "(namei -l %s)",
                   path->what, name, verb_of(path->access), path->path, strerror(answer->error),
                   path->path);
    }
    free(folder);
}

static void
judge(const struct doctor_path *path, const struct answer *answer, const char *name,
      const struct doctor_unit *unit, struct doctor_report *report)
{
    const char *hidden =
        unit != NULL ? doctor_unit_hides(unit, path->path, (path->access & W_OK) != 0) : NULL;
    bool will_be = unit != NULL && doctor_unit_makes(unit, path->path);

    if (hidden != NULL) {
        doctor_say(report, DOCTOR_FAIL, TOPIC,
                   "%s: %s of the unit keeps narwhal from %s; move it, or change the unit",
                   path->what, hidden, path->path);
    } else if (answer->error != 0 && !will_be) {
        say_error(path, answer, name, report);
    } else if (answer->bad > 0) {
        doctor_say(report, DOCTOR_WARN, TOPIC,
                   "%s: %u of %u files and folders in %s cannot be read by %s, first %s: they are "
                   "answered with 403",
                   path->what, answer->bad, answer->seen, path->path, name, answer->first);
    } else {
        doctor_say(report, DOCTOR_OK, TOPIC, "%s: %s can %s %s", path->what, name,
                   verb_of(path->access), path->path);
    }
}

static void
judge_as(const struct doctor_paths *paths, enum doctor_who who, const struct identity *identity,
         const struct doctor_unit *unit, struct doctor_report *report)
{
    int pipe_fds[2];
    char name[64];

    (void)snprintf(name, sizeof(name), "%s (uid %u)",
                   who == DOCTOR_MASTER ? "the master" : "a worker", (unsigned int)identity->uid);
    if (pipe2(pipe_fds, O_CLOEXEC) == -1) {
        doctor_say(report, DOCTOR_WARN, TOPIC, "not looked at: cannot make a pipe: %s",
                   strerror(errno));
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        run_child(paths, who, identity, pipe_fds[1]);
    }
    fd_close(&pipe_fds[1]);
    bool is_ok = pid != -1;
    for (size_t i = 0; i < paths->count && is_ok; i++) {
        struct answer answer;
        if (paths->item[i].who != who) {
            continue;
        }
        if (!read_whole(pipe_fds[0], &answer, sizeof(answer))) {
            is_ok = false;
            break;
        }
        judge(&paths->item[i], &answer, name, unit, report);
    }
    if (!is_ok) {
        doctor_say(report, DOCTOR_WARN, TOPIC, "not all looked at as %s: its process failed", name);
    }
    fd_close(&pipe_fds[0]);
    while (pid != -1 && waitpid(pid, NULL, 0) == -1 && errno == EINTR) {
    }
}

void
doctor_paths_judge(const struct doctor_paths *paths, const struct identity *master,
                   const struct identity *worker, const struct doctor_unit *unit,
                   struct doctor_report *report)
{
    const struct identity *const identities[DOCTOR_WHO_COUNT] = {
        [DOCTOR_MASTER] = master, [DOCTOR_WORKER] = worker};

    for (int who = 0; who < DOCTOR_WHO_COUNT; who++) {
        bool any = false;
        for (size_t i = 0; i < paths->count; i++) {
            any = any || (int)paths->item[i].who == who;
        }
        if (any) {
            judge_as(paths, (enum doctor_who)who, identities[who], unit, report);
        }
    }
}
