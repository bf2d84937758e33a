/* SPDX-License-Identifier: Apache-2.0
 *
 * The image for workers: the same settings come out, and no bytes make the reader fail but by
 * saying so. The sanitizers watch.
 */
#include "tests/unit/config/support.h"

#include <errno.h>
#include <sys/mman.h>

TestSuite(config_image, .init = enter_folder, .fini = leave_folder);

static const char full[] =
    "[master]\nbind = :81\nbind = unix:/run/x\nworkers = 3\ntimeout = 90s\nuser = www\n"
    "[worker]\nkeepalive = 0\nserver_header = off\n"
    "[log]\nerror = ./e.log\naccess = off\naccess_format = %(h)s;%(r)s\nlevel = warn\n"
    "[backend:app]\ncommand = sh -c 'exec app' {socket}\ninstances = 3\nenvironment = A=1\n"
    "environment = B=\n"
    "[backend:servers]\nserver = 127.0.0.1:1\nserver = unix:/x weight=7\nbalance = hash\n"
    "[route:app]\npath = /app\nbackend = app\nhost = a.example\nhost = *.b.example\n"
    "[route:files]\npath = /files/\nstatic = .\nindex =\n"
    "[route:go]\npath = =/go\nredirect = 302 https://a.example{path}\n"
    "[route:none]\npath = /none\nrespond = 204\n";

static struct config *
load_full(void)
{
    static const uint32_t records[] = {7, 8, 9, 10, 11, 12};
    struct config *config = load_text(full);

    config_set_records(&config->backends[0], records, 6);
    config_set_records(&config->backends[1], records + 2, 2);
    return config;
}

/* The image's bytes, the caller's. */
static char *
image_bytes(const struct config *config, size_t *ret_size)
{
    int fd = config_write_image(config);
    struct stat status;

    cr_assert_geq(fd, 0);
    cr_assert_eq(fstat(fd, &status), 0);
    *ret_size = (size_t)status.st_size;
    char *bytes = xcalloc(1, *ret_size);
    cr_assert_eq(pread(fd, bytes, *ret_size, 0), status.st_size);
    fd_close(&fd);
    return bytes;
}

/* Reads these bytes as an image. */
static struct config *
read_bytes(const char *bytes, size_t size, char error[CONFIG_IMAGE_ERROR_MAX])
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    cr_assert_geq(fd, 0);
    cr_assert_eq(fd_write_all(fd, bytes, size), 0);
    struct config *config = config_read_image(fd, error);
    fd_close(&fd);
    return config;
}

Test(config_image, settings_come_out_as_they_went_in)
{
    struct config *before = load_full();
    char error[CONFIG_IMAGE_ERROR_MAX];
    struct config_diff diff;
    int fd = config_write_image(before);

    cr_assert_geq(fd, 0);
    struct config *after = config_read_image(fd, error);
    cr_assert_not_null(after, "%s", error);
    config_diff(before, after, &diff);
    cr_expect_eq(diff.count, 0, "%s", diff.count > 0 ? diff.item[0].text : "");
    cr_expect_str_eq(after->path, "n.ini");
    cr_expect_str_eq(config_origin(after, "master", NULL, "workers"), "n.ini:4");
    cr_expect_str_eq(config_origin(after, "master", NULL, "backlog"), "default");
    cr_expect_null(after->routes[1].index);
    cr_assert_eq(after->backend_count, 2);
    cr_assert_eq(after->backends[0].record_count, 6);
    cr_expect_eq(after->backends[0].records[5], 12);
    cr_assert_eq(after->backends[1].record_count, 2);
    cr_expect_eq(after->backends[1].records[0], 9);
    cr_expect_str_eq(after->routes[0].name, "app");
    cr_expect_str_eq(after->routes[3].name, "none");
    config_diff_release(&diff);

    /* Every worker reads the same descriptor. */
    struct config *again = config_read_image(fd, error);
    cr_expect_not_null(again, "%s", error);
    config_free(again);
    fd_close(&fd);
    config_free(before);
    config_free(after);
}

