/* SPDX-License-Identifier: Apache-2.0
 *
 * The name a process shows in ps(1): "narwhal: master", "narwhal: worker 0".
 */
#pragma once

/* Moves *argv and environ to the heap, so that the memory they were in may show the title. Call
 * first in main(), once. */
void proctitle_init(int argc, char ***argv);
/* Shows text from now on. */
void proctitle_set(const char *text);
