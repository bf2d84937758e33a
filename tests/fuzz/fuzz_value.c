/* SPDX-License-Identifier: Apache-2.0
 *
 * One value of the settings: "[route] path = /x". A value that is taken prints as a text that is
 * taken and means the same; one that is refused says why and leaves the field as it was. The text
 * is also split as a command: words that are quoted and split again are the same words.
 */
#include <stdlib.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/command.h"
#include "config/setting.h"
#include "tests/fuzz/fuzz.h"

union section_settings {
    struct master_settings master;
    struct worker_settings worker;
    struct log_settings log;
    struct backend_settings backend;
    struct route_settings route;
};

static void
print_item(const struct setting *setting, const union section_settings *settings, size_t index,
           struct buf *out)
{
    value_print(setting->type, setting_field_const(setting, settings), index, out);
}

/* Every item printed, and read again into a new field. */
static void
check_printed(const struct setting *setting, const char *folder,
              const union section_settings *settings)
{
    union section_settings again = {0};
    size_t count = value_count(setting->type, setting_field_const(setting, settings));

    for (size_t i = 0; i < count; i++) {
        struct buf text = {0};
        print_item(setting, settings, i, &text);
        FUZZ_CHECK(text.ptr != NULL && text.len == strlen(text.ptr), "no text");
        char *error = setting_parse(setting, folder, text.ptr, &again);
        FUZZ_CHECK(error == NULL, "%s: its own '%s' is refused: %s", setting->key, text.ptr, error);
        buf_release(&text);
    }
    FUZZ_CHECK(count == 0 || setting_equal(setting, settings, &again),
               "%s: printed and read it is another value", setting->key);
    value_release(setting->type, setting_field(setting, &again));
}

static void
check_value(const struct setting *setting, const char *folder, const char *text)
{
    union section_settings settings = {0};
    union section_settings same = {0};
    char *error = setting_parse(setting, folder, text, &settings);

    if (error == NULL) {
        check_printed(setting, folder, &settings);
        error = setting_parse(setting, folder, text, &same);
        FUZZ_CHECK(error == NULL && setting_equal(setting, &settings, &same),
                   "%s: the same text is another value", setting->key);
        value_release(setting->type, setting_field(setting, &same));
    } else {
        FUZZ_CHECK(error[0] != '\0', "%s: no reason", setting->key);
        for (const char *c = error; *c != '\0'; c++) {
            FUZZ_CHECK((unsigned char)*c >= 0x20 && *c != 0x7f, "a control byte in: %s", error);
        }
        FUZZ_CHECK(setting_equal(setting, &settings, &same),
                   "%s: a value that was refused has changed the field", setting->key);
        free(error);
    }
    value_release(setting->type, setting_field(setting, &settings));
}

static void
check_command(const char *text)
{
    const char *error;
    char *unknown;
    size_t count;
    size_t again_count;
    char **words = command_split(text, &count, &error);

    (void)command_placeholders(text, &unknown);
    FUZZ_CHECK(unknown == NULL || strstr(text, unknown) != NULL, "{%s} is not there", unknown);
    free(unknown);
    FUZZ_CHECK((words == NULL) == (error != NULL), "neither words nor an error");
    if (words == NULL) {
        return;
    }
    struct buf quoted = {0};
    for (size_t i = 0; i < count; i++) {
        FUZZ_CHECK(words[i] != NULL, "%zu words of %zu", i, count);
        buf_add_text(&quoted, i == 0 ? "\"" : " \"");
        for (const char *c = words[i]; *c != '\0'; c++) {
            if (*c == '"' || *c == '\\') {
                buf_add_text(&quoted, "\\");
            }
            buf_add(&quoted, c, 1);
        }
        buf_add_text(&quoted, "\"");
    }
    char **again = command_split(quoted.ptr, &again_count, &error);
    FUZZ_CHECK(again != NULL && again_count == count, "quoted, %zu words became %zu", count,
               again_count);
    for (size_t i = 0; i < count; i++) {
        FUZZ_CHECK(strcmp(words[i], again[i]) == 0, "'%s' became '%s'", words[i], again[i]);
    }
    command_free(again);
    command_free(words);
    buf_release(&quoted);
}

/* The row that "[section] key = " at the beginning of text names, and what follows it. */
static const struct setting *
find_row(const char *text, const char **ret_value)
{
    const char *bracket = strstr(text, "] ");
    const char *equals = strstr(text, " = ");

    if (text[0] != '[' || bracket == NULL || equals == NULL || equals < bracket + 2) {
        return NULL;
    }
    struct str section = {text + 1, (size_t)(bracket - text) - 1};
    struct str key = {bracket + 2, (size_t)(equals - bracket) - 2};
    for (size_t row = 0; row < SETTING_ROWS; row++) {
        const struct setting *setting = setting_at(row);
        if (str_equal(str_from(setting->key), key) &&
            str_equal(str_from(setting_section_name(setting->section)), section)) {
            *ret_value = equals + 3;
            return setting;
        }
    }
    return NULL;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xstrndup((const char *)data, size);
    const char *value = text;
    const struct setting *setting = find_row(text, &value);

    if (setting != NULL) {
        check_value(setting, "/srv/app", value);
        check_value(setting, NULL, value);
    }
    check_command(value);
    free(text);
    return 0;
}
