/* SPDX-License-Identifier: Apache-2.0
 *
 * One case of field_id_match(): the rows of field.def whose name has FIELD_ID_LENGTH bytes. The
 * condition is a constant expression, so that the other rows vanish before they are compiled, in
 * unoptimised builds too (with all of them kept, a sanitizer build of field_lines.c takes a quarter
 * of an hour). The padding of the name spares comparisons of its end a bounds warning.
 */

/* No #pragma once: included once per length on purpose. */

#define FIELD(name, text)                                                                          \
    if (sizeof(text) - 1 == FIELD_ID_LENGTH) {                                                     \
        static const char lower_##name[24] = text;                                                 \
        if (field_id_name_is(p, lower_##name, sizeof(text) - 1)) {                                 \
            return FIELD_##name;                                                                   \
        }                                                                                          \
    }
#include "worker/http/field.def"
#undef FIELD_ID_LENGTH
return FIELD_OTHER;
