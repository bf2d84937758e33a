/* SPDX-License-Identifier: Apache-2.0
 *
 * One line at the start, and when a reload changes it: what children may do is decided by three
 * things that nobody sees together, the settings, who started the master, and the kernel.
 */
#include "master/privileges.h"

#include <errno.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/identity.h"
#include "worker/sandbox.h"

int
privileges_check(const struct config *config, struct buf *error)
{
    struct buf missing = {0};
    int result = 0;

    if (config->master.sandbox == SANDBOX_ON) {
        (void)sandbox_offered(&missing);
    }
    if (missing.len > 0) {
        result = -ENOTSUP;
        buf_addf(error, "%s: sandbox = on: %s; sandbox = auto takes what the kernel has",
                 config_origin(config, "master", NULL, "sandbox"), missing.ptr);
    }
    buf_release(&missing);
    return result;
}

static void
tell_sandbox(enum sandbox_mode mode)
{
    struct buf missing = {0};
    char text[SANDBOX_TEXT_MAX];

    if (mode == SANDBOX_OFF) {
        log_info("workers are not fenced in sandbox=off");
        return;
    }
    struct sandbox_state offered = sandbox_offered(&missing);
    sandbox_print(&offered, text);
    if (missing.len > 0) {
        log_warn("workers are not fenced in as they could be sandbox=%s %s: %s",
                 sandbox_mode_name(mode), text, missing.ptr);
    } else {
        log_info("workers are fenced in sandbox=%s %s", sandbox_mode_name(mode), text);
    }
    buf_release(&missing);
}

void
privileges_tell(const struct config *before, const struct config *config,
                const struct identity *identity)
{
    if (before == NULL || before->master.sandbox != config->master.sandbox) {
        tell_sandbox(config->master.sandbox);
    }
    if (before == NULL && identity->uid == 0) {
        log_warn("workers and app instances run as root help=\"set [master] user, or start narwhal "
                 "as another user\"");
    }
}
