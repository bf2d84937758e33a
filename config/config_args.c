/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line: which flags there are and what they ask for. A flag of a setting gets its name
 * from settings.def; only those that are not settings are listed here. Values are not looked at:
 * config_load() does, at start and again at every reload, from the same argv. Runs in the master.
 */
#include "config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/config_private.h"
#include "config/nearest.h"
#include "config/setting.h"

static const struct {
    const char *name;
    enum flag_kind kind;
    bool takes_value;
} special_flags[] = {
    {"config", FLAG_CONFIG, true},       {"static", FLAG_STATIC, true},
    {"backend", FLAG_BACKEND, true},     {"app", FLAG_APP, true},
    {"help", FLAG_HELP, false},          {"version", FLAG_SHOW_VERSION, false},
    {"check-config", FLAG_CHECK, false}, {"print-config", FLAG_PRINT, false},
};
#define SPECIAL_COUNT (sizeof(special_flags) / sizeof(special_flags[0]))

static const struct {
    char letter;
    const char *name;
} short_flags[] = {
    {'b', "bind"}, {'w', "workers"}, {'c', "config"}, {'h', "help"}, {'V', "version"}};
#define SHORT_COUNT (sizeof(short_flags) / sizeof(short_flags[0]))

/* ---- one flag ------------------------------------------------------------------------------ */

/* Fills kind, row and name; false when there is no such flag. */
static bool
find_flag(const char *name, struct flag *ret_flag, bool *ret_takes_value)
{
    for (size_t i = 0; i < SPECIAL_COUNT; i++) {
        if (strcmp(special_flags[i].name, name) == 0) {
            ret_flag->kind = special_flags[i].kind;
            *ret_takes_value = special_flags[i].takes_value;
            (void)snprintf(ret_flag->name, sizeof(ret_flag->name), "--%s", name);
            return true;
        }
    }
    ret_flag->kind = FLAG_SETTING;
    ret_flag->row = setting_find_flag(name);
    *ret_takes_value = true;
    (void)snprintf(ret_flag->name, sizeof(ret_flag->name), "--%s", name);
    return ret_flag->row < SETTING_ROWS;
}

static char *
unknown_flag_error(const char *name)
{
    struct nearest nearest = {.text = name};
    struct buf names[SETTING_ROWS] = {{0}};
    struct buf message = {0};
    char *shown = xasprintf("--%s", name);

    for (size_t i = 0; i < SPECIAL_COUNT; i++) {
        nearest_offer(&nearest, special_flags[i].name);
    }
    for (size_t row = 0; row < SETTING_ROWS; row++) {
        if (!setting_section_is_named(setting_at(row)->section)) {
            setting_print_flag(setting_at(row), &names[row]);
            nearest_offer(&nearest, names[row].ptr);
        }
    }
    buf_add_text(&message, "unknown flag ");
    value_quote(shown, &message);
    if (nearest.name != NULL) {
        buf_addf(&message, "; did you mean \"--%s\"?", nearest.name);
    } else {
        buf_add_text(&message, "; --help lists all of them");
    }
    for (size_t row = 0; row < SETTING_ROWS; row++) {
        buf_release(&names[row]);
    }
    free(shown);
    return buf_take(&message);
}

static char *
stray_argument_error(const char *argument)
{
    struct buf message = {0};

    buf_add_text(&message, "unexpected argument ");
    value_quote(argument, &message);
    buf_add_text(&message, "; a settings file is given with -c FILE, a flag begins with --");
    return buf_take(&message);
}

bool
config_next_flag(const struct config_args *args, int *position, struct flag *ret_flag,
                 char **ret_error)
{
    *ret_error = NULL;
    *ret_flag = (struct flag){0};
    if (*position >= args->argc) {
        return false;
    }
    const char *argument = args->argv[(*position)++];
    const char *value = NULL; /* in the same argument */
    char *name = NULL;
    bool takes_value = false;

    if (strncmp(argument, "--", 2) == 0 && argument[2] != '\0') {
        name = xstrndup(argument + 2, strcspn(argument + 2, "="));
        value = strchr(argument, '=');
        value = value == NULL ? NULL : value + 1;
    } else if (argument[0] == '-' && argument[1] != '-' && argument[1] != '\0') {
        for (size_t i = 0; i < SHORT_COUNT && name == NULL; i++) {
            if (short_flags[i].letter == argument[1]) {
                name = xstrdup(short_flags[i].name);
            }
        }
        if (name == NULL) {
            struct buf quoted = {0};
            value_quote(argument, &quoted);
            *ret_error = xasprintf("unknown flag %s; --help lists all of them", quoted.ptr);
            buf_release(&quoted);
            return false;
        }
        value = argument[2] == '\0' ? NULL : argument + 2;
    } else {
        *ret_error = stray_argument_error(argument);
        return false;
    }
    if (!find_flag(name, ret_flag, &takes_value)) {
        *ret_error = unknown_flag_error(name);
    } else if (!takes_value && value != NULL) {
        *ret_error = xasprintf("%s takes no value", ret_flag->name);
    } else if (takes_value && value == NULL) {
        const char *next = *position < args->argc ? args->argv[*position] : NULL;
        if (next == NULL || (next[0] == '-' && next[1] != '\0')) {
            *ret_error = xasprintf("%s needs a value: %s VALUE, or %s=VALUE when it begins with "
                                   "'-'",
                                   ret_flag->name, ret_flag->name, ret_flag->name);
        } else {
            value = next;
            (*position)++;
        }
    }
    free(name);
    ret_flag->value = value;
    return *ret_error == NULL;
}

