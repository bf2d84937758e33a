/* SPDX-License-Identifier: Apache-2.0
 *
 * The fence around a process that talks to strangers: Landlock says which files it may read, a
 * seccomp filter which system calls it may make. Once entered there is no way out of it and no way
 * to widen it. Runs in workers and in the resolver; the master only asks what the kernel offers.
 * docs/adr/0014-sandbox.md says why it is what it is.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/value.h"

struct buf;

/* What a kernel has, or what a process is fenced in by. */
struct sandbox_state {
    int landlock_abi; /* version of its interface, 0: none */
    bool seccomp;
};

struct sandbox_plan {
    enum sandbox_mode mode;
    const int *folders; /* O_PATH descriptors; what is below may be read */
    size_t folder_count;
    int landlock_abi_max; /* a test: as if the kernel had no newer version; 0: what it has */
    bool datagrams;       /* may make datagram sockets: the resolver */
    /* Counts what the filter refused; NULL: nobody counts. */
    _Atomic uint64_t *refused;
};

/* Asks the kernel; changes nothing. Adds why to missing (a clause for each part that it lacks). */
struct sandbox_state sandbox_offered(struct buf *missing);
/* "landlock=7 seccomp=on", for the log and for status. */
#define SANDBOX_TEXT_MAX 48
void sandbox_print(const struct sandbox_state *state, char ret_text[SANDBOX_TEXT_MAX]);
/* One number for the scoreboard, and back. 0 is no sandbox. */
uint32_t sandbox_pack(const struct sandbox_state *state);
struct sandbox_state sandbox_unpack(uint32_t packed);

/* Enters. 0 and what is active from now on; or a negative errno and a sentence in why: then the
 * process must not go on, for a part may be active already. With SANDBOX_AUTO what the kernel lacks
 * is left out; with SANDBOX_OFF nothing happens. */
int sandbox_enter(const struct sandbox_plan *plan, struct sandbox_state *ret_state,
                  struct buf *why);

/* ---- for tests ---- */

/* What a ruleset of that version of the interface handles (landlock(7)): all rights it knows. */
uint64_t sandbox_landlock_rights(int abi);
