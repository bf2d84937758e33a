/* SPDX-License-Identifier: Apache-2.0
 *
 * Loading: who wins, where values come from, all errors at once, and files with odd bytes.
 */
#include "tests/unit/config/support.h"

TestSuite(config, .init = enter_folder, .fini = leave_folder);

#define ROUTE "[route:r]\nrespond = 200 ok\n"

Test(config, later_layers_win_and_origins_tell)
{
    write_text("n.ini", "[master]\nbacklog = 10\nworkers = 2\ntimeout = 5s\n[worker]\n"
                        "keepalive = 1s\n" ROUTE);
    struct config *config =
        load_good(FLAGS("-c", "n.ini", "--timeout=7s", "--log-level", "debug"),
                  VARIABLES("NARWHAL_WORKERS=3", "NARWHAL_TIMEOUT=6s", "PATH=/bin", "NARWHALE=1"));

    cr_expect_eq(config->master.backlog, 10);
    cr_expect_str_eq(config_origin(config, "master", NULL, "backlog"), "n.ini:2");
    cr_expect_eq(config->master.workers, 3);
    cr_expect_str_eq(config_origin(config, "master", NULL, "workers"), "NARWHAL_WORKERS");
    cr_expect_eq(config->master.timeout_ms, 7000);
    cr_expect_str_eq(config_origin(config, "master", NULL, "timeout"), "--timeout");
    cr_expect_eq(config->log.level, LOG_LEVEL_DEBUG);
    cr_expect_str_eq(config_origin(config, "log", NULL, "level"), "--log-level");
    cr_expect_eq(config->worker.keepalive_ms, 1000);
    cr_expect_str_eq(config_origin(config, "worker", NULL, "keepalive"), "n.ini:6");
    cr_expect_str_eq(config_origin(config, "worker", NULL, "connections"), "default");
    cr_expect_str_eq(config_origin(config, "route", "r", "respond"), "n.ini:8");
    cr_expect_str_eq(config_origin(config, "route", "other", "respond"), "default");
    cr_expect_str_eq(config->path, "n.ini");
    config_free(config);
}

Test(config, a_list_replaces_the_whole_list_below)
{
    write_text("n.ini", "[master]\nbind = 127.0.0.1:1\nbind = 127.0.0.1:2\n" ROUTE);
    struct config *config = load_good(FLAGS("-c", "n.ini"), NULL);
    cr_assert_eq(config->master.bind.count, 2);
    cr_expect_str_eq(config->master.bind.item[1].text, "127.0.0.1:2");
    config_free(config);

    config = load_good(FLAGS("-c", "n.ini"), VARIABLES("NARWHAL_BIND=127.0.0.1:3 , [::1]:4"));
    cr_assert_eq(config->master.bind.count, 2);
    cr_expect_str_eq(config->master.bind.item[0].text, "127.0.0.1:3");
    cr_expect_str_eq(config->master.bind.item[1].text, "[::1]:4");
    config_free(config);

    config = load_good(FLAGS("-c", "n.ini", "-b", ":5", "--bind=:6", "-b:7"),
                       VARIABLES("NARWHAL_BIND=127.0.0.1:3"));
    cr_assert_eq(config->master.bind.count, 3);
    cr_expect_str_eq(config->master.bind.item[0].text, "0.0.0.0:5");
    cr_expect_str_eq(config->master.bind.item[2].text, "0.0.0.0:7");
    config_free(config);
}

