/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line: what it asks for, and what is bad usage.
 */
#include "tests/unit/config/support.h"

TestSuite(config_args);

static char *argv[16]; /* of the last parse(); the args borrow them */

static struct config_args
parse(const char *const *flags)
{
    struct config_args args;
    int argc = 0;

    for (; flags[argc] != NULL; argc++) {
        argv[argc] = xstrdup(flags[argc]);
    }
    argv[argc] = NULL;
    config_args_parse(&args, argc, argv, NULL);
    return args;
}

static void
release(struct config_args *args)
{
    config_args_release(args);
    for (int i = 0; argv[i] != NULL; i++) {
        free(argv[i]);
    }
}

static void
expect_command(const char *const *flags, enum config_command command, const char *path)
{
    struct config_args args = parse(flags);

    cr_expect_eq(args.command, command, "%s: %s", flags[1], args.usage_error);
    if (path == NULL) {
        cr_expect_null(args.path);
    } else {
        cr_assert_not_null(args.path);
        cr_expect_str_eq(args.path, path);
    }
    release(&args);
}

static void
expect_usage_error(const char *const *flags, const char *error)
{
    struct config_args args = parse(flags);

    cr_expect_eq(args.command, CONFIG_USAGE_ERROR, "%s", flags[1]);
    cr_assert_not_null(args.usage_error, "%s", error);
    cr_expect_str_eq(args.usage_error, error);
    release(&args);
}

Test(config_args, commands)
{
    expect_command(FLAGS("-c", "x.ini"), CONFIG_RUN, "x.ini");
    expect_command(FLAGS("-cx.ini"), CONFIG_RUN, "x.ini");
    expect_command(FLAGS("--config", "x.ini"), CONFIG_RUN, "x.ini");
    expect_command(FLAGS("--config=x.ini"), CONFIG_RUN, "x.ini");
    expect_command(FLAGS("--config=-"), CONFIG_RUN, "-");
    expect_command(FLAGS("--check-config", "-c", "x.ini"), CONFIG_CHECK, "x.ini");
    expect_command(FLAGS("-c", "x.ini", "--print-config"), CONFIG_PRINT, "x.ini");
    expect_command(FLAGS("--check-config"), CONFIG_CHECK, NULL);
    expect_command(FLAGS("--print-config", "-w3"), CONFIG_PRINT, NULL);
    expect_command(FLAGS("--static", "."), CONFIG_RUN, NULL);
    expect_command(FLAGS("--app", "a", "--print-config"), CONFIG_PRINT, NULL);
    expect_command(FLAGS("--backend", "a", "--backend", "b"), CONFIG_RUN, NULL);
    expect_command(FLAGS("-h"), CONFIG_HELP, NULL);
    expect_command(FLAGS("--help"), CONFIG_HELP, NULL);
    expect_command(FLAGS("-V"), CONFIG_SHOW_VERSION, NULL);
    expect_command(FLAGS("--version"), CONFIG_SHOW_VERSION, NULL);
    expect_command(FLAGS("--workers", "2", "--help"), CONFIG_HELP, NULL);
    /* Values are looked at while loading. */
    expect_command(FLAGS("-c", "x.ini", "-w", "nonsense", "-b", "1", "-b2"), CONFIG_RUN, "x.ini");
}

Test(config_args, bad_usage)
{
    static const char nothing[] = "nothing to serve; give a settings file with -c FILE, or "
                                  "--static FOLDER, --backend ADDRESS or --app COMMAND";
    static const char no_file[] =
        "--static, --backend and --app are for running without a settings file; with -c FILE write "
        "a [route:NAME] into the file instead";

    expect_usage_error((const char *const[]){"narwhal", NULL}, nothing);
    expect_usage_error(FLAGS("--workers", "2"), nothing);
    expect_usage_error(FLAGS("--wrokers", "2"), "unknown flag \"--wrokers\"; did you mean "
                                                "\"--workers\"?");
    expect_usage_error(FLAGS("--wrokers=2"), "unknown flag \"--wrokers\"; did you mean "
                                             "\"--workers\"?");
    expect_usage_error(FLAGS("--graceful_timeout=2s"),
                       "unknown flag \"--graceful_timeout\"; did you mean \"--graceful-timeout\"?");
    expect_usage_error(FLAGS("--stattic", "."), "unknown flag \"--stattic\"; did you mean "
                                                "\"--static\"?");
    expect_usage_error(FLAGS("--log-levle=info"), "unknown flag \"--log-levle\"; did you mean "
                                                  "\"--log-level\"?");
    expect_usage_error(FLAGS("--daemonize"), "unknown flag \"--daemonize\"; --help lists all of "
                                             "them");
    expect_usage_error(FLAGS("--slots=1"), "unknown flag \"--slots\"; --help lists all of them");
    expect_usage_error(FLAGS("-x"), "unknown flag \"-x\"; --help lists all of them");
    expect_usage_error(FLAGS("--\033[1m"), "unknown flag \"--?[1m\"; --help lists all of them");
    expect_usage_error(FLAGS("x.ini"), "unexpected argument \"x.ini\"; a settings file is given "
                                       "with -c FILE, a flag begins with --");
    expect_usage_error(FLAGS("--"), "unexpected argument \"--\"; a settings file is given with -c "
                                    "FILE, a flag begins with --");
    expect_usage_error(FLAGS("-"), "unexpected argument \"-\"; a settings file is given with -c "
                                   "FILE, a flag begins with --");
    expect_usage_error(FLAGS(""),
                       "unexpected argument \"\"; a settings file is given with -c FILE, "
                       "a flag begins with --");
    expect_usage_error(FLAGS("-c"), "--config needs a value: --config VALUE, or --config=VALUE "
                                    "when it begins with '-'");
    expect_usage_error(
        FLAGS("--workers", "--bind", ":1"),
        "--workers needs a value: --workers VALUE, or --workers=VALUE when it begins "
        "with '-'");
    expect_usage_error(FLAGS("--help=yes"), "--help takes no value");
    expect_usage_error(FLAGS("-w", "2", "--workers=3"), "--workers is given twice; keep one");
    expect_usage_error(FLAGS("-c", "a", "-c", "b"), "--config is given twice; keep one");
    expect_usage_error(FLAGS("--app", "a", "--app", "b"), "--app is given twice; keep one");
    expect_usage_error(FLAGS("-c", "a", "--check-config", "--print-config"),
                       "--check-config and --print-config cannot be given together");
    expect_usage_error(FLAGS("-c", "a", "--static", "."), no_file);
    expect_usage_error(FLAGS("-c", "a", "--backend", "."), no_file);
    expect_usage_error(FLAGS("-c", "a", "--app", "."), no_file);
    expect_usage_error(FLAGS("--static", ".", "--app", "a"),
                       "--static cannot be given with --backend or --app: both would answer for "
                       "'/'; write a settings file with a [route:NAME] for each path");
    expect_usage_error(FLAGS("--backend", ":1", "--app", "a"),
                       "--backend and --app cannot be given together: one is an application that "
                       "runs already, the other one that narwhal starts; for both write a settings "
                       "file with two [backend:NAME] sections");
}
