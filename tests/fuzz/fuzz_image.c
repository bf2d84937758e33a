/* SPDX-License-Identifier: Apache-2.0
 *
 * The image of the settings that the master gives to its workers. The input is what follows the
 * header, which is made here so that the records are looked at. What is refused says why; what is
 * taken can be written again, and that image is read as the same settings.
 */
#include <stdlib.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/config.h"
#include "config/config_private.h"
#include "tests/fuzz/fuzz.h"

#define HEADER_BYTES 32
#define LENGTH_OFFSET 24

/* The header of an image of this table. */
static const char *
header(void)
{
    static char bytes[HEADER_BYTES];
    static bool is_there;

    if (!is_there) {
        struct config *config = config_new();
        int fd = config_write_image(config);
        CHECK(fd >= 0);
        CHECK(pread(fd, bytes, sizeof(bytes), 0) == HEADER_BYTES);
        fd_close(&fd);
        config_free(config);
        is_there = true;
    }
    return bytes;
}

static char *
read_whole(int fd, size_t *ret_size)
{
    struct stat status;

    CHECK(fstat(fd, &status) == 0);
    *ret_size = (size_t)status.st_size;
    char *bytes = xcalloc(1, *ret_size + 1);
    CHECK(pread(fd, bytes, *ret_size, 0) == status.st_size);
    return bytes;
}

static void
check_config(const struct config *config)
{
    char error[CONFIG_IMAGE_ERROR_MAX];
    struct config_diff diff;
    char *printed = NULL;
    size_t printed_length;
    size_t size;
    size_t again_size;
    int fd = config_write_image(config);

    FUZZ_CHECK(fd >= 0, "what was read cannot be written: %s", strerror(-fd));
    struct config *again = config_read_image(fd, error);
    FUZZ_CHECK(again != NULL, "its own image is refused: %s", error);
    config_diff(config, again, &diff);
    FUZZ_CHECK(diff.count == 0, "written again they are others: %s", diff.item[0].text);
    config_diff_release(&diff);
    int again_fd = config_write_image(again);
    CHECK(again_fd >= 0);
    char *bytes = read_whole(fd, &size);
    char *again_bytes = read_whole(again_fd, &again_size);
    FUZZ_CHECK(size == again_size && memcmp(bytes, again_bytes, size) == 0,
               "the image of the image is another one");
    free(bytes);
    free(again_bytes);
    fd_close(&fd);
    fd_close(&again_fd);
    config_free(again);

    FILE *out = open_memstream(&printed, &printed_length);
    CHECK(out != NULL);
    config_print(config, out);
    CHECK(fclose(out) == 0);
    free(printed);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    char error[CONFIG_IMAGE_ERROR_MAX];
    char bytes[HEADER_BYTES];
    uint64_t length = HEADER_BYTES + size;

    if (fd == -1) {
        fd = memfd_create("narwhal-fuzz", MFD_CLOEXEC);
        CHECK(fd != -1);
    }
    memcpy(bytes, header(), sizeof(bytes));
    memcpy(bytes + LENGTH_OFFSET, &length, sizeof(length));
    CHECK(ftruncate(fd, 0) == 0);
    CHECK(pwrite(fd, bytes, sizeof(bytes), 0) == HEADER_BYTES);
    CHECK(pwrite(fd, data, size, HEADER_BYTES) == (ssize_t)size);
    struct config *config = config_read_image(fd, error);
    if (config != NULL) {
        check_config(config);
    } else {
        FUZZ_CHECK(strnlen(error, sizeof(error)) > 0 &&
                       strnlen(error, sizeof(error)) < sizeof(error),
                   "refused without a reason");
    }
    config_free(config);
    return 0;
}