Test(config, same_arguments_load_again)
{
    char program[] = "narwhal";
    char flag[] = "-c";
    char path[] = "n.ini";
    char *argv[] = {program, flag, path, NULL};
    struct config_args args;
    struct config_errors errors = {0};

    write_text("n.ini", "[worker]\nkeepalive = 1s\n" ROUTE);
    config_args_parse(&args, 3, argv, NULL);
    struct config *before = config_load(&args, &errors);
    cr_assert_not_null(before);
    write_text("n.ini", "[worker]\nkeepalive = 2s\n" ROUTE);
    struct config *after = config_load(&args, &errors);
    cr_assert_not_null(after);
    cr_expect_eq(before->worker.keepalive_ms, 1000);
    cr_expect_eq(after->worker.keepalive_ms, 2000);
    write_text("n.ini", "[worker]\nkeepalive = 2\n" ROUTE);
    cr_expect_null(config_load(&args, &errors));
    cr_expect_eq(errors.count, 1);
    config_errors_release(&errors);
    cr_expect_eq(errors.count, 0);
    config_free(before);
    config_free(after);
    config_args_release(&args);
}

Test(config, relative_paths_are_relative_to_the_file_or_the_folder)
{
    cr_assert_eq(mkdir("etc", 0755), 0);
    cr_assert_eq(mkdir("etc/site", 0755), 0);
    write_text("etc/n.ini", "[log]\naccess = ./a.log\n[route:r]\nstatic = site\n");
    struct config *config = load_good(FLAGS("-c", "etc/n.ini", "--pidfile", "run/n.pid"),
                                      VARIABLES("NARWHAL_CONTROL=c"));
    char *expected = xasprintf("%s/etc/site", folder);
    cr_expect_str_eq(config->routes[0].static_path, expected);
    free(expected);
    expected = xasprintf("%s/etc/a.log", folder);
    cr_expect_str_eq(config->log.access.path, expected);
    free(expected);
    expected = xasprintf("%s/run/n.pid", folder);
    cr_expect_str_eq(config->master.pidfile_path, expected);
    free(expected);
    expected = xasprintf("%s/c", folder);
    cr_expect_str_eq(config->master.control_path, expected);
    free(expected);
    config_free(config);

    char *absolute = xasprintf("%s/etc/n.ini", folder);
    config = load_good(FLAGS("-c", absolute), NULL);
    expected = xasprintf("%s/etc/site", folder);
    cr_expect_str_eq(config->routes[0].static_path, expected);
    free(expected);
    free(absolute);
    config_free(config);
}

Test(config, file_oddities_load)
{
    static const char *const texts[] = {
        "\xef\xbb\xbf[route:r]\r\nrespond = 200 ok\r\n",
        "[route:r]\nrespond = 200 ok",
        "\n\n; comment\n  # comment\n[route:r]   ; comment\nrespond=200 ok   ; comment\n",
        "[route:r]\nrespond : 200 ok\n",
        "[route:r]\nrespond\t=\t200 ok\t\n",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct config *config = load_text(texts[i]);
        cr_assert_eq(config->route_count, 1);
        cr_expect_eq(config->routes[0].respond.status, 200);
        cr_expect_str_eq(config->routes[0].respond.text, "ok");
        config_free(config);
    }
}

Test(config, whole_file_errors)
{
    cr_assert_eq(mkfifo("pipe", 0600), 0);
    expect_errors(FLAGS("-c", "no.ini"), NULL,
                  "no.ini: the settings file cannot be read: No such file or directory; name one "
                  "with -c FILE\n");
    expect_errors(FLAGS("-c", "/"), NULL,
                  "/: is a directory, not a settings file; name the file itself with -c FILE\n");
    expect_errors(FLAGS("-c", "pipe"), NULL,
                  "pipe: is a pipe, not a settings file; name the file itself with -c FILE\n");
    expect_errors(FLAGS("-c", ""), NULL,
                  ": the settings file cannot be read: No such file or directory; name one with -c "
                  "FILE\n");
}

