/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of char_class.h, computed by the compiler from the grammars, so that each rule stands
 * here once and in the words of its RFC. Runs in no process: it is data.
 */
#include "worker/http/char_class.h"

#define IN(c, low, high) ((c) >= (low) && (c) <= (high))
#define DIGIT(c) IN(c, '0', '9')
#define ALPHANUMERIC(c) (DIGIT(c) || IN(c, 'A', 'Z') || IN(c, 'a', 'z'))
/* RFC 9110 section 5.6.2. */
#define TCHAR(c)                                                                                   \
    (ALPHANUMERIC(c) || (c) == '!' || IN(c, '#', '\'') || (c) == '*' || (c) == '+' ||              \
     (c) == '-' || (c) == '.' || (c) == '^' || (c) == '_' || (c) == '`' || (c) == '|' ||           \
     (c) == '~')
#define VALUE(c) ((c) == '\t' || ((c) >= 0x20 && (c) != 0x7f))
#define TARGET(c) (IN(c, 0x21, 0x7e) && (c) != '#')
/* RFC 3986 section 2.3 and 2.2. */
#define UNRESERVED(c) (ALPHANUMERIC(c) || (c) == '-' || (c) == '.' || (c) == '_' || (c) == '~')
#define SUB_DELIM(c) ((c) == '!' || (c) == '$' || IN(c, '&', ',') || (c) == ';' || (c) == '=')
#define REG_NAME(c) (UNRESERVED(c) || SUB_DELIM(c))
#define PATH(c) (REG_NAME(c) || (c) == ':' || (c) == '@' || (c) == '/')
#define ETAGC(c) ((c) == 0x21 || IN(c, 0x23, 0x7e) || (c) >= 0x80)

#define CLASS(c)                                                                                   \
    (uint8_t)((TCHAR(c) ? CHAR_TOKEN : 0) | (VALUE(c) ? CHAR_VALUE : 0) |                          \
              (TARGET(c) ? CHAR_TARGET : 0) | (REG_NAME(c) ? CHAR_REG_NAME : 0) |                  \
              (PATH(c) ? CHAR_PATH : 0) | (DIGIT(c) ? CHAR_DIGIT : 0) |                            \
              (ETAGC(c) ? CHAR_ETAG : 0))
#define CLASS4(c) CLASS(c), CLASS((c) + 1), CLASS((c) + 2), CLASS((c) + 3)
#define CLASS16(c) CLASS4(c), CLASS4((c) + 4), CLASS4((c) + 8), CLASS4((c) + 12)
#define CLASS64(c) CLASS16(c), CLASS16((c) + 16), CLASS16((c) + 32), CLASS16((c) + 48)

const uint8_t char_classes[256] = {CLASS64(0), CLASS64(64), CLASS64(128), CLASS64(192)};
