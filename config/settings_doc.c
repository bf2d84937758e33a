/* SPDX-License-Identifier: Apache-2.0
 *
 * narwhal-settings-doc markdown|ini: prints docs/configuration.md or etc/narwhal.ini from the table
 * of settings. A build-time tool; the target "docs" writes both files into the source tree and the
 * test config.generated_files compares them.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/config_private.h"
#include "config/ini_source.h"
#include "config/setting.h"

#define INI_COLUMNS 78

static const char *const section_headers[SETTING_SECTION_COUNT] = {
    [SETTING_MASTER] = "[master]",        [SETTING_WORKER] = "[worker]",    [SETTING_LOG] = "[log]",
    [SETTING_BACKEND] = "[backend:NAME]", [SETTING_ROUTE] = "[route:NAME]",
};

static const char *const section_texts[SETTING_SECTION_COUNT] = {
    [SETTING_MASTER] = "The process that listens, starts the workers and the applications, and "
                       "keeps them running.",
    [SETTING_WORKER] = "The processes that serve: their connections with clients.",
    [SETTING_LOG] = "Where the logs go and what they hold.",
    [SETTING_BACKEND] =
        "An application behind narwhal: either servers that run already (server) or "
        "a command that narwhal starts and keeps running (command). As many "
        "sections as there are applications, each with a name of its own.",
    [SETTING_ROUTE] = "What is done with which requests: host and path say which, and exactly one "
                      "of static, backend, redirect and respond says what. As many sections as "
                      "needed, each with a name of its own.",
};

static const char *const reload_texts[] = {
    [RELOAD_LIVE] = "LIVE (taken over by the running workers)",
    [RELOAD_WORKERS] = "WORKERS (the workers are replaced one by one)",
    [RELOAD_RESTART] = "RESTART (a reload refuses the change)",
};

/* The documents are about the binary that ships, whichever build makes them. */
static bool
is_in_section(const struct setting *setting, enum setting_section section)
{
    static const char test_only[] = "Test builds only";

    return setting->section == section &&
           strncmp(setting->documentation, test_only, sizeof(test_only) - 1) != 0;
}

static void
print_allowed(const struct setting *setting, struct buf *out)
{
    struct value_rules rules = {.min = setting->min, .max = setting->max};

    value_print_allowed(setting->type, &rules, out);
}

/* ---- docs/configuration.md ----------------------------------------------------------------- */

static const char example[] =
    "[master]\n"
    "bind = 127.0.0.1:8000        ; repeat the key for more: [::]:8080, "
    "unix:/run/narwhal/http.sock\n"
    "workers = auto\n"
    "timeout = 30s\n"
    "graceful_timeout = 30s\n"
    "user = narwhal\n"
    "group = narwhal\n"
    "pidfile = /run/narwhal/narwhal.pid\n"
    "control = /run/narwhal/narwhal.ctl\n"
    "\n"
    "[worker]\n"
    "connections = 10000\n"
    "keepalive = 75s\n"
    "\n"
    "[log]\n"
    "error = stderr\n"
    "access = off                 ; off, stdout, stderr, syslog, journald, a path\n"
    "access_format = combined     ; common, combined, json, or gunicorn's %(h)s atoms\n"
    "level = info\n"
    "\n"
    "[backend:api]\n"
    "command = uvicorn app:app --fd {fd}\n"
    "instances = 2\n"
    "\n"
    "[backend:legacy]\n"
    "server = 127.0.0.1:9001      ; repeat the key for more\n"
    "server = unix:/run/legacy.sock weight=2\n"
    "balance = least_busy         ; least_busy, round_robin, hash\n"
    "slots = 0                    ; requests one server handles at a time, 0 = no limit; more "
    "wait\n"
    "\n"
    "[route:assets]\n"
    "path = /assets/              ; longest prefix wins; path = =/exact for one path\n"
    "static = /srv/app/assets\n"
    "\n"
    "[route:app]\n"
    "path = /\n"
    "backend = api\n"
    "\n"
    "[route:health]\n"
    "path = =/healthz\n"
    "respond = 200 ok\n";

