/* SPDX-License-Identifier: Apache-2.0
 *
 * A bounded map from path to struct static_file, the least recently used go first. It knows nothing
 * of freshness: that is its owner's business (static_root.c).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config/base/list.h"
#include "worker/static/static_private.h"

#define STATIC_CACHE_BUCKETS 1024u /* a power of two */

struct static_entry {
    struct static_entry *bucket_next;
    struct list_node recency; /* in static_cache.recency */
    uint64_t hash;
    struct static_file *file; /* one reference */
    struct static_identity identity;
    int64_t checked_ms; /* when the file system was asked last */
    size_t key_length;
    char key[]; /* the path below the root */
};

struct static_cache {
    struct static_entry *buckets[STATIC_CACHE_BUCKETS];
    struct list_node recency; /* most recently used first */
    size_t file_count;
    size_t descriptor_count; /* files that are kept as a descriptor */
    size_t content_bytes;
};

void static_cache_init(struct static_cache *cache);
void static_cache_release(struct static_cache *cache);

/* The entry of key, now the most recently used; or NULL. Valid until the next call that adds or
 * removes. */
struct static_entry *static_cache_find(struct static_cache *cache, struct str key);
/* Adds file under key, in place of what was there; takes a reference of its own. Others may be
 * dropped to stay within the bounds. */
void static_cache_put(struct static_cache *cache, struct str key, struct static_file *file,
                      const struct static_identity *identity, int64_t now_ms);
void static_cache_remove(struct static_cache *cache, struct static_entry *entry);
void static_cache_clear(struct static_cache *cache);
/* Drops every file that is kept as a descriptor; how many there were. */
size_t static_cache_drop_descriptors(struct static_cache *cache);