/* ---- all of them --------------------------------------------------------------------------- */

struct seen {
    bool row[SETTING_ROWS];
    bool kind[FLAG_KIND_COUNT];
};

/* NULL, or why the flag may not stand beside those before it. */
static char *
judge_repetition(const struct seen *seen, const struct flag *flag)
{
    bool is_list = flag->kind == FLAG_BACKEND ||
                   (flag->kind == FLAG_SETTING && value_is_list(setting_at(flag->row)->type));
    bool is_seen = flag->kind == FLAG_SETTING ? seen->row[flag->row] : seen->kind[flag->kind];

    if (is_seen && !is_list) {
        return xasprintf("%s is given twice; keep one", flag->name);
    }
    return NULL;
}

/* NULL, or why these flags do not go together. */
static char *
judge_combination(const struct seen *seen)
{
    bool has_file = seen->kind[FLAG_CONFIG];
    bool has_backend = seen->kind[FLAG_BACKEND] || seen->kind[FLAG_APP];

    if (seen->kind[FLAG_CHECK] && seen->kind[FLAG_PRINT]) {
        return xstrdup("--check-config and --print-config cannot be given together");
    }
    if (has_file && (has_backend || seen->kind[FLAG_STATIC])) {
        return xstrdup("--static, --backend and --app are for running without a settings file; "
                       "with -c FILE write a [route:NAME] into the file instead");
    }
    if (seen->kind[FLAG_BACKEND] && seen->kind[FLAG_APP]) {
        return xstrdup("--backend and --app cannot be given together: one is an application that "
                       "runs already, the other one that narwhal starts; for both write a settings "
                       "file with two [backend:NAME] sections");
    }
    if (seen->kind[FLAG_STATIC] && has_backend) {
        return xstrdup("--static cannot be given with --backend or --app: both would answer for "
                       "'/'; write a settings file with a [route:NAME] for each path");
    }
    /* --check-config tells what is wrong with the rest first, --print-config shows the defaults. */
    if (!has_file && !has_backend && !seen->kind[FLAG_STATIC] && !seen->kind[FLAG_CHECK] &&
        !seen->kind[FLAG_PRINT]) {
        return xstrdup(CONFIG_NOTHING_TO_SERVE);
    }
    return NULL;
}

void
config_args_parse(struct config_args *ret_args, int argc, char *const *argv, char *const *envp)
{
    struct seen seen = {0};
    struct flag flag;
    int position = 1;

    *ret_args =
        (struct config_args){.command = CONFIG_RUN, .argc = argc, .argv = argv, .envp = envp};
    while (config_next_flag(ret_args, &position, &flag, &ret_args->usage_error)) {
        if (flag.kind == FLAG_HELP || flag.kind == FLAG_SHOW_VERSION) {
            ret_args->command = flag.kind == FLAG_HELP ? CONFIG_HELP : CONFIG_SHOW_VERSION;
            return;
        }
        ret_args->usage_error = judge_repetition(&seen, &flag);
        if (ret_args->usage_error != NULL) {
            break;
        }
        seen.kind[flag.kind] = true;
        if (flag.kind == FLAG_SETTING) {
            seen.row[flag.row] = true;
        } else if (flag.kind == FLAG_CONFIG) {
            ret_args->path = flag.value;
        } else if (flag.kind == FLAG_CHECK) {
            ret_args->command = CONFIG_CHECK;
        } else if (flag.kind == FLAG_PRINT) {
            ret_args->command = CONFIG_PRINT;
        }
    }
    if (ret_args->usage_error == NULL) {
        ret_args->usage_error = judge_combination(&seen);
    }
    if (ret_args->usage_error != NULL) {
        ret_args->command = CONFIG_USAGE_ERROR;
    }
}

void
config_args_release(struct config_args *args)
{
    free(args->usage_error);
    *args = (struct config_args){0};
}
