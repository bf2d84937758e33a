/* SPDX-License-Identifier: Apache-2.0
 *
 * `narwhal doctor`: looks at the machine, the unit and the settings, and says what will go wrong,
 * with one line of advice each. Changes nothing.
 */
#pragma once

/* The word after the program's name that calls it. */
#define DOCTOR_WORD "doctor"

/* argv as main() got it, argv[1] being the word. The exit status: 0 when nothing is to fail, 1 when
 * something is, or of sysexits.h. */
int doctor_main(int argc, char **argv, char **envp);
