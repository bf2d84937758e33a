/* SPDX-License-Identifier: Apache-2.0
 *
 * A head parsed again and again, for callgrind to count the instructions of: parser.sh runs it with
 * two counts and divides the difference, so that nothing but the parser remains.
 *
 *   parser LEVEL COUNT FILE    LEVEL: scalar, sse4.2, avx2: narwhal's parser with that scan;
 *                              byte-loop: byte_loop.c
 *
 * Exit status 2: this CPU (or valgrind) does not have the level. Not part of narwhal.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/byte_loop.h"
#include "worker/http/request.h"
#include "worker/http/scan.h"

static char bytes[65536];
static size_t length;

static void
read_file(const char *path)
{
    FILE *file = fopen(path, "rb");

    if (file == NULL) {
        perror(path);
        exit(1);
    }
    length = fread(bytes, 1, sizeof(bytes), file);
    (void)fclose(file);
}

static void
use_level(const char *name)
{
    for (int level = 0; level < SCAN_LEVEL_COUNT; level++) {
        if (strcmp(scan_level_name((enum scan_level)level), name) == 0) {
            if (!scan_use((enum scan_level)level)) {
                exit(2);
            }
            return;
        }
    }
    fprintf(stderr, "parser: no level %s\n", name);
    exit(1);
}

/* Fields of the head; the parsers are called through pointers, as the worker's is across files. */
static size_t
parse_narwhal(void)
{
    static struct request_parser parser;
    static const struct request_limits limits = {32768, 256, 61440, 8192};

    request_parser_init(&parser);
    return request_parser_run(&parser, &limits, bytes, length) == PARSE_OK ? parser.head.field_count
                                                                           : SIZE_MAX;
}

static size_t
parse_byte_loop(void)
{
    static struct byte_loop_head head;

    return byte_loop_parse(&head, bytes, length) > 0 ? head.field_count : SIZE_MAX;
}

int
main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: parser LEVEL COUNT FILE\n");
        return 1;
    }
    size_t (*volatile parse)(void) = parse_byte_loop;
    if (strcmp(argv[1], "byte-loop") != 0) {
        use_level(argv[1]);
        parse = parse_narwhal;
    }
    read_file(argv[3]);
    size_t fields = parse();
    for (long count = atol(argv[2]); count > 0; count--) {
        if (parse() != fields || fields == SIZE_MAX) {
            fprintf(stderr, "parser: %s is refused\n", argv[3]);
            return 1;
        }
    }
    printf("%zu\n", fields);
    return 0;
}
