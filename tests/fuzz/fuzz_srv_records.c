/* SPDX-License-Identifier: Apache-2.0
 *
 * DNS messages with SRV records: bounded, in order, names that end, and the same at every reading.
 */
#include "worker/resolver/srv_records.h"

#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct srv_records records;
    char *bytes = fuzz_copy(data, size);

    if (srv_records_parse((const uint8_t *)bytes, size, &records) == 0) {
        FUZZ_CHECK(records.count <= SRV_TARGETS_MAX, "%zu targets", records.count);
        FUZZ_CHECK(records.ttl_s <= INT32_MAX, "a TTL of %u", records.ttl_s);
        for (size_t i = 0; i < records.count; i++) {
            const struct srv_target *target = &records.item[i];
            FUZZ_CHECK(memchr(target->name, '\0', sizeof(target->name)) != NULL,
                       "a name without end");
            FUZZ_CHECK(target->name[0] != '\0' && target->port != 0, "a target that is none");
            FUZZ_CHECK(i == 0 || records.item[i - 1].priority <= target->priority, "out of order");
        }
    }
    free(bytes);
    return 0;
}
