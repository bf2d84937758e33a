/* SPDX-License-Identifier: Apache-2.0
 *
 * What `narwhal doctor` finds: a line for each thing that it looked at, with one line of advice
 * where something is wrong. Pure; runs in the doctor.
 */
#pragma once

#include <stddef.h>

#include "config/base/buf.h"

enum doctor_grade { DOCTOR_OK = 0, DOCTOR_WARN, DOCTOR_FAIL, DOCTOR_GRADE_COUNT };

struct doctor_report {
    struct buf text; /* owned; the lines */
    size_t counts[DOCTOR_GRADE_COUNT];
};

/* Adds "warn  topic       what and what to do". */
void doctor_say(struct doctor_report *report, enum doctor_grade grade, const char *topic,
                const char *format, ...) __attribute__((format(printf, 4, 5)));
void doctor_report_release(struct doctor_report *report);
