/* SPDX-License-Identifier: Apache-2.0
 *
 * The cache of one root: a fixed table of chains, and a list in order of use. Invariant: every
 * entry is in one chain and on the list, and holds one reference to its file; the three counters
 * are the sums over the list and never above their bounds when a function returns.
 *
 * Runs in worker processes.
 */
#include "worker/static/static_cache.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "config/base/check.h"

/* ---- SipHash-1-3 -------------------------------------------------------------------------------
 *
 * Aumasson, Bernstein: "SipHash: a fast short-input PRF". Who can make many files (an upload
 * folder) could else give them names that all fall into one chain. One and three rounds are what
 * Rust and Ruby use for tables; the full strength is for signatures. */

struct hash_key {
    uint64_t k0;
    uint64_t k1;
};

/* One for the process: drawn at the first use, never sent anywhere. */
static struct hash_key process_key;

static void
process_key_draw(void)
{
    if (process_key.k0 != 0 || process_key.k1 != 0) {
        return;
    }
    ssize_t n;
    do {
        n = getrandom(&process_key, sizeof(process_key), 0);
    } while (n != (ssize_t)sizeof(process_key)); /* up to 256 bytes come whole, getrandom(2) */
}

struct sip {
    uint64_t v0;
    uint64_t v1;
    uint64_t v2;
    uint64_t v3;
};

static inline uint64_t
rotate_left(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

static inline void
sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = rotate_left(s->v1, 13) ^ s->v0;
    s->v0 = rotate_left(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate_left(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate_left(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate_left(s->v1, 17) ^ s->v2;
    s->v2 = rotate_left(s->v2, 32);
}

static inline void
sip_word(struct sip *s, uint64_t word)
{
    s->v3 ^= word;
    sip_round(s);
    s->v0 ^= word;
}

static uint64_t
hash_of(struct str key)
{
    struct sip s = {process_key.k0 ^ 0x736f6d6570736575u, process_key.k1 ^ 0x646f72616e646f6du,
                    process_key.k0 ^ 0x6c7967656e657261u, process_key.k1 ^ 0x7465646279746573u};
    const char *p = key.ptr;
    size_t left = key.len;
    uint64_t word;

    for (; left >= sizeof(word); p += sizeof(word), left -= sizeof(word)) {
        memcpy(&word, p, sizeof(word));
        sip_word(&s, word);
    }
    word = 0;
    if (left > 0) {
        memcpy(&word, p, left);
    }
    sip_word(&s, word | (uint64_t)key.len << 56);
    s.v2 ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

/* ---- entries -------------------------------------------------------------------------------- */

static struct static_entry *
entry_from_recency(struct list_node *node)
{
    return container_of(node, struct static_entry, recency);
}

static struct static_entry **
bucket_of(struct static_cache *cache, uint64_t hash)
{
    return &cache->buckets[hash & (STATIC_CACHE_BUCKETS - 1)];
}

static struct static_entry *
entry_find(struct static_cache *cache, struct str key, uint64_t hash)
{
    struct static_entry *entry = *bucket_of(cache, hash);

    while (entry != NULL &&
           (entry->hash != hash || !str_equal((struct str){entry->key, entry->key_length}, key))) {
        entry = entry->bucket_next;
    }
    return entry;
}

static bool
is_over_bounds(const struct static_cache *cache)
{
    return cache->file_count > STATIC_CACHE_FILES_MAX ||
           cache->content_bytes > STATIC_CACHE_BYTES_MAX ||
           cache->descriptor_count > STATIC_CACHE_DESCRIPTORS_MAX;
}

/* Drops the least recently used until the bounds hold. When only the descriptors are too many, the
 * small files stay: dropping them would not help. */
static void
cache_shrink(struct static_cache *cache)
{
    struct list_node *node = cache->recency.prev;

    while (is_over_bounds(cache)) {
        CHECK(node != &cache->recency); /* each counter is a sum over the list */
        struct static_entry *entry = entry_from_recency(node);
        bool only_descriptors = cache->file_count <= STATIC_CACHE_FILES_MAX &&
                                cache->content_bytes <= STATIC_CACHE_BYTES_MAX;
        node = node->prev;
        if (!only_descriptors || entry->file->content == NULL) {
            static_cache_remove(cache, entry);
        }
    }
}

/* ---- verbs ---------------------------------------------------------------------------------- */

void
static_cache_init(struct static_cache *cache)
{
    _Static_assert((STATIC_CACHE_BUCKETS & (STATIC_CACHE_BUCKETS - 1)) == 0, "a power of two");

    *cache = (struct static_cache){0};
    list_init(&cache->recency);
    process_key_draw();
}

void
static_cache_release(struct static_cache *cache)
{
    static_cache_clear(cache);
}

struct static_entry *
static_cache_find(struct static_cache *cache, struct str key)
{
    struct static_entry *entry = entry_find(cache, key, hash_of(key));

    if (entry != NULL && list_first(&cache->recency) != &entry->recency) {
        list_remove(&entry->recency);
        list_push_front(&cache->recency, &entry->recency);
    }
    return entry;
}

void
static_cache_put(struct static_cache *cache, struct str key, struct static_file *file,
                 const struct static_identity *identity, int64_t now_ms)
{
    uint64_t hash = hash_of(key);
    struct static_entry *entry = entry_find(cache, key, hash);

    if (entry != NULL) {
        static_cache_remove(cache, entry);
    }
    entry = calloc(1, sizeof(*entry) + key.len);
    if (entry == NULL) {
        return; /* the next request opens the file again */
    }
    entry->hash = hash;
    entry->file = static_file_ref(file);
    entry->identity = *identity;
    entry->checked_ms = now_ms;
    entry->key_length = key.len;
    if (key.len > 0) {
        memcpy(entry->key, key.ptr, key.len);
    }

    struct static_entry **bucket = bucket_of(cache, hash);
    entry->bucket_next = *bucket;
    *bucket = entry;
    list_push_front(&cache->recency, &entry->recency);
    cache->file_count++;
    if (file->content != NULL) {
        cache->content_bytes += (size_t)file->size;
    } else {
        cache->descriptor_count++;
    }
    cache_shrink(cache);
}

void
static_cache_remove(struct static_cache *cache, struct static_entry *entry)
{
    struct static_entry **link = bucket_of(cache, entry->hash);

    while (*link != entry) {
        CHECK(*link != NULL);
        link = &(*link)->bucket_next;
    }
    *link = entry->bucket_next;
    list_remove(&entry->recency);
    cache->file_count--;
    if (entry->file->content != NULL) {
        cache->content_bytes -= (size_t)entry->file->size;
    } else {
        cache->descriptor_count--;
    }
    static_file_unref(&entry->file);
    free(entry);
}

void
static_cache_clear(struct static_cache *cache)
{
    LIST_FOR_EACH_SAFE (node, &cache->recency) {
        static_cache_remove(cache, entry_from_recency(node));
    }
}

size_t
static_cache_drop_descriptors(struct static_cache *cache)
{
    size_t dropped = 0;

    LIST_FOR_EACH_SAFE (node, &cache->recency) {
        struct static_entry *entry = entry_from_recency(node);
        if (entry->file->content == NULL) {
            static_cache_remove(cache, entry);
            dropped++;
        }
    }
    return dropped;
}