Test(config, errors_of_all_layers_come_at_once_in_the_order_of_the_file)
{
    write_text("n.ini", "[master]\nbind = 127.0.0.1:1\nbind = 127.0.0.1:1\n[route:r]\n"
                        "static = nowhere\n[worker]\nkeepalive = 5\n");
    char *expected = xasprintf(
        "n.ini:3: [master] bind: 127.0.0.1:1 is there twice, first at n.ini:2\n"
        "n.ini:5: [route:r] static: the folder \"%s/nowhere\" cannot be used: No such file or "
        "directory\n"
        "n.ini:7: [worker] keepalive: \"5\" has no unit; it must be from 0 to 24h, a whole number "
        "with the unit ms, s, m or h\n"
        "NARWHAL_WORKERS: \"many\" is not a whole number; it must be auto or 1 to 256\n"
        "unknown environment variable \"NARWHAL_WORKER\"; did you mean \"NARWHAL_WORKERS\"?\n"
        "--log-level: \"loud\" is not allowed; it must be error, warn, info or debug\n",
        folder);
    expect_errors(FLAGS("-c", "n.ini", "--log-level=loud"),
                  VARIABLES("NARWHAL_WORKERS=many", "NARWHAL_WORKER=2"), expected);
    free(expected);
}

Test(config, variables_are_checked)
{
    write_text("n.ini", ROUTE);
    expect_errors(FLAGS("-c", "n.ini"), VARIABLES("NARWHAL_SOMETHING_ELSE=1"),
                  "unknown environment variable \"NARWHAL_SOMETHING_ELSE\"; names that begin with "
                  "NARWHAL_ are for settings, see --help\n");
    expect_errors(FLAGS("-c", "n.ini"), VARIABLES("NARWHAL_LEVEL=info"),
                  "unknown environment variable \"NARWHAL_LEVEL\"; names that begin with NARWHAL_ "
                  "are for settings, see --help\n");
    expect_errors(FLAGS("-c", "n.ini"), VARIABLES("NARWHAL_BIND=127.0.0.1:1,"),
                  "NARWHAL_BIND: is given both empty and with a value; keep one\n");
    expect_errors(FLAGS("-c", "n.ini"), VARIABLES("NARWHAL_BIND="),
                  "NARWHAL_BIND: must not be empty; give an address to listen on, for example "
                  "127.0.0.1:8000\n");
    expect_errors(FLAGS("-c", "n.ini"), VARIABLES("NARWHAL_USER=a\nb"),
                  "NARWHAL_USER: \"a?b\" has the control byte 0x0a at position 2; only printable "
                  "text is allowed\n");
    expect_errors(FLAGS("-c", "n.ini"), VARIABLES("NARWHAL_WORKERS=1", "NARWHAL_WORKERS=2"),
                  "NARWHAL_WORKERS: is given twice; keep one\n");
}

Test(config, service_links_of_kubernetes_are_not_settings)
{
    write_text("n.ini", ROUTE);
    config_free(load_good(
        FLAGS("-c", "n.ini"),
        VARIABLES("NARWHAL_SERVICE_HOST=10.0.0.1", "NARWHAL_SERVICE_PORT=80",
                  "NARWHAL_SERVICE_PORT_HTTP=80", "NARWHAL_PORT=tcp://10.0.0.1:80",
                  "NARWHAL_PORT_80_TCP_ADDR=10.0.0.1", "NARWHAL_WEB_SERVICE_HOST=10.0.0.2")));
}

Test(config, empty_values_unset)
{
    write_text("n.ini", "[master]\nuser = root\npidfile = /run/n.pid\n[route:r]\nstatic = .\n"
                        "index =\n");
    struct config *config =
        load_good(FLAGS("-c", "n.ini", "--pidfile="), VARIABLES("NARWHAL_USER=  "));
    cr_expect_null(config->master.user);
    cr_expect_null(config->master.pidfile_path);
    cr_expect_null(config->routes[0].index);
    cr_expect_str_eq(config_origin(config, "master", NULL, "pidfile"), "--pidfile");
    config_free(config);
}

