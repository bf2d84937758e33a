/* SPDX-License-Identifier: Apache-2.0
 *
 * Lines of the report. Pure; runs in the doctor.
 */
#include "master/doctor_report.h"

#include <stdarg.h>
#include <stdio.h>

#define LINE_MAX_BYTES 1024

void
doctor_say(struct doctor_report *report, enum doctor_grade grade, const char *topic,
           const char *format, ...)
{
    static const char *const names[DOCTOR_GRADE_COUNT] = {
        [DOCTOR_OK] = "ok", [DOCTOR_WARN] = "warn", [DOCTOR_FAIL] = "fail"};
    char line[LINE_MAX_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    for (char *c = line; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = '?'; /* names of files and units are anybody's */
        }
    }
    buf_addf(&report->text, "%-5s %-12s %s\n", names[grade], topic, line);
    report->counts[grade]++;
}

void
doctor_report_release(struct doctor_report *report)
{
    buf_release(&report->text);
}
