/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading the JSON that a master answers (RFC 8259), as a tree. Pure; runs in narwhalctl.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum ctl_kind { CTL_NULL = 0, CTL_BOOL, CTL_NUMBER, CTL_TEXT, CTL_ARRAY, CTL_OBJECT };

/* Nesting that is read; a master has four. */
#define CTL_JSON_DEPTH_MAX 16

struct ctl_value {
    enum ctl_kind kind;
    char *key;               /* owned; of a member of an object; NULL else */
    char *text;              /* owned; TEXT: its bytes; NUMBER: as it was written; NULL else */
    int64_t number;          /* NUMBER, without a fraction; BOOL: 0 or 1 */
    struct ctl_value *child; /* owned; the first of ARRAY and OBJECT */
    struct ctl_value *next;  /* owned; its sibling */
};

/* One value with nothing but white space around it; NULL when that is not what the text is. The
 * caller's. Escapes below U+0100 become one byte, because that is what the master means by them
 * (json.c), and a NUL becomes '?'. */
struct ctl_value *ctl_json_parse(const char *text, size_t length);
/* NULL is fine. */
void ctl_json_free(struct ctl_value *value);

/* The member of an object, or NULL; NULL has none. */
const struct ctl_value *ctl_get(const struct ctl_value *object, const char *key);
/* Its text or number, or what stands for it where there is none. */
const char *ctl_text(const struct ctl_value *object, const char *key, const char *absent);
int64_t ctl_number(const struct ctl_value *object, const char *key, int64_t absent);

#define CTL_FOR_EACH(item, array)                                                                  \
    for (const struct ctl_value *item = (array) != NULL ? (array)->child : NULL; item != NULL;     \
         item = item->next)
