/* SPDX-License-Identifier: Apache-2.0
 *
 * What libhttp-parser makes of the bytes on its standard input: "accepts" or "refuses" for the
 * first message, and "after" when a request for /after was taken behind it. A program of
 * tests/differential.
 */
#include <http_parser.h>
#include <stdio.h>
#include <string.h>

struct verdict {
    int complete;
    int after;
};

static int
on_url(http_parser *parser, const char *at, size_t length)
{
    struct verdict *verdict = parser->data;

    if (verdict->complete > 0 && length >= 6 && memcmp(at, "/after", 6) == 0) {
        verdict->after = 1;
    }
    return 0;
}

static int
on_message_complete(http_parser *parser)
{
    struct verdict *verdict = parser->data;

    verdict->complete++;
    return 0;
}

int
main(void)
{
    static char bytes[1024 * 1024];
    size_t length = fread(bytes, 1, sizeof(bytes), stdin);
    struct verdict verdict = {0, 0};
    http_parser parser;
    http_parser_settings settings;

    http_parser_settings_init(&settings);
    settings.on_url = on_url;
    settings.on_message_complete = on_message_complete;
    http_parser_init(&parser, HTTP_REQUEST);
    parser.data = &verdict;
    (void)http_parser_execute(&parser, &settings, bytes, length);
    printf("%s%s\n",
           verdict.complete > 0                   ? "accepts"
           : HTTP_PARSER_ERRNO(&parser) == HPE_OK ? "waits"
                                                  : "refuses",
           verdict.after ? " after" : "");
    return 0;
}
