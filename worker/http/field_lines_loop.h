/* SPDX-License-Identifier: Apache-2.0
 *
 * The body of field_lines_<level>(): a template that field_lines.c includes once per level, with
 * FIELD_LINES_FN, _TARGET, _TOKEN and _FIELD_VALUE set; it unsets them at its end. Straight down
 * for a line that is there as a whole; the switch at the top only finds the place where the last
 * call ran out of bytes.
 */

/* No #pragma once: included several times on purpose. */

FIELD_LINES_TARGET enum field_lines_result
FIELD_LINES_FN(struct field_lines *lines, const char *base, uint32_t len)
{
    const char *const begin = base + lines->pos;
    const char *p = begin;
    const char *const end = base + len;
    struct field *const fields = lines->fields;
    struct field *const last = fields + lines->max;
    struct field *field = fields + lines->count;
    enum field_lines_result result = FIELD_LINES_MORE;
    enum field_lines_state state = (enum field_lines_state)lines->state;
    const char *name;
    const char *value;
    const char *value_end;

    switch (state) {
    case FIELD_LINES_START:
        goto start;
    case FIELD_LINES_NAME:
        name = base + field->name.off;
        goto name;
    case FIELD_LINES_BLANK:
        goto blank;
    case FIELD_LINES_VALUE:
        value = base + field->value.off;
        goto value;
    case FIELD_LINES_LF:
        value = base + field->value.off;
        value_end = p - 1;
        goto lf;
    case FIELD_LINES_END_LF:
        goto end_lf;
    case FIELD_LINES_STATE_COUNT:
        break;
    }
    lines->reason = "a parser that was used after its end";
    return FIELD_LINES_BAD;

start:
    state = FIELD_LINES_START;
    if (p == end) {
        goto out;
    }
    if (*p == '\r') {
        p++;
        goto end_lf;
    }
    if (field >= last) {
        result = FIELD_LINES_TOO_MANY;
        goto out;
    }
    name = p;
    field->name.off = (uint32_t)(p - base);

name:
    state = FIELD_LINES_NAME;
    p = FIELD_LINES_TOKEN(p, end);
    if (p == end) {
        goto out;
    }
    if (*p != ':' || p == name) {
        lines->reason = p == name ? reason_for_start(*p) : reason_for_name(*p);
        result = FIELD_LINES_BAD;
        goto out;
    }
    field->name.len = (uint32_t)(p - name);
    field->id = field_id_match(name, field->name.len);
    p++;

blank:
    state = FIELD_LINES_BLANK;
    for (;;) {
        if (p == end) {
            goto out;
        }
        if (!char_is_blank(*p)) {
            break;
        }
        p++;
    }
    value = p;
    field->value.off = (uint32_t)(p - base);

value:
    state = FIELD_LINES_VALUE;
    p = FIELD_LINES_FIELD_VALUE(p, end);
    if (p == end) {
        goto out;
    }
    if (*p != '\r') {
        lines->reason = reason_for_value(*p);
        result = FIELD_LINES_BAD;
        goto out;
    }
    value_end = p;
    p++;

lf:
    state = FIELD_LINES_LF;
    if (p == end) {
        goto out;
    }
    if (*p != '\n') {
        lines->reason = "a bare CR in a field value";
        result = FIELD_LINES_BAD;
        goto out;
    }
    p++;
    /* The white space at the end is no part of the value. */
    while (value_end != value && char_is_blank(value_end[-1])) {
        value_end--;
    }
    field->value.len = (uint32_t)(value_end - value);
    field++;
    goto start;

end_lf:
    state = FIELD_LINES_END_LF;
    if (p == end) {
        goto out;
    }
    if (*p != '\n') {
        lines->reason = "a bare CR at the end of the head";
        result = FIELD_LINES_BAD;
        goto out;
    }
    p++;
    result = FIELD_LINES_DONE;

out:
    lines->seen += (uint32_t)(p - begin);
    lines->state = (uint8_t)state;
    lines->pos = (uint32_t)(p - base);
    lines->count = (uint32_t)(field - fields);
    return result;
}

#undef FIELD_LINES_FN
#undef FIELD_LINES_TARGET
#undef FIELD_LINES_TOKEN
#undef FIELD_LINES_FIELD_VALUE
