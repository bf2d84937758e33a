/* SPDX-License-Identifier: Apache-2.0
 *
 * The budget of a client connection, divided. Pure arithmetic over checked settings; runs in the
 * master, which refuses a budget that is too small, and in workers, which keep to it.
 */
#include "config/config.h"

#define KIB 1024
/* The tables of the parsers, and what the objects of a connection and its request take. */
#define OBJECTS_BYTES (16 * KIB)
/* A head as a server gets it: no larger than what one send gathers (BATCH_MEMORY_BYTES). */
#define SERVER_HEAD_BYTES (80 * KIB)
/* Room for the largest response head, read with no more than one buffer growth. */
#define QUEUE_LEAST_BYTES (80 * KIB)
#define READ_LEAST_BYTES (16 * KIB)
#define READ_MOST_BYTES (64 * KIB)

struct connection_memory
config_connection_memory(const struct worker_settings *settings)
{
    int64_t input = 2 * (settings->limit_request_head_bytes + KIB);
    int64_t kept = settings->limit_request_head_bytes + settings->limit_request_line_bytes;
    struct connection_memory memory = {.read_bytes = READ_LEAST_BYTES};
    int64_t fixed = kept + OBJECTS_BYTES + SERVER_HEAD_BYTES;

    /* What was read and waits is in the same buffer as an unfinished head would be. */
    input = input > READ_LEAST_BYTES ? input : READ_LEAST_BYTES;
    memory.least_bytes = fixed + input + READ_LEAST_BYTES + QUEUE_LEAST_BYTES;
    int64_t spare = settings->connection_memory_bytes - memory.least_bytes;
    while (memory.read_bytes < READ_MOST_BYTES && spare >= 4 * memory.read_bytes) {
        memory.read_bytes *= 2;
        spare = settings->connection_memory_bytes - fixed - memory.read_bytes - QUEUE_LEAST_BYTES -
                (input > memory.read_bytes ? input : memory.read_bytes);
    }
    memory.queue_bytes = QUEUE_LEAST_BYTES + (spare > 0 ? spare : 0);
    return memory;
}
