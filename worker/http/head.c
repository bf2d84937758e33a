/* SPDX-License-Identifier: Apache-2.0
 *
 * Field names and their ids, both from field.def. Runs in worker processes.
 */
#include "worker/http/head.h"

#include "worker/http/field_id.h"

enum field_id
field_id_of(struct str name)
{
    return field_id_match(name.ptr, name.len);
}

const char *
field_name(enum field_id id)
{
    static const char *const names[FIELD_ID_COUNT] = {
        [FIELD_OTHER] = NULL,
#define FIELD(name, text) [FIELD_##name] = text,
#include "worker/http/field.def"
    };

    return id < FIELD_ID_COUNT ? names[id] : NULL;
}
