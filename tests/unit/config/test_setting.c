/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of settings: that its rows keep their own rules, and that names lead to rows.
 */
#include "tests/unit/config/support.h"

#include "config/ini_source.h"
#include "config/setting.h"

TestSuite(setting);

union any_section {
    struct master_settings master;
    struct worker_settings worker;
    struct log_settings log;
    struct backend_settings backend;
    struct route_settings route;
};

Test(setting, every_row_is_sound)
{
    for (size_t row = 0; row < SETTING_ROWS; row++) {
        const struct setting *setting = setting_at(row);
        cr_expect_eq(setting_find(setting->section, setting->key), row, "%s is there twice",
                     setting->key);
        cr_expect_leq(strlen(setting->key), INI_SOURCE_NAME_MAX);
        cr_expect_eq(strspn(setting->key, "abcdefghijklmnopqrstuvwxyz_"), strlen(setting->key));
        size_t length = strlen(setting->documentation);
        cr_expect_gt(length, 20, "%s has no documentation", setting->key);
        cr_expect_eq(setting->documentation[length - 1], '.', "%s: a sentence", setting->key);
        cr_expect_null(strstr(setting->documentation, "  "), "%s", setting->key);
    }
}

Test(setting, defaults_are_in_the_fields)
{
    union any_section section = {0};

    setting_init_section(SETTING_MASTER, &section);
    cr_expect_eq(section.master.bind.count, 1);
    cr_expect_str_eq(section.master.bind.item[0].text, "127.0.0.1:8000");
    cr_expect_eq(section.master.workers, 0);
    cr_expect_eq(section.master.timeout_ms, 30000);
    cr_expect_null(section.master.user);
    cr_expect_null(section.master.pidfile_path);
    setting_release_section(SETTING_MASTER, &section);
    cr_expect_null(section.master.bind.item);

    setting_init_section(SETTING_WORKER, &section);
    cr_expect_eq(section.worker.limit_request_body_bytes, 16 * 1024 * 1024);
    cr_expect_eq(section.worker.keepalive_ms, 75000);
    cr_expect(section.worker.server_header);
    setting_release_section(SETTING_WORKER, &section);

    setting_init_section(SETTING_LOG, &section);
    cr_expect_eq(section.log.error.kind, TARGET_STDERR);
    cr_expect_eq(section.log.access.kind, TARGET_OFF);
    cr_expect_eq(section.log.level, LOG_LEVEL_INFO);
    cr_expect_str_eq(section.log.access_format, "combined");
    setting_release_section(SETTING_LOG, &section);

    setting_init_section(SETTING_BACKEND, &section);
    cr_expect_eq(section.backend.server.count, 0);
    cr_expect_eq(section.backend.instances, 1);
    cr_expect_eq(section.backend.balance, BALANCE_LEAST_BUSY);
    cr_expect_eq(section.backend.idle_timeout_ms, 1500);
    setting_release_section(SETTING_BACKEND, &section);

    setting_init_section(SETTING_ROUTE, &section);
    cr_expect_str_eq(section.route.path.path, "/");
    cr_expect_not(section.route.path.exact);
    cr_expect_str_eq(section.route.index, "index.html");
    cr_expect_eq(section.route.respond.status, 0);
    setting_release_section(SETTING_ROUTE, &section);
    cr_expect_null(section.route.index);
}

Test(setting, flags_and_variables_lead_to_rows)
{
    static const struct {
        const char *flag;
        const char *variable;
        enum setting_section section;
        const char *key;
    } names[] = {
        {"workers", "WORKERS", SETTING_MASTER, "workers"},
        {"graceful-timeout", "GRACEFUL_TIMEOUT", SETTING_MASTER, "graceful_timeout"},
        {"limit-request-body", "LIMIT_REQUEST_BODY", SETTING_WORKER, "limit_request_body"},
        {"log-error", "LOG_ERROR", SETTING_LOG, "error"},
        {"log-access-format", "LOG_ACCESS_FORMAT", SETTING_LOG, "access_format"},
    };
    static const char *const unknown[] = {"error", "server",   "slots", "graceful_timeout",
                                          "",      "log-bind", "path",  "command"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        size_t row = setting_find(names[i].section, names[i].key);
        cr_assert_lt(row, SETTING_ROWS);
        cr_expect_eq(setting_find_flag(names[i].flag), row, "%s", names[i].flag);
        cr_expect_eq(setting_find_variable(names[i].variable), row, "%s", names[i].variable);
    }
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        cr_expect_eq(setting_find_flag(unknown[i]), SETTING_ROWS, "%s", unknown[i]);
    }
    cr_expect_eq(setting_find_variable("workers"), SETTING_ROWS);
}

Test(setting, bounds_are_taken_and_what_is_beside_them_is_not)
{
    for (size_t row = 0; row < SETTING_ROWS; row++) {
        const struct setting *setting = setting_at(row);
        if (setting->type > VALUE_SIZE) {
            continue;
        }
        union any_section section = {0};
        const char *unit = setting->type == VALUE_DURATION ? "ms" : "";
        const int64_t *field = setting_field(setting, &section);
        int64_t tries[] = {setting->min, setting->max, setting->min - 1, setting->max + 1};
        for (int i = 0; i < 4; i++) {
            char *text = xasprintf("%lld%s", (long long)tries[i], unit);
            char *error = setting_parse(setting, NULL, text, &section);
            cr_expect_eq(error == NULL, i < 2, "%s = %s: %s", setting->key, text, error);
            cr_expect_eq(*field, tries[i < 2 ? i : 1], "%s = %s", setting->key, text);
            free(error);
            free(text);
        }
    }
}

Test(setting, some_keys_need_another_one)
{
    union any_section section = {0};
    const struct setting *instances = setting_at(setting_find(SETTING_BACKEND, "instances"));
    const struct setting *slots = setting_at(setting_find(SETTING_BACKEND, "slots"));
    const char *needs;

    setting_init_section(SETTING_BACKEND, &section);
    cr_expect_not(setting_applies(instances, &section, &needs));
    cr_expect_str_eq(needs, "command");
    cr_expect(setting_applies(slots, &section, &needs));
    cr_expect_null(needs);
    section.backend.command = xstrdup("app");
    cr_expect(setting_applies(instances, &section, &needs));
    setting_release_section(SETTING_BACKEND, &section);
}