/* clang-format off */
static const char markdown_intro[] =
    "# Settings\n"
    "\n"
    "<!-- Made from config/settings.def by narwhal-settings-doc; `cmake --build build/dev "
    "--target docs` makes it anew. -->\n"
    "\n"
    "narwhal reads one settings file, given with `-c FILE`. Three commands help with it:\n"
    "\n"
    "- `narwhal -c FILE --check-config` checks it and tells all errors, each with file, line,"
    " key and what is allowed; the exit status is 0 or 78.\n"
    "- `narwhal -c FILE --print-config` prints the settings in effect, each with its origin, "
    "as a settings file.\n"
    "- `narwhal --help` lists the flags.\n"
    "\n"
    "## An example\n"
    "\n"
    "```ini\n"
    "%s```\n"
    "\n"
    "## The form of the file\n"
    "\n"
    "- `[section]`, then lines `key = value` (`key: value` is the same). Blanks around key "
    "and value do not count.\n"
    "- A line that begins with `;` or `#` is a comment. A `;` behind a blank begins a comment"
    " at the end of a line, **also within quotes**: a value cannot hold ` ;`. Where a command"
    " needs one, put it into a script.\n"
    "- A line has at most %d bytes, the name of a section or key at most %d, the file at most"
    " 1 MiB. What is longer is an error; nothing is cut.\n"
    "- No line but a comment may be indented, and a value cannot go on in the next line.\n"
    "- Text is UTF-8, with or without a byte order mark; lines end in LF or CRLF. Control "
    "bytes are errors.\n"
    "- Each section and each key stands once. Keys that hold a list (`bind`, `server`, "
    "`environment`, `host`) may be repeated, one item each.\n"
    "- An unknown section or key is an error that names the nearest known one. A key that "
    "means nothing beside the others, such as `instances` without `command`, is an error too:"
    " nothing is ignored.\n"
    "- `key =` without a value means: not set. It is allowed for texts, paths, lists and the "
    "actions of a route, but not for `bind` and `access_format`.\n"
    "- The NAME in `[backend:NAME]` and `[route:NAME]` has 1 to %d characters of a-z, 0-9, "
    "`_` and `-`. There may be %d sections of each kind, and %d items in a list.\n"
    "\n"
    "## Values\n"
    "\n"
    "| kind | form |\n"
    "|---|---|\n"
    "| duration | a whole number with a unit: `500ms`, `30s`, `5m`, `1h`; `0` needs no unit |\n"
    "| size | a whole number of bytes, or with `k`, `m`, `g` (1024, 1024², 1024³): `8k` |\n"
    "| switch | `on` or `off`; `yes`, `no`, `true`, `false` are the same |\n"
    "| path | absolute, or relative: in the file to the file's own folder, in a flag or the "
    "environment to the folder narwhal was started in (which it never leaves) |\n"
    "| log target | `off`, `stdout`, `stderr`, `syslog`, `journald`, or a path with a `/` in it |\n"
    "| address | `127.0.0.1:8000`, `[::1]:8000`, `:8000` for all IPv4 addresses, `unix:/PATH`"
    " (at most 107 bytes), `systemd:NAME` for the sockets that a .socket unit passes under that "
    "name, `fd://N` for a listening socket that narwhal inherits. Hosts are "
    "numeric; `localhost` is 127.0.0.1 |\n"
    "| server | an address to connect to, then, if wanted, `weight=N` (1 to 1000), "
    "`slots=N` (0 to 65535), `backup` |\n"
    "\n"
    "## Where a value comes from\n"
    "\n"
    "A default is replaced by the settings file, that by the environment, and that by a flag."
    " `--print-config` shows behind each value which it was: `default`, `FILE:LINE`, "
    "`NARWHAL_…` or `--…`.\n"
    "\n"
    "Every key of [master], [worker] and [log] is also a flag and an environment variable. "
    "The flag is the key with `-` for `_` (`--graceful-timeout 30s` or "
    "`--graceful-timeout=30s`), the variable the key in capitals behind `NARWHAL_` "
    "(`NARWHAL_GRACEFUL_TIMEOUT`); for [log] both have `log` in front (`--log-level`, "
    "`NARWHAL_LOG_LEVEL`). A list replaces the whole list that it overrides: the flag may be "
    "repeated, in the environment commas separate the items. An unknown variable whose name "
    "begins with `NARWHAL_` is an error, but for those that Kubernetes makes for a service of that "
    "name (`NARWHAL_SERVICE_HOST`, `NARWHAL_PORT`, ...).\n"
    "\n"
    "Without a file, `--static FOLDER`, `--backend ADDRESS` (repeatable) or `--app COMMAND` "
    "makes one route for everything; add `--print-config` to see it as a file to start from. "
    "`narwhal --print-config` alone prints the defaults.\n"
    "\n"
    "## What a reload does\n"
    "\n"
    "SIGHUP reads file, environment and flags again, as they were given at the start. If "
    "anything is wrong the old settings stay in force and the log tells all errors. Each key "
    "has a class:\n"
    "\n"
    "- **LIVE**: running workers take the new value over; no client connection notices.\n"
    "- **WORKERS**: the workers are replaced one by one.\n"
    "- **RESTART**: the reload is refused with a message; stop and start narwhal to change "
    "it.\n"
    "\n"
    "Sections [backend:NAME] and [route:NAME] may be added and removed by a reload.\n";
