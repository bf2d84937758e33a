/* SPDX-License-Identifier: Apache-2.0
 *
 * What a reload changes, key by key, and how much it takes to apply it. The order of sections does
 * not count: routes are found by host and longest path. Runs in the master.
 */
#include "config/config.h"

#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/config_private.h"
#include "config/setting.h"

/* Takes text. */
static void
add_change(struct config_diff *diff, enum reload_class reload, char *text)
{
    diff->item = xrealloc(diff->item, (diff->count + 1) * sizeof(*diff->item));
    diff->item[diff->count++] = (struct config_change){reload, text};
    if (reload > diff->strongest) {
        diff->strongest = reload;
    }
}

static void
diff_setting(const struct setting *setting, const char *name, const void *before, const void *after,
             struct config_diff *diff)
{
    struct buf text = {0};

    if (setting_equal(setting, before, after)) {
        return;
    }
    config_print_section(setting->section, name, &text);
    buf_addf(&text, " %s: ", setting->key);
    if (setting->section == SETTING_BACKEND && strcmp(setting->key, "environment") == 0) {
        buf_add_text(&text, "changed"); /* goes to the log; passwords often stand there */
    } else {
        setting_print(setting, before, &text);
        buf_add_text(&text, " -> ");
        setting_print(setting, after, &text);
    }
    add_change(diff, setting->reload, buf_take(&text));
}

static void
diff_section(enum setting_section section, const char *name, const void *before, const void *after,
             struct config_diff *diff)
{
    for (size_t row = 0; row < SETTING_ROWS; row++) {
        if (setting_at(row)->section == section) {
            diff_setting(setting_at(row), name, before, after, diff);
        }
    }
}

/* Adds "[section:name] added" or "removed" for all of a that b lacks. */
static void
diff_presence(enum setting_section section, const struct config *a, const struct config *b,
              const char *what, struct config_diff *diff)
{
    for (size_t i = 0; i < config_section_count(a, section); i++) {
        const char *name = config_section_name_of(a, section, i);
        if (config_section_find(b, section, name) == config_section_count(b, section)) {
            struct buf text = {0};
            config_print_section(section, name, &text);
            buf_addf(&text, " %s", what);
            add_change(diff, RELOAD_LIVE, buf_take(&text));
        }
    }
}

void
config_diff(const struct config *before, const struct config *after, struct config_diff *ret_diff)
{
    *ret_diff = (struct config_diff){.strongest = RELOAD_LIVE};
    for (enum setting_section section = 0; section < SETTING_SECTION_COUNT; section++) {
        if (!setting_section_is_named(section)) {
            diff_section(section, NULL, config_section(before, section, 0),
                         config_section(after, section, 0), ret_diff);
            continue;
        }
        diff_presence(section, before, after, "removed", ret_diff);
        for (size_t i = 0; i < config_section_count(after, section); i++) {
            const char *name = config_section_name_of(after, section, i);
            size_t old = config_section_find(before, section, name);
            if (old < config_section_count(before, section)) {
                diff_section(section, name, config_section(before, section, old),
                             config_section(after, section, i), ret_diff);
            }
        }
        diff_presence(section, after, before, "added", ret_diff);
    }
}

void
config_diff_release(struct config_diff *diff)
{
    for (size_t i = 0; i < diff->count; i++) {
        free(diff->item[i].text);
    }
    free(diff->item);
    *diff = (struct config_diff){0};
}
