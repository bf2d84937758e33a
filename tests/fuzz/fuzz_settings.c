/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings files. What is refused is refused with errors that name the file; what loads prints
 * (--print-config), and what it prints loads again as the same settings, as does its image.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/command.h"
#include "config/config.h"
#include "tests/fuzz/fuzz.h"
#include "worker/access_log.h"

/* The file; its folder is what relative paths of the input are relative to, so that they find
 * nothing that matters. The process stays where it is, because libFuzzer's own paths are relative.
 */
static char folder[] = "/tmp/narwhal-fuzz-XXXXXX";
static char path[sizeof(folder) + sizeof("/n.ini")];

static void
remove_folder(void)
{
    (void)unlink(path);
    (void)rmdir(folder);
}

static void
make_folder(void)
{
    if (path[0] != '\0') {
        return;
    }
    CHECK(mkdtemp(folder) != NULL);
    (void)snprintf(path, sizeof(path), "%s/n.ini", folder);
    CHECK(atexit(remove_folder) == 0);
}

static void
write_file(const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    CHECK(fd != -1);
    CHECK(fd_write_all(fd, bytes, size) == 0);
    fd_close(&fd);
}

/* Tells the errors on stderr when it must load and does not. */
static struct config *
load(bool must_load)
{
    char program[] = "narwhal";
    char flag[] = "-c";
    char check[] = "--print-config";
    char *argv[] = {program, flag, path, check, NULL};
    char *envp[] = {NULL};
    struct config_args args;
    struct config_errors errors = {0};

    config_args_parse(&args, 4, argv, envp);
    FUZZ_CHECK(args.command == CONFIG_PRINT, "the flags are refused: %s", args.usage_error);
    struct config *config = config_load(&args, &errors);
    FUZZ_CHECK((config == NULL) == (errors.count > 0), "%zu errors", errors.count);
    for (size_t i = 0; i < errors.count; i++) {
        const char *error = errors.item[i];
        FUZZ_CHECK(!must_load, "refused: %s", error);
        FUZZ_CHECK(strstr(error, path) != NULL, "an error without its file: %s", error);
        for (const char *c = error; *c != '\0'; c++) {
            FUZZ_CHECK((unsigned char)*c >= 0x20 && *c != 0x7f, "a control byte in: %s", error);
        }
    }
    config_errors_release(&errors);
    config_args_release(&args);
    return config;
}

static void
must_equal(const struct config *before, const struct config *after, const char *what)
{
    struct config_diff diff;

    config_diff(before, after, &diff);
    FUZZ_CHECK(diff.count == 0, "%s they are others: %s", what, diff.item[0].text);
    config_diff_release(&diff);
}

/* What the check promises to those who use the settings. */
static void
check_promises(const struct config *config)
{
    struct access_format *format = access_format_new(config->log.access_format);

    FUZZ_CHECK(format != NULL, "access_format '%s' was taken",
               config->log.access_format == NULL ? "" : config->log.access_format);
    access_format_free(format);
    for (size_t i = 0; i < config->backend_count; i++) {
        const struct backend_settings *backend = &config->backends[i];
        size_t count;
        const char *error;
        if (backend->command != NULL) {
            char **words = command_split(backend->command, &count, &error);
            FUZZ_CHECK(words != NULL && count > 0, "command '%s' was taken: %s", backend->command,
                       error);
            command_free(words);
        }
        FUZZ_CHECK((backend->command != NULL) != (backend->server.count > 0),
                   "backend %s has a command and servers, or neither", backend->name);
    }
    for (size_t i = 0; i < config->route_count; i++) {
        const struct route_settings *route = &config->routes[i];
        FUZZ_CHECK(route->path.path != NULL && route->path.path[0] == '/', "route %s has no path",
                   route->name);
    }
}

static void
check_printed(const struct config *config)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);

    CHECK(out != NULL);
    config_print(config, out);
    CHECK(fclose(out) == 0);
    /* A line that got longer on the way, by a relative path made absolute, says so instead. */
    if (strstr(text, " cannot be written in a settings file, ") == NULL) {
        write_file(text, length);
        struct config *again = load(true);
        must_equal(config, again, "printed and loaded");
        config_free(again);
    }
    free(text);
}

static void
check_image(const struct config *config)
{
    char error[CONFIG_IMAGE_ERROR_MAX];
    int fd = config_write_image(config);

    FUZZ_CHECK(fd >= 0, "no image: %s", strerror(-fd));
    struct config *again = config_read_image(fd, error);
    FUZZ_CHECK(again != NULL, "the image is refused: %s", error);
    must_equal(config, again, "in the image");
    config_free(again);
    fd_close(&fd);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    make_folder();
    write_file(data, size);
    struct config *config = load(false);
    if (config != NULL) {
        check_promises(config);
        check_printed(config);
        check_image(config);
    }
    config_free(config);
    return 0;
}
