/* SPDX-License-Identifier: Apache-2.0
 *
 * Files and folders as the processes of narwhal will meet them: asked for in a child that takes
 * their identity on, because groups, ACLs and capabilities decide too. Runs in the doctor.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "master/doctor_report.h"

struct doctor_unit;
struct identity;

enum doctor_who { DOCTOR_MASTER = 0, DOCTOR_WORKER, DOCTOR_WHO_COUNT };

struct doctor_path {
    enum doctor_who who;
    char *what; /* owned; the setting: "[log] error" */
    char *path; /* owned */
    int access; /* R_OK | W_OK | X_OK */
    bool tree;  /* all below it, too, as far as DOCTOR_TREE_MAX */
    /* it may be missing: then its folder must be writable */
    bool is_made;
};

struct doctor_paths {
    size_t count;
    struct doctor_path *item; /* owned */
};

/* Entries of a tree that are looked at. */
#define DOCTOR_TREE_MAX 5000

/* path is copied. */
void doctor_paths_add(struct doctor_paths *paths, const struct doctor_path *path, const char *what);
/* Asks for all, and says what cannot be used. unit may be NULL; it tells what will be there, and
 * what will be out of sight. */
void doctor_paths_judge(const struct doctor_paths *paths, const struct identity *master,
                        const struct identity *worker, const struct doctor_unit *unit,
                        struct doctor_report *report);
void doctor_paths_release(struct doctor_paths *paths);
