/* SPDX-License-Identifier: Apache-2.0
 *
 * Words of a command and its placeholders.
 */
#include "tests/unit/config/support.h"

#include "config/command.h"

TestSuite(command);

static const struct {
    const char *text;
    const char *words[6];
} goods[] = {
    {"uvicorn app:app --fd {fd}", {"uvicorn", "app:app", "--fd", "{fd}"}},
    {"  a\t b  ", {"a", "b"}},
    {"a 'b c' \"d e\"", {"a", "b c", "d e"}},
    {"a''b \"\"c", {"ab", "c"}},
    {"a '' \"\"", {"a", "", ""}},
    {"a 'it'\\''s'", {"a", "it's"}},
    {"a b\\ c \\\"", {"a", "b c", "\""}},
    {"a \"\\\"\\\\\\n\"", {"a", "\"\\\\n"}},
    {"a '\\n\"'", {"a", "\\n\""}},
    {"sh -c 'exec x $HOME > y; z'", {"sh", "-c", "exec x $HOME > y; z"}},
    {"a $HOME * ~ | b", {"a", "$HOME", "*", "~", "|", "b"}},
};

Test(command, words_are_split_as_in_a_shell)
{
    for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
        size_t count;
        const char *error;
        char **words = command_split(goods[i].text, &count, &error);
        cr_assert_not_null(words, "%s: %s", goods[i].text, error);
        cr_expect_null(error);
        size_t expected = 0;
        while (expected < 6 && goods[i].words[expected] != NULL) {
            expected++;
        }
        cr_assert_eq(count, expected, "%s: %zu words", goods[i].text, count);
        for (size_t j = 0; j < count; j++) {
            cr_expect_str_eq(words[j], goods[i].words[j]);
        }
        cr_expect_null(words[count]);
        command_free(words);
    }
}

Test(command, what_has_no_end_or_no_program_is_refused)
{
    static const struct {
        const char *text;
        const char *error;
    } bads[] = {
        {"", "has no program to run as its first word"},
        {" \t", "has no program to run as its first word"},
        {"'' a", "has no program to run as its first word"},
        {"a 'b", "has a single quote (') without its end"},
        {"a \"b'", "has a double quote (\") without its end"},
        {"a \"b\\\"", "has a double quote (\") without its end"},
        {"a \\", "ends in a backslash that escapes nothing"},
    };

    for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
        size_t count = 99;
        const char *error;
        char **words = command_split(bads[i].text, &count, &error);
        cr_expect_null(words, "%s", bads[i].text);
        cr_expect_eq(count, 0);
        cr_assert_not_null(error);
        cr_expect_str_eq(error, bads[i].error);
        command_free(words);
    }
}

Test(command, placeholders_are_found_and_unknown_ones_named)
{
    static const struct {
        const char *text;
        unsigned int found;
        const char *unknown;
    } cases[] = {
        {"app", 0, NULL},
        {"app {fd}", COMMAND_HAS_FD, NULL},
        {"app --unix={socket}", COMMAND_HAS_SOCKET, NULL},
        {"app 127.0.0.1:{port}", COMMAND_HAS_PORT, NULL},
        {"app {fd} {port}{fd}", COMMAND_HAS_FD | COMMAND_HAS_PORT, NULL},
        {"app {FD} {x}", 0, "{FD}"},
        {"app {sock_et}", 0, "{sock_et}"},
        {"app '{\"a\": 1}' {} {1} {fd", 0, NULL},
        {"sh -c 'echo ${HOME}'", 0, NULL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *unknown;
        cr_expect_eq(command_placeholders(cases[i].text, &unknown), cases[i].found, "%s",
                     cases[i].text);
        if (cases[i].unknown == NULL) {
            cr_expect_null(unknown, "%s: %s", cases[i].text, unknown);
        } else {
            cr_assert_not_null(unknown, "%s", cases[i].text);
            cr_expect_str_eq(unknown, cases[i].unknown);
        }
        free(unknown);
    }
}