/* clang-format on */

static void
print_markdown_setting(const struct setting *setting)
{
    struct buf text = {0};

    (void)printf("\n### %s\n\n%s\n\n", setting->key, setting->documentation);
    print_allowed(setting, &text);
    if (setting->default_text[0] == '\0') {
        (void)printf("- Default: not set\n");
    } else {
        (void)printf("- Default: `%s`\n", setting->default_text);
    }
    (void)printf("- Allowed: %s\n- Reload: %s\n", text.ptr, setting_reload_name(setting->reload));
    if (!setting_section_is_named(setting->section)) {
        buf_clear(&text);
        setting_print_flag(setting, &text);
        (void)printf("- Flag: `--%s`, ", text.ptr);
        buf_clear(&text);
        setting_print_variable(setting, &text);
        (void)printf("environment: `NARWHAL_%s`\n", text.ptr);
    }
    buf_release(&text);
}

static void
print_markdown(void)
{
    (void)printf(markdown_intro, example, INI_SOURCE_LINE_MAX, INI_SOURCE_NAME_MAX, CONFIG_NAME_MAX,
                 CONFIG_SECTIONS_MAX, VALUE_LIST_MAX);
    for (enum setting_section section = 0; section < SETTING_SECTION_COUNT; section++) {
        (void)printf("\n## %s\n\n%s\n", section_headers[section], section_texts[section]);
        for (size_t row = 0; row < SETTING_ROWS; row++) {
            if (is_in_section(setting_at(row), section)) {
                print_markdown_setting(setting_at(row));
            }
        }
    }
}

/* ---- etc/narwhal.ini ----------------------------------------------------------------------- */

static void
print_ini_comment(const char *text)
{
    while (*text != '\0') {
        size_t length = strlen(text);
        if (length > INI_COLUMNS - 2) {
            length = INI_COLUMNS - 2;
            while (length > 0 && text[length] != ' ') {
                length--;
            }
            length = length == 0 ? strcspn(text, " ") : length;
        }
        (void)printf("# %.*s\n", (int)length, text);
        text += length;
        text += strspn(text, " ");
    }
}

static void
print_ini_setting(const struct setting *setting)
{
    struct buf text = {0};

    (void)putchar('\n');
    print_ini_comment(setting->documentation);
    buf_add_text(&text, "Allowed: ");
    print_allowed(setting, &text);
    buf_addf(&text, ". Reload: %s.", reload_texts[setting->reload]);
    print_ini_comment(text.ptr);
    (void)printf(";%s =%s%s\n", setting->key, setting->default_text[0] == '\0' ? "" : " ",
                 setting->default_text);
    buf_release(&text);
}

static void
print_ini(void)
{
    print_ini_comment("Settings of narwhal. Every key is here, commented out and with its default "
                      "value; to change one, remove the ';' at its beginning. Named sections are "
                      "commented out as a whole: give them a name of your own.");
    (void)puts("#");
    print_ini_comment("narwhal -c FILE --check-config checks the file. docs/configuration.md says "
                      "all about its form. Made from config/settings.def by narwhal-settings-doc.");
    for (enum setting_section section = 0; section < SETTING_SECTION_COUNT; section++) {
        (void)putchar('\n');
        print_ini_comment(section_texts[section]);
        if (setting_section_is_named(section)) {
            (void)printf(";%s\n", section_headers[section]);
        } else {
            (void)puts(section_headers[section]);
        }
        for (size_t row = 0; row < SETTING_ROWS; row++) {
            if (is_in_section(setting_at(row), section)) {
                print_ini_setting(setting_at(row));
            }
        }
    }
    (void)putchar('\n');
    print_ini_comment("The smallest file that serves something: one route.");
    (void)puts("[route:hello]\npath = /\nrespond = 200 narwhal is running; edit its settings file "
               "to serve something");
}

int
main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "markdown") == 0) {
        print_markdown();
    } else if (argc == 2 && strcmp(argv[1], "ini") == 0) {
        print_ini();
    } else {
        (void)fputs("usage: narwhal-settings-doc markdown|ini\n", stderr);
        return 64;
    }
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        perror("narwhal-settings-doc: cannot write to standard output");
        return 1;
    }
    return EXIT_SUCCESS;
}