Test(config_image, image_cannot_be_changed)
{
    struct config *config = load_full();
    int fd = config_write_image(config);

    cr_assert_geq(fd, 0);
    cr_expect_eq(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
    cr_expect_eq(pwrite(fd, "x", 1, 0), -1);
    cr_expect_eq(errno, EPERM);
    cr_expect_neq(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    fd_close(&fd);
    config_free(config);
}

Test(config_image, same_settings_give_the_same_bytes)
{
    struct config *config = load_full();
    char error[CONFIG_IMAGE_ERROR_MAX];
    size_t size;
    size_t again_size;
    char *bytes = image_bytes(config, &size);
    struct config *again = read_bytes(bytes, size, error);

    cr_assert_not_null(again, "%s", error);
    char *again_bytes = image_bytes(again, &again_size);
    cr_expect_eq(size, again_size);
    cr_expect_eq(memcmp(bytes, again_bytes, size), 0);
    free(bytes);
    free(again_bytes);
    config_free(config);
    config_free(again);
}

Test(config_image, every_truncation_is_refused)
{
    struct config *config = load_full();
    char error[CONFIG_IMAGE_ERROR_MAX];
    size_t size;
    char *bytes = image_bytes(config, &size);
    uint64_t length;

    for (size_t cut = 0; cut < size; cut++) {
        /* The length in the header is right, so that the records themselves are looked at. */
        length = cut;
        if (cut >= 32) {
            memcpy(bytes + 24, &length, sizeof(length));
        }
        cr_expect_null(read_bytes(bytes, cut, error), "%zu of %zu bytes", cut, size);
        cr_expect_gt(strlen(error), 10);
    }
    free(bytes);
    config_free(config);
}

Test(config_image, foreign_bytes_are_refused)
{
    struct config *config = load_full();
    char error[CONFIG_IMAGE_ERROR_MAX];
    size_t size;
    char *bytes = image_bytes(config, &size);

    bytes[0] ^= 1;
    cr_expect_null(read_bytes(bytes, size, error));
    cr_expect_str_eq(error, "this is no image of settings");
    bytes[0] ^= 1;
    bytes[8] ^= 1;
    cr_expect_null(read_bytes(bytes, size, error));
    cr_expect_str_eq(error, "the image of the settings is of another version of narwhal");
    bytes[8] ^= 1;
    bytes[16] ^= 1; /* the hash of the table */
    cr_expect_null(read_bytes(bytes, size, error));
    cr_expect_str_eq(error, "the image of the settings is of another version of narwhal");
    bytes[16] ^= 1;
    bytes[24] ^= 1;
    cr_expect_null(read_bytes(bytes, size, error));
    cr_expect_not_null(strstr(error, "bytes, not the"));
    cr_expect_null(config_read_image(-1, error));
    cr_expect_not_null(strstr(error, "Bad file descriptor"));
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    cr_expect_null(config_read_image(fd, error));
    cr_expect_str_eq(error, "this is no image of settings");
    fd_close(&fd);
    free(bytes);
    config_free(config);
}

Test(config_image, mutations_never_break_the_reader)
{
    struct config *config = load_full();
    char error[CONFIG_IMAGE_ERROR_MAX];
    size_t size;
    char *bytes = image_bytes(config, &size);
    char *mutant = xcalloc(1, size);
    uint32_t state = 7;
    size_t refused = 0;
    size_t round_count = 4000;

    for (size_t round = 0; round < round_count; round++) {
        memcpy(mutant, bytes, size);
        for (int i = 0; i < 1 + (int)(round % 3); i++) {
            state = state * 1664525 + 1013904223;
            size_t position = 32 + (state >> 8) % (size - 32);
            state = state * 1664525 + 1013904223;
            mutant[position] = (char)(state >> 24);
        }
        struct config *read = read_bytes(mutant, size, error);
        if (read == NULL) {
            cr_expect_gt(strlen(error), 10);
            refused++;
        } else {
            size_t again_size;
            free(image_bytes(read, &again_size)); /* what was taken can be used */
        }
        config_free(read);
    }
    cr_expect_gt(refused, round_count / 10);
    cr_expect_lt(refused, round_count, "a changed letter in a text is no fault of the form");
    free(mutant);
    free(bytes);
    config_free(config);
}