Test(config, without_a_file_a_route_is_made)
{
    struct config *config = load_good(FLAGS("--static", ".", "-w2"), NULL);
    cr_assert_eq(config->route_count, 1);
    cr_expect_str_eq(config->routes[0].static_path, folder);
    cr_expect_str_eq(config->routes[0].path.path, "/");
    cr_expect_eq(config->backend_count, 0);
    cr_expect_eq(config->master.workers, 2);
    cr_expect_null(config->path);
    config_free(config);

    config = load_good(FLAGS("--backend", "127.0.0.1:1", "--backend=unix:/x weight=2"), NULL);
    cr_assert_eq(config->route_count, 1);
    cr_assert_eq(config->backend_count, 1);
    cr_assert_eq(config->backends[0].server.count, 2);
    cr_expect_eq(config->backends[0].server.item[1].weight, 2);
    cr_expect_str_eq(config->backends[0].name, "default");
    cr_expect_str_eq(config->routes[0].backend, "default");
    cr_expect_str_eq(config_origin(config, "backend", "default", "server"), "--backend");
    config_free(config);

    config = load_good(FLAGS("--app", "uvicorn app:app --fd {fd}"), NULL);
    cr_assert_eq(config->backend_count, 1);
    cr_expect_str_eq(config->backends[0].command, "uvicorn app:app --fd {fd}");
    cr_expect_str_eq(config_origin(config, "backend", "default", "command"), "--app");
    config_free(config);
}

Test(config, without_a_route_only_printing_is_possible)
{
    write_text("n.ini", "");
    expect_errors(
        FLAGS("-c", "n.ini"), NULL,
        "n.ini: there is no route, so nothing would be served; add a section [route:NAME] "
        "with path and an action (static, backend, redirect or respond)\n");
    expect_errors(FLAGS("--check-config"), NULL,
                  "nothing to serve; give a settings file with -c FILE, or --static FOLDER, "
                  "--backend ADDRESS or --app COMMAND\n");
    expect_errors(FLAGS("--check-config", "--workers", "0"), NULL,
                  "--workers: \"0\" is out of range; it must be auto or 1 to 256\n");
    config_free(load_good(FLAGS("-c", "n.ini", "--print-config"), NULL));
    struct config *config = load_good(FLAGS("--print-config", "-w3"), NULL);
    cr_expect_eq(config->master.workers, 3);
    config_free(config);
}

Test(config, made_routes_are_checked_as_others)
{
    char *expected = xasprintf("--static: the folder \"%s/x\" cannot be used: No such file or "
                               "directory\n",
                               folder);
    expect_errors(FLAGS("--static", "x"), NULL, expected);
    free(expected);
    expect_errors(FLAGS("--static", ""), NULL, "--static: must not be empty\n");
    expect_errors(FLAGS("--app", "'uvicorn"), NULL,
                  "--app: the command has a single quote (') without its end; note that a ';' "
                  "behind a blank begins a comment in a settings file\n");
    expect_errors(FLAGS("--app", "a {x}"), NULL,
                  "--app: unknown placeholder {x}; allowed are {fd}, {socket} and {port}\n");
    expect_errors(FLAGS("--backend", "127.0.0.1"), NULL,
                  "--backend: \"127.0.0.1\" is no address; allowed are HOST:PORT, [IPV6]:PORT, "
                  ":PORT, unix:/PATH, systemd:NAME or fd://N\n");
    expect_errors(FLAGS("--backend", "127.0.0.1:1", "--backend", "127.0.0.1:1"), NULL,
                  "--backend: 127.0.0.1:1 is there twice (for more requests give it weight=N), "
                  "first at --backend\n");
}

Test(config, garbage_gives_a_bounded_number_of_errors)
{
    struct buf text = {0};
    char *errors;

    for (int i = 0; i < 20000; i++) {
        buf_addf(&text, "garbage %d\n", i);
    }
    write_file("n.ini", text.ptr, text.len);
    cr_expect_null(load(FLAGS("-c", "n.ini"), NULL, &errors));
    cr_expect_not_null(strstr(errors, "n.ini:499: "));
    cr_expect_null(strstr(errors, "n.ini:500: "));
    cr_expect_not_null(strstr(errors, "there are more than 499 errors; the rest is not listed"));
    free(errors);
    buf_release(&text);
}

