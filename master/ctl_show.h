/* SPDX-License-Identifier: Apache-2.0
 *
 * The answers of a master as text for people. Pure; runs in narwhalctl.
 */
#pragma once

struct buf;
struct ctl_value;

/* Adds what the answer to a command says; a command without a form of its own gets "key: value"
 * lines. */
void ctl_show(const char *command, const struct ctl_value *answer, struct buf *out);
/* One event as one line, without the line end. */
void ctl_show_event(const struct ctl_value *event, struct buf *out);
