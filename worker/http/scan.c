/* SPDX-License-Identifier: Apache-2.0
 *
 * The scalar scans and the choice between levels. The pointers stand on the scalar forms until
 * scan_init() or scan_use() moves them, so that a program which never calls either still works.
 * Written once at the start of a process, before its loop. Runs in worker processes.
 */
#include "worker/http/scan.h"

#include "worker/http/scan_inline.h"
#include "worker/http/scan_set.h"

static const char *
field_value_scalar(const char *p, const char *end)
{
    return scan_field_value_scalar(p, end);
}

static const char *
token_scalar(const char *p, const char *end)
{
    return scan_token_scalar(p, end);
}

static const char *
target_scalar(const char *p, const char *end)
{
    return scan_target_scalar(p, end);
}

scan_fn scan_field_value = field_value_scalar;
scan_fn scan_token = token_scalar;
scan_fn scan_target = target_scalar;
field_lines_fn field_lines_run = field_lines_scalar;

static const struct scan_set scalar = {field_value_scalar, token_scalar, target_scalar,
                                       field_lines_scalar};

bool
scan_use(enum scan_level level)
{
    const struct scan_set *set = level == SCAN_SCALAR ? &scalar : scan_set_x86(level);

    if (set == NULL) {
        return false;
    }
    scan_field_value = set->field_value;
    scan_token = set->token;
    scan_target = set->target;
    field_lines_run = set->field_lines;
    return true;
}

void
scan_init(void)
{
    for (int level = SCAN_LEVEL_COUNT - 1; level >= 0; level--) {
        if (scan_use((enum scan_level)level)) {
            return;
        }
    }
}

const char *
scan_level_name(enum scan_level level)
{
    static const char *const names[SCAN_LEVEL_COUNT] = {
        [SCAN_SCALAR] = "scalar",
        [SCAN_SSE42] = "sse4.2",
        [SCAN_AVX2] = "avx2",
    };

    return level < SCAN_LEVEL_COUNT ? names[level] : "unknown";
}
