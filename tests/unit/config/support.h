/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of config/ share: a folder of their own, files in it, and loading settings from a
 * text, flags and variables. Static functions, so that each test is one source file.
 */
#pragma once

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/config.h"

#define UNUSED_IS_FINE __attribute__((unused))
/* Arguments of load(): a NULL-terminated list. */
#define FLAGS(...) ((const char *const[]){"narwhal", __VA_ARGS__, NULL})
#define VARIABLES(...) ((const char *const[]){__VA_ARGS__, NULL})

/* The folder of this test; every test runs in a process of its own. */
static char folder[64] UNUSED_IS_FINE;

UNUSED_IS_FINE static void
enter_folder(void)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/narwhal-unit-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
}

UNUSED_IS_FINE static void
leave_folder(void)
{
    char *command = xasprintf("rm -rf '%s'", folder);

    cr_assert_eq(chdir("/"), 0);
    cr_assert_eq(system(command), 0);
    free(command);
}

UNUSED_IS_FINE static void
write_file(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    cr_assert_neq(fd, -1, "%s", path);
    cr_assert_eq(fd_write_all(fd, bytes, size), 0);
    fd_close(&fd);
}

UNUSED_IS_FINE static void
write_text(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}

/* All errors, one in a line. */
UNUSED_IS_FINE static char *
join_errors(const struct config_errors *errors)
{
    struct buf text = {0};

    buf_add(&text, "", 0);
    for (size_t i = 0; i < errors->count; i++) {
        buf_addf(&text, "%s\n", errors->item[i]);
    }
    return buf_take(&text);
}

/* Loads with these flags (FLAGS) and variables (NULL or VARIABLES). NULL when refused; *ret_errors,
 * the caller's, then has the errors, of the usage or of the settings. */
UNUSED_IS_FINE static struct config *
load(const char *const *flags, const char *const *variables, char **ret_errors)
{
    struct config_args args;
    struct config_errors errors = {0};
    struct config *config = NULL;
    char *argv[32];
    char *envp[32];
    int argc = 0;
    int envc = 0;

    for (; flags[argc] != NULL; argc++) {
        argv[argc] = xstrdup(flags[argc]);
    }
    for (; variables != NULL && variables[envc] != NULL; envc++) {
        envp[envc] = xstrdup(variables[envc]);
    }
    argv[argc] = NULL;
    envp[envc] = NULL;
    config_args_parse(&args, argc, argv, envp);
    if (args.command == CONFIG_USAGE_ERROR) {
        *ret_errors = xasprintf("usage: %s\n", args.usage_error);
    } else {
        config = config_load(&args, &errors);
        cr_assert_eq(config == NULL, errors.count > 0);
        *ret_errors = join_errors(&errors);
    }
    config_errors_release(&errors);
    config_args_release(&args);
    for (int i = 0; i < argc; i++) {
        free(argv[i]);
    }
    for (int i = 0; i < envc; i++) {
        free(envp[i]);
    }
    return config;
}

/* Loads what must load. */
UNUSED_IS_FINE static struct config *
load_good(const char *const *flags, const char *const *variables)
{
    char *errors;
    struct config *config = load(flags, variables, &errors);

    cr_assert_not_null(config, "refused:\n%s", errors);
    free(errors);
    return config;
}

/* Fails unless the settings are refused with exactly these errors, each ended by a line feed. */
UNUSED_IS_FINE static void
expect_errors(const char *const *flags, const char *const *variables, const char *expected)
{
    char *errors;
    struct config *config = load(flags, variables, &errors);

    cr_expect_null(config, "loaded, but expected:\n%s", expected);
    cr_expect_str_eq(errors, expected, "got:\n%s\nexpected:\n%s", errors, expected);
    config_free(config);
    free(errors);
}

/* Loads a settings file of this text. */
UNUSED_IS_FINE static struct config *
load_text(const char *text)
{
    write_text("n.ini", text);
    return load_good(FLAGS("-c", "n.ini"), NULL);
}
