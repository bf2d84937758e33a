/* SPDX-License-Identifier: Apache-2.0
 *
 * The reason phrases of status.def. Runs in worker processes.
 */
#include "worker/http/status.h"

const char *
status_phrase(int status)
{
    switch (status) {
#define STATUS(code, phrase)                                                                       \
    case code:                                                                                     \
        return phrase;
#include "worker/http/status.def"
    default:
        return "Unknown";
    }
}
