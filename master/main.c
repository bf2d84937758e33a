/* SPDX-License-Identifier: Apache-2.0
 *
 * The program narwhal: command line in, exit status out (sysexits.h).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "config/base/stack_trace.h"
#include "config/config.h"
#include "master/doctor.h"
#include "master/inherited.h"
#include "master/master.h"
#include "master/proctitle.h"
#include "master/signals.h"
#include "master/takeover.h"
#include "master/upgrade.h"

/* Text that nobody could read is a failure: "narwhal --print-config > /full/disk". */
static int
stdout_status(void)
{
    if (fflush(stdout) == EOF || ferror(stdout) != 0) {
        perror("narwhal: cannot write to stdout");
        return EX_IOERR;
    }
    return EX_OK;
}

static struct config *
load(const struct config_args *args)
{
    struct config_errors errors = {0};
    struct config *config = config_load(args, &errors);

    for (size_t i = 0; i < errors.count; i++) {
        (void)fprintf(stderr, "%s\n", errors.item[i]);
    }
    config_errors_release(&errors);
    return config;
}

static int
with_settings(const struct config_args *args)
{
    struct config *config = load(args);

    if (config == NULL) {
        return EX_CONFIG;
    }
    if (args->command == CONFIG_RUN) {
        return master_run(args, config, NULL);
    }
    if (args->command == CONFIG_PRINT) {
        config_print(config, stdout);
    } else {
        (void)printf("the settings are correct%s%s\n", config->path != NULL ? ": " : "",
                     config->path != NULL ? config->path : "");
    }
    config_free(config);
    return stdout_status();
}

static int
run(const struct config_args *args)
{
    switch (args->command) {
    case CONFIG_HELP:
        config_print_help(stdout);
        return stdout_status();
    case CONFIG_SHOW_VERSION:
        (void)printf("narwhal %s\n", NARWHAL_VERSION);
        return stdout_status();
    case CONFIG_USAGE_ERROR:
        (void)fprintf(stderr, "narwhal: %s\n", args->usage_error);
        return EX_USAGE;
    case CONFIG_RUN:
    case CONFIG_CHECK:
    case CONFIG_PRINT:
        break;
    }
    return with_settings(args);
}

/* In the place of a running master. */
static int
take_over(const struct config_args *args, struct takeover *takeover)
{
    struct config *config = takeover_settings(takeover, args);
    int status = config != NULL ? master_run(args, config, takeover) : EX_CONFIG;

    if (status != EX_OK) {
        takeover_give_back(takeover, args); /* does not return if it can be helped */
    }
    return status;
}

int
main(int argc, char **argv)
{
    struct config_args args;
    struct takeover takeover;
    const char *check = NULL;

    if (argc > 1 && strcmp(argv[1], DOCTOR_WORD) == 0) {
        return doctor_main(argc, argv, environ);
    }
    signals_block();
    stack_trace_on_crash();
    int status = takeover_receive(&takeover);
    if (status != 0) {
        return status;
    }
    if (takeover.state_fd == -1) {
        inherited_collect();
    }
    proctitle_init(argc, &argv);
    if (argc > 2 && strcmp(argv[1], UPGRADE_CHECK_FLAG) == 0) {
        check = argv[2];
        argv += 2; /* the name of the program is of no interest */
        argc -= 2;
    }
    config_args_parse(&args, argc, argv, environ);
    if (check != NULL) {
        status = upgrade_check_main(check, &args);
    } else if (takeover.state_fd != -1) {
        status = take_over(&args, &takeover);
    } else {
        status = run(&args);
    }
    config_args_release(&args);
    return status;
}
