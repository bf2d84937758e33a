/* SPDX-License-Identifier: Apache-2.0
 *
 * What an application is executed with: its words, its environment.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "config/value.h"
#include "master/exec_template.h"

static const struct exec_offer everything = {
    .fd = 3, .listen_fds = true, .socket = "/run/a b.sock", .port = 12345, .name = "api"};
static const struct exec_offer nothing = {.fd = -1, .port = -1, .name = "api"};

static const char *
value_of(char *const *env, const char *name)
{
    size_t length = strlen(name);
    const char *found = NULL;

    for (size_t i = 0; env[i] != NULL; i++) {
        if (strncmp(env[i], name, length) == 0 && env[i][length] == '=') {
            cr_expect_null(found, "%s is there twice", name);
            found = env[i] + length + 1;
        }
    }
    return found;
}

Test(exec_template, placeholders_are_replaced_in_every_word)
{
    const char *error;
    char **argv = exec_argv_build("app --fd={fd} '{socket}' {port}{port} {fd", &everything, &error);

    cr_assert_not_null(argv);
    cr_expect_str_eq(argv[0], "app");
    cr_expect_str_eq(argv[1], "--fd=3");
    cr_expect_str_eq(argv[2], "/run/a b.sock");
    cr_expect_str_eq(argv[3], "1234512345");
    cr_expect_str_eq(argv[4], "{fd");
    cr_expect_null(argv[5]);
    exec_free(argv);
}

Test(exec_template, an_empty_word_stays_a_word)
{
    const char *error;
    char **argv = exec_argv_build("app '' x", &nothing, &error);

    cr_assert_not_null(argv);
    cr_expect_str_eq(argv[1], "");
    cr_expect_str_eq(argv[2], "x");
    exec_free(argv);
}

Test(exec_template, what_is_not_offered_stays_as_it_is)
{
    const char *error;
    char **argv = exec_argv_build("app {fd} {socket} {port}", &nothing, &error);

    cr_assert_not_null(argv);
    cr_expect_str_eq(argv[1], "{fd}");
    cr_expect_str_eq(argv[2], "{socket}");
    cr_expect_str_eq(argv[3], "{port}");
    exec_free(argv);
}

Test(exec_template, a_command_that_cannot_be_split_says_why)
{
    const char *error = NULL;

    cr_expect_null(exec_argv_build("app 'unfinished", &nothing, &error));
    cr_expect_not_null(error);
}

Test(exec_template, the_environment_tells_the_offer)
{
    char *inherited[] = {(char[]){"HOME=/root"}, NULL};
    char **env = exec_env_build(inherited, &(struct text_list){0}, &everything);

    cr_expect_str_eq(value_of(env, "HOME"), "/root");
    cr_expect_str_eq(value_of(env, "LISTEN_FDS"), "1");
    cr_expect_str_eq(value_of(env, "LISTEN_FDNAMES"), "api");
    cr_expect_str_eq(value_of(env, "PORT"), "12345");
    exec_env_set_listen_pid(env, 42);
    cr_expect_str_eq(value_of(env, "LISTEN_PID"), "42");
    exec_free(env);
}

Test(exec_template, what_is_the_masters_own_is_not_inherited)
{
    char *inherited[] = {(char[]){"LISTEN_FDS=3"},          (char[]){"LISTEN_PID=1"},
                         (char[]){"LISTEN_FDNAMES=a:b:c"},  (char[]){"NOTIFY_SOCKET=/run/x"},
                         (char[]){"WATCHDOG_USEC=1000000"}, (char[]){"WATCHDOG_PID=1"},
                         (char[]){"LISTEN_FDSX=kept"},      NULL};
    char **env = exec_env_build(inherited, &(struct text_list){0}, &nothing);

    cr_expect_str_eq(env[0], "LISTEN_FDSX=kept");
    cr_expect_null(env[1]);
    exec_free(env);
}

Test(exec_template, a_command_with_a_placeholder_is_not_told_LISTEN_FDS_too)
{
    char *inherited[] = {NULL};
    struct exec_offer offer = everything;

    offer.listen_fds = false;
    char **env = exec_env_build(inherited, &(struct text_list){0}, &offer);
    cr_expect_null(value_of(env, "LISTEN_FDS"));
    cr_expect_null(value_of(env, "LISTEN_PID"));
    exec_free(env);
}

Test(exec_template, settings_win_over_everything)
{
    char *inherited[] = {(char[]){"A=old"}, (char[]){"PORT=1"}, (char[]){"AB=kept"}, NULL};
    char *items[] = {(char[]){"A=new"}, (char[]){"PORT=80"}, (char[]){"B="}};
    struct text_list extra = {.count = 3, .item = items};
    char **env = exec_env_build(inherited, &extra, &everything);

    cr_expect_str_eq(value_of(env, "A"), "new");
    cr_expect_str_eq(value_of(env, "AB"), "kept");
    cr_expect_str_eq(value_of(env, "PORT"), "80");
    cr_expect_str_eq(value_of(env, "B"), "");
    exec_free(env);
}
