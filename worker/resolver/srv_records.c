/* SPDX-License-Identifier: Apache-2.0
 *
 * Walking through a DNS message (RFC 1035 section 4) for its SRV records. Names are expanded by
 * c-ares, everything else is read here, each byte after its bound. Runs in the resolver process.
 */
#include "worker/resolver/srv_records.h"

#include <ares.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_BYTES 12
#define TYPE_SRV 33
#define CLASS_IN 1
#define SRV_HEAD_BYTES 6

struct reader {
    const uint8_t *bytes;
    size_t length;
    size_t at;
};

static bool
has(const struct reader *reader, size_t size)
{
    return reader->length - reader->at >= size;
}

static uint16_t
take_u16(struct reader *reader)
{
    const uint8_t *p = reader->bytes + reader->at;

    reader->at += 2;
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t
take_u32(struct reader *reader)
{
    uint32_t high = take_u16(reader);

    return high << 16 | take_u16(reader);
}

/* The caller frees *ret_name with ares_free_string() when ret_name is not NULL. */
static bool
take_name(struct reader *reader, char **ret_name)
{
    char *name = NULL;
    long used = 0;

    if (ares_expand_name(reader->bytes + reader->at, reader->bytes, (int)reader->length, &name,
                         &used) != ARES_SUCCESS) {
        return false;
    }
    bool is_ok = used > 0 && has(reader, (size_t)used);
    if (is_ok) {
        reader->at += (size_t)used;
    }
    if (is_ok && ret_name != NULL) {
        *ret_name = name;
    } else {
        ares_free_string(name);
    }
    return is_ok;
}

static int
compare_targets(const void *a_pointer, const void *b_pointer)
{
    const struct srv_target *a = a_pointer;
    const struct srv_target *b = b_pointer;

    if (a->priority != b->priority) {
        return a->priority < b->priority ? -1 : 1;
    }
    int order = strcmp(a->name, b->name);
    return order != 0 ? order : a->port - b->port;
}

/* When there is no room, the last of all has to go. */
static void
add_target(struct srv_records *records, const struct srv_target *target)
{
    struct srv_target *worst = &records->item[0];

    if (records->count < SRV_TARGETS_MAX) {
        records->item[records->count++] = *target;
        return;
    }
    records->left_out++;
    for (size_t i = 1; i < records->count; i++) {
        if (compare_targets(worst, &records->item[i]) < 0) {
            worst = &records->item[i];
        }
    }
    if (compare_targets(target, worst) < 0) {
        *worst = *target;
    }
}

static bool
take_srv(struct reader *reader, size_t end, uint32_t ttl_s, struct srv_records *records)
{
    struct srv_target target = {0};
    char *name = NULL;

    if (end - reader->at < SRV_HEAD_BYTES + 1) {
        return false;
    }
    target.priority = take_u16(reader);
    target.weight = take_u16(reader);
    target.port = take_u16(reader);
    if (!take_name(reader, &name)) {
        return false;
    }
    bool is_ok = reader->at == end && strlen(name) < sizeof(target.name);
    if (is_ok) {
        (void)snprintf(target.name, sizeof(target.name), "%s", name);
    }
    ares_free_string(name);
    if (!is_ok) {
        return false;
    }
    records->ttl_s = ttl_s < records->ttl_s ? ttl_s : records->ttl_s;
    /* The root as target: the service is decidedly not there (RFC 2782). */
    if (target.name[0] != '\0' && target.port != 0) {
        add_target(records, &target);
    }
    return true;
}

static bool
take_record(struct reader *reader, struct srv_records *records)
{
    if (!take_name(reader, NULL) || !has(reader, 10)) {
        return false;
    }
    uint16_t type = take_u16(reader);
    uint16_t class = take_u16(reader);
    uint32_t ttl_s = take_u32(reader);
    uint16_t size = take_u16(reader);
    if (!has(reader, size)) {
        return false;
    }
    size_t end = reader->at + size;
    if (type == TYPE_SRV && class == CLASS_IN &&
        !take_srv(reader, end, ttl_s & INT32_MAX, records)) { /* RFC 2181 section 8: 31 bits */
        return false;
    }
    reader->at = end;
    return true;
}

int
srv_records_parse(const uint8_t *bytes, size_t length, struct srv_records *ret_records)
{
    struct reader reader = {bytes, length, 4};

    ret_records->count = 0;
    ret_records->left_out = 0;
    ret_records->ttl_s = INT32_MAX;
    if (length < HEADER_BYTES || length > 65535) {
        return -EBADMSG;
    }
    uint16_t questions = take_u16(&reader);
    uint16_t answers = take_u16(&reader);
    reader.at = HEADER_BYTES;
    for (uint16_t i = 0; i < questions; i++) {
        if (!take_name(&reader, NULL) || !has(&reader, 4)) {
            return -EBADMSG;
        }
        reader.at += 4;
    }
    for (uint16_t i = 0; i < answers; i++) {
        if (!take_record(&reader, ret_records)) {
            return -EBADMSG;
        }
    }
    qsort(ret_records->item, ret_records->count, sizeof(ret_records->item[0]), compare_targets);
    return 0;
}
