/* SPDX-License-Identifier: Apache-2.0
 *
 * A fast hash of bytes for tables in memory (not for anything that is stored or sent). Eight bytes
 * a step, multiply and fold; seed it per process where a peer chooses the keys.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t
hash_mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)(a ^ b) * UINT64_C(0x9e3779b97f4a7c15);

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t
hash_bytes(uint64_t seed, const void *bytes, size_t length)
{
    const char *p = bytes;
    uint64_t hash = seed ^ length;

    while (length >= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        hash = hash_mix(hash, word);
        p += 8;
        length -= 8;
    }
    if (length > 0) {
        uint64_t word = 0;
        memcpy(&word, p, length);
        hash = hash_mix(hash, word);
    }
    return hash_mix(hash, UINT64_C(0xd6e8feb86659fd93));
}
