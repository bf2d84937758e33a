/* SPDX-License-Identifier: Apache-2.0
 *
 * --print-config prints what loads to the same settings again; --help tells every flag.
 */
#include "tests/unit/config/support.h"

#include "config/setting.h"

TestSuite(config_print, .init = enter_folder, .fini = leave_folder);

static char *
print_to_text(const struct config *config)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    cr_assert_not_null(out);
    if (config == NULL) {
        config_print_help(out);
    } else {
        config_print(config, out);
    }
    cr_assert_eq(fclose(out), 0);
    return text;
}

static void
expect_line(const char *text, const char *line)
{
    char *whole = xasprintf("\n%s\n", line);

    cr_expect_not_null(strstr(text, whole), "no line \"%s\" in:\n%s", line, text);
    free(whole);
}

/* Takes config. */
static void
expect_round_trip(struct config *config)
{
    char *text = print_to_text(config);
    struct config_diff diff;

    write_text("printed.ini", text);
    struct config *again = load_good(FLAGS("-c", "printed.ini"), NULL);
    config_diff(config, again, &diff);
    cr_expect_eq(diff.count, 0, "%s", diff.count > 0 ? diff.item[0].text : "");
    config_diff_release(&diff);
    config_free(again);
    config_free(config);
    free(text);
}

static const char full[] =
    "[master]\nbind = :81\nbind = [::1]:82\nbind = unix:/run/x\nbind = fd://4\nworkers = 3\n"
    "timeout = 90s\nuser = www\npidfile = /run/n.pid\n"
    "[worker]\nkeepalive = 0\nlimit_request_body = 0\nserver_header = off\n"
    "[log]\nerror = ./e.log\naccess = stdout\naccess_format = %(h)s;%(r)s\nlevel = warn\n"
    "[backend:app]\ncommand = sh -c 'exec app \"$0\"' {socket}\ninstances = 3\nlisten = socket\n"
    "directory = /\nenvironment = A=1\nenvironment = B=\nslots = 1\n"
    "[backend:servers]\nserver = 127.0.0.1:1\nserver = unix:/x weight=7\nbalance = hash\n"
    "[route:app]\npath = /app\nbackend = app\nstrip_prefix = on\nhost = a.example\n"
    "host = *.b.example\n"
    "[route:servers]\nbackend = servers\n"
    "[route:files]\npath = /files/\nstatic = .\nindex =\n"
    "[route:go]\npath = =/go\nredirect = 302 https://a.example{path}\n"
    "[route:say]\npath = /say\nrespond = 503 back  soon\n"
    "[route:none]\npath = /none\nrespond = 204\n";

Test(config_print, printed_settings_load_to_the_same)
{
    expect_round_trip(load_text(full));
    expect_round_trip(load_text("[route:r]\nrespond = 200 ok\n"));
    expect_round_trip(load_good(FLAGS("--static", "."), NULL));
    expect_round_trip(load_good(FLAGS("--backend", "127.0.0.1:1", "--backend", "[::1]:2"), NULL));
    expect_round_trip(load_good(FLAGS("--app", "uvicorn 'a b' --fd {fd}"), NULL));
}

Test(config_print, every_value_has_its_origin)
{
    write_text("n.ini", full);
    struct config *config =
        load_good(FLAGS("-c", "n.ini", "--workers", "5"), VARIABLES("NARWHAL_LOG_LEVEL=error"));
    char *text = print_to_text(config);

    expect_line(text, "workers = 5 ; --workers");
    expect_line(text, "level = error ; NARWHAL_LOG_LEVEL");
    expect_line(text, "bind = 0.0.0.0:81 ; n.ini:2");
    expect_line(text, "bind = [::1]:82 ; n.ini:3");
    expect_line(text, "timeout = 90s ; n.ini:7");
    expect_line(text, "group = ; default");
    expect_line(text, "server = unix:/x weight=7 ; n.ini:29");
    cr_expect_null(strstr(text, "(not set)"));
    free(text);
    config_free(config);

    config = load_good(FLAGS("--app", "app {port}"), NULL);
    text = print_to_text(config);
    expect_line(text, "[backend:default]");
    expect_line(text, "command = app {port} ; --app");
    expect_line(text, "[route:default]");
    expect_line(text, "backend = default ; --app");
    free(text);
    config_free(config);
}

/* A value for which "key = value ; origin" has one byte more than a line takes, and one less. */
Test(config_print, origins_move_to_a_line_of_their_own_at_the_limit)
{
    for (size_t length = 180; length <= 188; length++) {
        char value[200];
        memset(value, 'x', sizeof(value));
        memcpy(value, "200 ", 4);
        value[length] = '\0';
        char *text = xasprintf("[route:r]\nrespond = %s\n", value);
        struct config *config = load_text(text);
        char *printed = print_to_text(config);
        size_t with_origin = strlen("respond = ") + length + strlen(" ; n.ini:2");
        char *expected = with_origin <= 199 ? xasprintf("respond = %s ; n.ini:2", value)
                                            : xasprintf("respond = %s\n# n.ini:2", value);
        expect_line(printed, expected);
        free(expected);
        free(printed);
        free(text);
        expect_round_trip(config);
    }
}

Test(config_print, values_that_no_file_can_hold_are_refused_when_read_back)
{
    static const char *const commands[] = {"sh -c 'a ; b'", "sh -c \"a\t;b\"", NULL};
    char long_command[300];

    memset(long_command, 'x', sizeof(long_command));
    long_command[189] = '\0'; /* "command = " and 189 bytes: just fits */
    expect_round_trip(load_good(FLAGS("--app", long_command), NULL));
    long_command[189] = 'x';
    long_command[190] = '\0';
    for (size_t i = 0; i < 3; i++) {
        const char *command = commands[i] == NULL ? long_command : commands[i];
        struct config *config = load_good(FLAGS("--app", command), NULL);
        char *text = print_to_text(config);
        char *errors;
        write_text("printed.ini", text);
        cr_expect_null(load(FLAGS("-c", "printed.ini"), NULL, &errors));
        cr_expect_not_null(strstr(text, "\ncommand cannot be written in a settings file, "));
        cr_expect_not_null(strstr(errors, "the line must be 'key = value'"), "%s", errors);
        cr_expect_null(strstr(errors, "longer"), "%s", errors);
        free(errors);
        free(text);
        config_free(config);
    }
}

Test(config_print, help_names_every_flag_within_80_columns)
{
    char *text = print_to_text(NULL);

    for (size_t row = 0; row < SETTING_ROWS; row++) {
        if (!setting_section_is_named(setting_at(row)->section)) {
            struct buf flag = {0};
            setting_print_flag(setting_at(row), &flag);
            char *line = xasprintf("\n  --%s VALUE", flag.ptr);
            cr_expect_not_null(strstr(text, line), "%s", flag.ptr);
            free(line);
            buf_release(&flag);
        }
    }
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        cr_expect_leq(strcspn(line, "\n"), 80, "%.*s", (int)strcspn(line, "\n"), line);
    }
    expect_line(text, "  --workers VALUE, -w VALUE");
    expect_line(text, "  -c FILE, --config FILE");
    cr_expect_not_null(strstr(text, "Exit status:"));
    cr_expect_not_null(strstr(text, "64 for bad usage, 69 when an"));
    cr_expect_not_null(strstr(text, "78 for bad settings."));
    free(text);
}
