/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking things up in the JSON that a master answers, which jansson reads. Another version of
 * narwhal may have less in its answers, so that each look says what stands for what is missing.
 * Pure; runs in narwhalctl.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define CTL_NUMBER_TEXT_MAX 32

/* An object with nothing but white space around it, the caller's (json_decref()); NULL when that is
 * not what the text is. */
json_t *ctl_json_parse(const char *text, size_t length);
/* The text of a member, or its number as text, which stands in room; NULL has no members. */
const char *ctl_text_in(const json_t *object, const char *key, const char *absent,
                        char room[CTL_NUMBER_TEXT_MAX]);
/* The same with room until the end of the block. */
#define ctl_text(object, key, absent)                                                              \
    ctl_text_in(object, key, absent, (char[CTL_NUMBER_TEXT_MAX]){0})
/* A number without its fraction; 1 or 0 for true and false. */
int64_t ctl_number(const json_t *object, const char *key, int64_t absent);
