/* SPDX-License-Identifier: Apache-2.0
 *
 * The cache: what is found, what goes first, and that the bounds hold.
 */
#include "support.h"

#include "worker/static/static_cache.h"

static struct static_cache cache;

static void
cache_enter(void)
{
    site_enter();
    static_cache_init(&cache);
}

static void
cache_leave(void)
{
    static_cache_release(&cache);
    site_leave();
}

TestSuite(static_cache, .init = cache_enter, .fini = cache_leave);

/* A file of that size; the caller's reference. */
static struct static_file *
file_of_size(size_t size)
{
    struct static_identity identity;
    struct static_file *file = NULL;

    write_filled("f", 'x', size);
    int fd = open("f", O_RDONLY | O_CLOEXEC);
    cr_assert_eq(static_file_load(&fd, STR("f"), &file, &identity), 0);
    fd_close(&fd);
    return file;
}

static void
put(const char *key, struct static_file *file)
{
    struct static_identity identity = {0};

    static_cache_put(&cache, str_from(key), file, &identity, 7);
}

static bool
has(const char *key)
{
    return static_cache_find(&cache, str_from(key)) != NULL;
}

/* The counters against what the list and the chains hold. */
static void
expect_consistent(void)
{
    size_t listed = 0;
    size_t chained = 0;
    size_t descriptors = 0;
    size_t bytes = 0;

    LIST_FOR_EACH (node, &cache.recency) {
        struct static_entry *entry = container_of(node, struct static_entry, recency);
        listed++;
        if (entry->file->content == NULL) {
            descriptors++;
        } else {
            bytes += (size_t)entry->file->size;
        }
    }
    for (size_t i = 0; i < STATIC_CACHE_BUCKETS; i++) {
        for (struct static_entry *e = cache.buckets[i]; e != NULL; e = e->bucket_next) {
            chained++;
        }
    }
    cr_expect_eq(listed, cache.file_count);
    cr_expect_eq(chained, cache.file_count);
    cr_expect_eq(descriptors, cache.descriptor_count);
    cr_expect_eq(bytes, cache.content_bytes);
    cr_expect_leq(cache.file_count, STATIC_CACHE_FILES_MAX);
    cr_expect_leq(cache.descriptor_count, STATIC_CACHE_DESCRIPTORS_MAX);
    cr_expect_leq(cache.content_bytes, STATIC_CACHE_BYTES_MAX);
}

Test(static_cache, finds_what_was_put)
{
    struct static_file *one = file_of_size(1);
    struct static_file *two = file_of_size(2);

    put("a", one);
    put("a/b", two);
    put("", two);
    cr_expect_eq(static_cache_find(&cache, STR("a"))->file, one);
    cr_expect_eq(static_cache_find(&cache, STR("a/b"))->file, two);
    cr_expect_eq(static_cache_find(&cache, STR(""))->file, two);
    cr_expect_eq(static_cache_find(&cache, STR("a"))->checked_ms, 7);
    cr_expect_not(has("b"));
    cr_expect_not(has("A"));
    /* Longer than one and several words of the hash. */
    put("assets/images/2026/a-very-long-name-of-a-file.png", one);
    cr_expect(has("assets/images/2026/a-very-long-name-of-a-file.png"));
    cr_expect_not(has("assets/images/2026/a-very-long-name-of-a-file.pnh"));
    expect_consistent();

    put("a", two);
    cr_expect_eq(static_cache_find(&cache, STR("a"))->file, two, "replaced");
    cr_expect_eq(cache.file_count, 4);
    expect_consistent();
    static_file_unref(&one);
    static_file_unref(&two);
}

Test(static_cache, least_recently_used_goes_first)
{
    struct static_file *file = file_of_size(1);
    char key[32];

    for (unsigned i = 0; i < STATIC_CACHE_FILES_MAX; i++) {
        (void)snprintf(key, sizeof(key), "%u", i);
        put(key, file);
    }
    cr_expect(has("0"), "full, and nothing was dropped yet; now 0 was used last");
    put("one more", file);
    cr_expect_not(has("1"));
    cr_expect(has("0"));
    cr_expect(has("2"));
    cr_expect(has("one more"));
    cr_expect_eq(cache.file_count, STATIC_CACHE_FILES_MAX);
    for (unsigned i = 0; i < 3 * STATIC_CACHE_FILES_MAX; i++) {
        (void)snprintf(key, sizeof(key), "x%u", i);
        put(key, file);
    }
    expect_consistent();
    cr_expect_not(has("0"));
    cr_expect_eq(file->references, STATIC_CACHE_FILES_MAX + 1);
    static_cache_clear(&cache);
    cr_expect_eq(file->references, 1, "every reference was given up");
    expect_consistent();
    static_file_unref(&file);
}

Test(static_cache, bytes_are_bounded)
{
    struct static_file *file = file_of_size(STATIC_CONTENT_MAX);
    unsigned fit = STATIC_CACHE_BYTES_MAX / STATIC_CONTENT_MAX;
    char key[32];

    for (unsigned i = 0; i < fit + 5; i++) {
        (void)snprintf(key, sizeof(key), "%u", i);
        put(key, file);
        cr_assert_leq(cache.content_bytes, STATIC_CACHE_BYTES_MAX);
    }
    cr_expect_eq(cache.file_count, fit);
    cr_expect_not(has("4"));
    cr_expect(has("5"));
    expect_consistent();
    static_file_unref(&file);
}

Test(static_cache, descriptors_are_bounded_and_small_files_stay)
{
    struct static_file *small = file_of_size(10);
    char key[32];

    put("small", small);
    size_t before = descriptor_count();
    for (unsigned i = 0; i < STATIC_CACHE_DESCRIPTORS_MAX + 20; i++) {
        struct static_file *large = file_of_size(STATIC_CONTENT_MAX + 1);
        (void)snprintf(key, sizeof(key), "%u", i);
        put(key, large);
        static_file_unref(&large);
    }
    cr_expect_eq(cache.descriptor_count, STATIC_CACHE_DESCRIPTORS_MAX);
    cr_expect_eq(descriptor_count(), before + STATIC_CACHE_DESCRIPTORS_MAX);
    cr_expect(has("small"), "the oldest, but dropping it would free no descriptor");
    cr_expect_not(has("19"));
    cr_expect(has("20"));
    expect_consistent();
    cr_expect_eq(static_cache_drop_descriptors(&cache), STATIC_CACHE_DESCRIPTORS_MAX);
    cr_expect_eq(descriptor_count(), before);
    cr_expect(has("small"));
    expect_consistent();
    static_file_unref(&small);
}

Test(static_cache, keys_spread_over_the_chains)
{
    struct static_file *file = file_of_size(1);
    size_t longest = 0;
    char key[32];

    for (unsigned i = 0; i < STATIC_CACHE_FILES_MAX; i++) {
        (void)snprintf(key, sizeof(key), "img/%u.png", i);
        put(key, file);
    }
    for (size_t i = 0; i < STATIC_CACHE_BUCKETS; i++) {
        size_t length = 0;
        for (struct static_entry *e = cache.buckets[i]; e != NULL; e = e->bucket_next) {
            length++;
        }
        longest = length > longest ? length : longest;
    }
    /* 1024 balls into 1024 bins: more than 15 in one has a chance below 1e-9 (Poisson of mean 1).
     */
    cr_expect_leq(longest, 15);
    static_file_unref(&file);
}
