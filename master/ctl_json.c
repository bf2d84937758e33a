/* SPDX-License-Identifier: Apache-2.0
 *
 * Members of objects of jansson.
 */
#include "master/ctl_json.h"

#include <inttypes.h>
#include <stdio.h>

json_t *
ctl_json_parse(const char *text, size_t length)
{
    json_t *value = json_loadb(text, length, 0, NULL);

    if (!json_is_object(value)) {
        json_decref(value);
        return NULL;
    }
    return value;
}

const char *
ctl_text_in(const json_t *object, const char *key, const char *absent,
            char room[CTL_NUMBER_TEXT_MAX])
{
    const json_t *member = json_object_get(object, key);

    if (json_is_string(member)) {
        return json_string_value(member);
    }
    if (json_is_integer(member)) {
        (void)snprintf(room, CTL_NUMBER_TEXT_MAX, "%" JSON_INTEGER_FORMAT,
                       json_integer_value(member));
        return room;
    }
    if (json_is_real(member)) {
        (void)snprintf(room, CTL_NUMBER_TEXT_MAX, "%g", json_real_value(member));
        return room;
    }
    return absent;
}

int64_t
ctl_number(const json_t *object, const char *key, int64_t absent)
{
    const json_t *member = json_object_get(object, key);

    if (json_is_boolean(member)) {
        return json_is_true(member);
    }
    if (json_is_real(member)) {
        double number = json_real_value(member);
        return number > -9e18 && number < 9e18 ? (int64_t)number : absent;
    }
    return json_is_integer(member) ? json_integer_value(member) : absent;
}
