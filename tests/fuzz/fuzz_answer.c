/* SPDX-License-Identifier: Apache-2.0
 *
 * What the master gets from a resolver that has gone wrong: the input is one message. What is taken
 * can be used: each address is one that settings could have, and the text can be logged.
 */
#include "worker/resolver/answer.h"

#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

#define QUESTIONS 3

static void
check_addresses(const struct answer *answer)
{
    FUZZ_CHECK(answer->count > 0 && answer->count <= ANSWER_ADDRESSES_MAX, "%u addresses",
               answer->count);
    for (uint32_t i = 0; i < answer->count; i++) {
        struct address made;
        struct address parsed;
        answer_to_address(&answer->item[i], &made);
        char *error = address_parse(made.text, &parsed);
        FUZZ_CHECK(error == NULL, "%s", error);
        FUZZ_CHECK(parsed.length == made.length && memcmp(&parsed.sa, &made.sa, made.length) == 0,
                   "%s is another address", made.text);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct answer answer;

    /* A whole message from a few bytes: those that count are at its begin. */
    memset(&answer, 0, sizeof(answer));
    memcpy(&answer, data, size < sizeof(answer) ? size : sizeof(answer));
    answer.magic = ANSWER_MAGIC;
    FUZZ_CHECK(answer_error(&answer, size == sizeof(answer) ? size - 1 : size, QUESTIONS) != NULL,
               "a message of %zu bytes", size);
    if (answer_error(&answer, sizeof(answer), QUESTIONS) == NULL && answer.kind != ANSWER_HELLO) {
        FUZZ_CHECK(answer.question < QUESTIONS, "question %u", answer.question);
        if (answer.kind == ANSWER_ADDRESSES) {
            check_addresses(&answer);
        } else {
            FUZZ_CHECK(strnlen(answer.why, ANSWER_WHY_MAX) < ANSWER_WHY_MAX, "a text without end");
        }
    }
    return 0;
}
