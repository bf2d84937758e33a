/* SPDX-License-Identifier: Apache-2.0
 *
 * The answers of a master as text for people. Pure; runs in narwhalctl.
 */
#pragma once

#include <jansson.h>

struct buf;

/* Adds what the answer to a command says; a command without a form of its own gets "key: value"
 * lines. */
void ctl_show(const char *command, json_t *answer, struct buf *out);
/* One event as one line, without the line end. */
void ctl_show_event(json_t *event, struct buf *out);
