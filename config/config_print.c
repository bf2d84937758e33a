/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings as text for people: --print-config, which is a settings file again, and --help. Both
 * come from the table. Runs in the master before it becomes one.
 */
#include "config/config.h"

#include <string.h>

#include "config/base/buf.h"
#include "config/config_private.h"
#include "config/ini_source.h"
#include "config/setting.h"

/* ---- --print-config ------------------------------------------------------------------------ */

/* Whether a settings file gives value back as it is: inih ends it at a ';' behind a blank. */
static bool
file_can_hold(const char *value)
{
    for (const char *c = strchr(value, ';'); c != NULL; c = strchr(c + 1, ';')) {
        if (c == value || c[-1] == ' ' || c[-1] == '\t') {
            return false;
        }
    }
    return true;
}

/* A comment that fits into a line; what does not is cut. */
static void
print_comment(const char *text, FILE *out)
{
    (void)fprintf(out, "# %.*s\n", INI_SOURCE_LINE_MAX - 2, text);
}

static void
print_item(const char *key, const char *value, const char *origin, FILE *out)
{
    struct buf line = {0};

    buf_addf(&line, "%s =%s%s", key, value[0] == '\0' ? "" : " ", value);
    if (line.len > INI_SOURCE_LINE_MAX || !file_can_hold(value)) {
        /* A line that is refused, so that the value cannot get lost without an error. */
        print_comment(line.ptr, out);
        print_comment(origin, out);
        (void)fprintf(out, "%s cannot be written in a settings file, %s\n", key,
                      line.len > INI_SOURCE_LINE_MAX
                          ? "the line would be too long"
                          : "a semicolon behind a blank would begin a comment");
    } else if (line.len + strlen(" ; ") + strlen(origin) <= INI_SOURCE_LINE_MAX) {
        (void)fprintf(out, "%s ; %s\n", line.ptr, origin);
    } else {
        (void)fprintf(out, "%s\n", line.ptr);
        print_comment(origin, out);
    }
    buf_release(&line);
}

static void
print_setting(const struct config *config, size_t row, size_t index, FILE *out)
{
    const struct setting *setting = setting_at(row);
    const void *settings = config_section(config, setting->section, index);
    const void *field = setting_field_const(setting, settings);
    const struct section_origins *origins = config_section_origins(config, setting->section, index);
    size_t count = value_count(setting->type, field);
    const char *needs;

    if (setting_section_is_named(setting->section)) {
        bool is_empty_default = count == 0 && setting->default_text[0] == '\0';
        if (is_empty_default || !setting_applies(setting, settings, &needs)) {
            return; /* a server list of a command, or the reverse: would be refused */
        }
    }
    if (count == 0) {
        print_item(setting->key, "", config_item_origin(origins, row, 0), out);
    }
    for (size_t i = 0; i < count; i++) {
        struct buf value = {0};
        value_print(setting->type, field, i, &value);
        print_item(setting->key, value.ptr, config_item_origin(origins, row, i), out);
        buf_release(&value);
    }
}

void
config_print(const struct config *config, FILE *out)
{
    (void)fprintf(out, "# All settings in effect, each with where it comes from.\n");
    for (enum setting_section section = 0; section < SETTING_SECTION_COUNT; section++) {
        for (size_t i = 0; i < config_section_count(config, section); i++) {
            struct buf header = {0};
            config_print_section(section, config_section_name_of(config, section, i), &header);
            (void)fprintf(out, "\n%s\n", header.ptr);
            buf_release(&header);
            for (size_t row = 0; row < SETTING_ROWS; row++) {
                if (setting_at(row)->section == section) {
                    print_setting(config, row, i, out);
                }
            }
        }
    }
}

/* ---- --help -------------------------------------------------------------------------------- */

#define HELP_COLUMNS 80
#define HELP_INDENT 6

/* Breaks text at blanks, each line behind so many blanks. */
static void
print_wrapped(const char *text, int indent, FILE *out)
{
    size_t room = (size_t)(HELP_COLUMNS - indent);

    while (*text != '\0') {
        size_t length = strlen(text);
        if (length > room) {
            length = room;
            while (length > 0 && text[length] != ' ') {
                length--;
            }
            length = length == 0 ? strcspn(text, " ") : length; /* one word longer than a line */
        }
        (void)fprintf(out, "%*s%.*s\n", indent, "", (int)length, text);
        text += length;
        text += strspn(text, " ");
    }
}

