/* SPDX-License-Identifier: Apache-2.0
 *
 * The known name that a mistyped one was probably meant to be. Pure.
 */
#pragma once

#include <stddef.h>

/* A search over any number of names; start with text set and the rest zero. */
struct nearest {
    const char *text; /* borrowed: what was typed */
    const char
        *name;       /* the nearest so far, borrowed from nearest_offer(); NULL: none near enough */
    size_t distance; /* of name; meaningless when it is NULL */
};

/* Takes name if it is near enough, and nearer than all before it. Letter case does not count, and
 * '-' is as good as '_'. */
void nearest_offer(struct nearest *nearest, const char *name);
