/* SPDX-License-Identifier: Apache-2.0
 *
 * What is asked of the kernel and told to the operator about the privileges that workers, the
 * resolver and app instances have. Runs in the master.
 */
#pragma once

struct buf;
struct config;
struct identity;

/* 0, or -ENOTSUP with a whole sentence added to error: sandbox = on, and this kernel cannot. */
int privileges_check(const struct config *config, struct buf *error);
/* Tells what children run as and in, unless before (NULL: the start) says the same. */
void privileges_tell(const struct config *before, const struct config *config,
                     const struct identity *identity);
