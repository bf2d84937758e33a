/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading oom_kill of memory.events. The counter is that of the whole cgroup: workers, instances
 * and what instances started, so a kill is put down to a death that follows shortly. Runs in the
 * master.
 */
#include "master/oom_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/fd.h"

#define CGROUP_ROOT "/sys/fs/cgroup"
/* The kernel counts before it kills, and several deaths may be reaped one after the other. A kill
 * that no child of ours died of meanwhile was one of their children. */
#define CLAIM_MS 2000

/* The line of text that begins with prefix, behind it; NULL: none. */
static const char *
find_line(const char *text, const char *prefix)
{
    size_t length = strlen(prefix);

    while (strncmp(text, prefix, length) != 0) {
        text = strchr(text, '\n');
        if (text == NULL) {
            return NULL;
        }
        text++;
    }
    return text + length;
}

bool
oom_parse_cgroup(const char *text, char *ret_path, size_t size)
{
    const char *path = find_line(text, "0::");
    size_t length = path != NULL ? strcspn(path, "\n") : 0;

    if (length == 0 || length >= size) {
        return false;
    }
    memcpy(ret_path, path, length);
    ret_path[length] = '\0';
    return true;
}

uint64_t
oom_parse_events(const char *text)
{
    const char *number = find_line(text, "oom_kill ");

    return number != NULL ? strtoull(number, NULL, 10) : 0;
}

void
oom_watch_init(struct oom_watch *watch)
{
    char text[4096];
    char group[400];
    char events[1024];

    memset(watch, 0, sizeof(*watch));
    if (!fd_read_text("/proc/self/cgroup", text, sizeof(text)) ||
        !oom_parse_cgroup(text, group, sizeof(group))) {
        return;
    }
    (void)snprintf(watch->path, sizeof(watch->path), CGROUP_ROOT "%s/memory.events", group);
    if (!fd_read_text(watch->path, events, sizeof(events))) {
        watch->path[0] = '\0'; /* the root cgroup has none, nor has one without the controller */
        return;
    }
    watch->seen = oom_parse_events(events);
}

bool
oom_watch_take(struct oom_watch *watch, int64_t now_ms)
{
    char events[1024];

    if (watch->path[0] == '\0') {
        return false;
    }
    if (now_ms - watch->counted_ms > CLAIM_MS) {
        watch->unclaimed = 0;
    }
    if (fd_read_text(watch->path, events, sizeof(events))) {
        uint64_t count = oom_parse_events(events);
        if (count > watch->seen) {
            watch->unclaimed += count - watch->seen;
            watch->counted_ms = now_ms;
        }
        watch->seen = count;
    }
    if (watch->unclaimed == 0) {
        return false;
    }
    watch->unclaimed--;
    return true;
}
