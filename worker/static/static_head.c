/* SPDX-License-Identifier: Apache-2.0
 *
 * The head of an answer. For a whole file it is one memcpy() of what the file was made with.
 *
 * Runs in worker processes.
 */
#include "worker/static/static_file.h"

/* Status line, Allow, Content-Range and Content-Length with their numbers, and some room. */
#define HEAD_FIXED_MAX 320

static void
content_range_put(struct head_writer *writer, const struct static_answer *answer)
{
    head_put(writer, STR("Content-Range: bytes "));
    if (answer->status == 416) {
        head_put(writer, STR("*"));
    } else {
        head_put_number(writer, answer->first);
        head_put(writer, STR("-"));
        head_put_number(writer, answer->first + answer->length - 1);
    }
    head_put(writer, STR("/"));
    head_put_number(writer, answer->file->size);
    head_put(writer, STR("\r\n"));
}

void
static_head_put_fields(struct head_writer *writer, const struct static_answer *answer)
{
    switch (answer->status) {
    case 200:
    case 206:
        head_put_number_field(writer, STR("Content-Length"), answer->length);
        if (answer->status == 206) {
            content_range_put(writer, answer);
        }
        head_put(writer, answer->file->fields_file);
        break;
    case 304:
        /* What a cache needs to update what it has, no more (RFC 9110 section 15.4.5). */
        head_put(writer, answer->file->fields_validators);
        break;
    case 416:
        content_range_put(writer, answer);
        break;
    default:
        break;
    }
    if (answer->location != NULL) {
        head_put_field(writer, STR("Location"), str_from(answer->location));
    }
    if (answer->allow != NULL) {
        head_put_field(writer, STR("Allow"), str_from(answer->allow));
    }
}

void
static_head_put(struct head_writer *writer, const struct static_answer *answer)
{
    if (answer->status == 200) {
        head_put(writer, answer->file->head_ok);
        return;
    }
    head_put_status_line(writer, answer->status, STR(""));
    static_head_put_fields(writer, answer);
}

size_t
static_head_size_max(const struct static_answer *answer)
{
    return HEAD_FIXED_MAX + (answer->file != NULL ? answer->file->head_ok.len : 0) +
           (answer->location != NULL ? strlen(answer->location) : 0);
}