static void
print_flag_help(const struct setting *setting, FILE *out)
{
    struct value_rules rules = {.min = setting->min, .max = setting->max};
    struct buf flag = {0};
    struct buf text = {0};

    setting_print_flag(setting, &flag);
    (void)fprintf(out, "  --%s VALUE%s\n", flag.ptr,
                  strcmp(flag.ptr, "bind") == 0      ? ", -b VALUE"
                  : strcmp(flag.ptr, "workers") == 0 ? ", -w VALUE"
                                                     : "");
    buf_addf(&text, "%s (Default: %s; allowed: ", setting->documentation,
             setting->default_text[0] == '\0' ? "not set" : setting->default_text);
    value_print_allowed(setting->type, &rules, &text);
    buf_add_text(&text, ")");
    print_wrapped(text.ptr, HELP_INDENT, out);
    buf_release(&flag);
    buf_release(&text);
}

void
config_print_help(FILE *out)
{
    static const struct {
        const char *flag;
        const char *text;
    } special[] = {
        {"-c FILE, --config FILE", "Read the settings file FILE. SIGHUP reads it again."},
        {"--static FOLDER", "Without a settings file: serve the files of FOLDER at '/'."},
        {"--backend ADDRESS", "Without a settings file: pass all requests to the application "
                              "server at ADDRESS. Repeat the flag for more servers."},
        {"--app COMMAND", "Without a settings file: start the application COMMAND, keep it "
                          "running, and pass all requests to it. {fd}, {socket} or {port} in "
                          "COMMAND tells it where to listen."},
        {"--check-config", "Check the settings, tell all errors, and exit."},
        {"--print-config", "Print the settings in effect and where each comes from, as a settings "
                           "file, and exit."},
        {"-h, --help", "Print this text and exit."},
        {"-V, --version", "Print the version and exit."},
    };

    (void)fputs("Usage: narwhal -c FILE [FLAG...]\n"
                "       narwhal --static FOLDER [FLAG...]\n"
                "       narwhal --backend ADDRESS [FLAG...]\n"
                "       narwhal --app COMMAND [FLAG...]\n"
                "       narwhal doctor [--unit UNIT] [--cgroup FOLDER] -c FILE [FLAG...]\n\n"
                "Pre-fork server master: serves static files and applications by a fixed number\n"
                "of worker processes.\n\n",
                out);
    for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++) {
        (void)fprintf(out, "  %s\n", special[i].flag);
        print_wrapped(special[i].text, HELP_INDENT, out);
    }
    (void)fputc('\n', out);
    print_wrapped("Every key of [master], [worker] and [log] is also a flag, --key VALUE or "
                  "--key=VALUE, and an environment variable: NARWHAL_GRACEFUL_TIMEOUT for "
                  "--graceful-timeout, NARWHAL_LOG_LEVEL for --log-level. A flag wins over the "
                  "environment, the environment over the settings file. A flag of a list may be "
                  "repeated; in the environment commas separate the items.",
                  0, out);
    for (enum setting_section section = 0; section < SETTING_SECTION_COUNT; section++) {
        if (setting_section_is_named(section)) {
            continue;
        }
        (void)fprintf(out, "\n[%s]\n", setting_section_name(section));
        for (size_t row = 0; row < SETTING_ROWS; row++) {
            if (setting_at(row)->section == section) {
                print_flag_help(setting_at(row), out);
            }
        }
    }
    (void)fputc('\n', out);
    print_wrapped("[backend:NAME] and [route:NAME] are sections of the settings file; "
                  "docs/configuration.md describes all keys, docs/SIGNALS.md the signals (HUP "
                  "reloads, TERM stops gracefully, INT and QUIT stop at once, TTIN and TTOU change "
                  "the number of workers).",
                  0, out);
    (void)fputc('\n', out);
    print_wrapped("Exit status: 0 after a stop that was asked for, 64 for bad usage, 69 when an "
                  "address or the pidfile is taken, 71 when the kernel refuses something, 73 when "
                  "a log, the pidfile or a folder cannot be made or another master holds the "
                  "folder of runtime_dir, 78 for bad settings.",
                  0, out);
}