Test(config, sections_are_bounded)
{
    struct buf text = {0};

    for (int i = 0; i < 10241; i++) {
        buf_addf(&text, "[route:r%d]\npath = /%d\nrespond = 200\n", i, i);
    }
    write_file("n.ini", text.ptr, text.len);
    expect_errors(
        FLAGS("-c", "n.ini"), NULL,
        "n.ini:30721: [route:r10240]: is one too many; at most 10240 sections [route:NAME] "
        "are allowed\n");
    buf_release(&text);
}

Test(config, records_are_copied_and_replaced)
{
    struct config *config = load_good(FLAGS("--backend", "127.0.0.1:1"), NULL);
    uint32_t records[] = {4, 5};

    config_set_records(&config->backends[0], records, 2);
    records[0] = 9;
    cr_assert_eq(config->backends[0].record_count, 2);
    cr_expect_eq(config->backends[0].records[0], 4);
    config_set_records(&config->backends[0], records, 1);
    cr_expect_eq(config->backends[0].record_count, 1);
    cr_expect_eq(config->backends[0].records[0], 9);
    config_set_records(&config->backends[0], NULL, 0);
    cr_expect_null(config->backends[0].records);
    config_free(config);
}

Test(config, sample_file_loads)
{
    struct config *config = load_good(FLAGS("-c", NARWHAL_SOURCE_DIR "/etc/narwhal.ini"), NULL);

    cr_expect_eq(config->route_count, 1);
    cr_expect_eq(config->backend_count, 0);
    config_free(config);
}

/* Removes the first character of each line that begins with ";", as a user would. */
Test(config, sample_file_loads_with_every_key_in_force)
{
    struct buf text = {0};
    char line[400];
    FILE *in = fopen(NARWHAL_SOURCE_DIR "/etc/narwhal.ini", "re");
    bool is_in_master = false;

    cr_assert_not_null(in);
    while (fgets(line, sizeof(line), in) != NULL) {
        if (line[0] == '[') {
            is_in_master = true;
        } else if (strncmp(line, ";[", 2) == 0) {
            is_in_master = false;
        }
        if (strncmp(line, "[route:", 7) == 0) {
            break;
        }
        if (is_in_master) {
            buf_add_text(&text, line[0] == ';' ? line + 1 : line);
        }
    }
    cr_assert_eq(fclose(in), 0);
    buf_add_text(&text, ROUTE);
    struct config *config = load_text(text.ptr);
    cr_expect_str_neq(config_origin(config, "worker", NULL, "static_cache"), "default");
    cr_expect_eq(config->worker.static_cache_ms, 1000);
    config_free(config);
    buf_release(&text);
}

/* The example of the document is a file that loads, where its folder is there. */
Test(config, documented_example_loads)
{
    struct buf text = {0};
    char line[400];
    FILE *in = fopen(NARWHAL_SOURCE_DIR "/docs/configuration.md", "re");
    bool is_example = false;

    cr_assert_not_null(in);
    while (fgets(line, sizeof(line), in) != NULL && strcmp(line, "```\n") != 0) {
        if (is_example) {
            buf_add_text(&text,
                         strcmp(line, "static = /srv/app/assets\n") == 0 ? "static = .\n" : line);
        }
        is_example = is_example || strcmp(line, "```ini\n") == 0;
    }
    cr_assert_eq(fclose(in), 0);
    struct config *config = load_text(text.ptr);
    cr_expect_eq(config->backend_count, 2);
    cr_expect_eq(config->route_count, 3);
    cr_expect_str_eq(config->routes[0].static_path, folder);
    config_free(config);
    buf_release(&text);
}
