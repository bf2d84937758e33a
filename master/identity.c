/* SPDX-License-Identifier: Apache-2.0
 *
 * Users and groups: names to numbers in the master, numbers to credentials in a child.
 */
#include "master/identity.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/config.h"

/* Adds "ORIGIN: KEY: " as the errors of config/ begin. */
static int
fail(const struct config *config, const char *key, struct buf *error, const char *what,
     const char *value)
{
    buf_addf(error, "%s: %s = %s: %s", config_origin(config, "master", NULL, key), key, value,
             what);
    return -EINVAL;
}

/* A number is taken as it is, as chown(1) does when there is no such name. */
static bool
parse_id(const char *text, unsigned int *ret_id)
{
    char *end;

    errno = 0;
    unsigned long id = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || id >= UINT32_MAX) {
        return false;
    }
    *ret_id = (unsigned int)id;
    return true;
}

static int
resolve_user(const struct config *config, struct identity *identity, struct buf *error)
{
    const char *name = config->master.user;
    const struct passwd *entry = getpwnam(name);

    identity->change_user = true;
    if (entry == NULL && parse_id(name, &identity->uid)) {
        entry = getpwuid(identity->uid);
        if (entry == NULL) {
            identity->gid = (gid_t)identity->uid;
            identity->groups[0] = identity->gid;
            identity->group_count = 1;
            (void)snprintf(identity->name, sizeof(identity->name), "%s", name);
            (void)snprintf(identity->home, sizeof(identity->home), "/");
            return 0;
        }
    }
    if (entry == NULL) {
        return fail(config, "user", error, "there is no such user on this machine", name);
    }
    identity->uid = entry->pw_uid;
    identity->gid = entry->pw_gid;
    if ((size_t)snprintf(identity->name, sizeof(identity->name), "%s", entry->pw_name) >=
            sizeof(identity->name) ||
        (size_t)snprintf(identity->home, sizeof(identity->home), "%s", entry->pw_dir) >=
            sizeof(identity->home)) {
        return fail(config, "user", error, "its name or its home folder is too long", name);
    }
    int count = IDENTITY_GROUPS_MAX;
    if (getgrouplist(entry->pw_name, entry->pw_gid, identity->groups, &count) == -1) {
        return fail(config, "user", error, "the user is in more than 256 groups", name);
    }
    identity->group_count = (size_t)count;
    return 0;
}

static int
resolve_group(const struct config *config, struct identity *identity, struct buf *error)
{
    const char *name = config->master.group;
    const struct group *entry = getgrnam(name);

    if (entry != NULL) {
        identity->gid = entry->gr_gid;
    } else if (!parse_id(name, &identity->gid)) {
        return fail(config, "group", error, "there is no such group on this machine", name);
    }
    if (!identity->change_user) {
        identity->groups[0] = identity->gid;
        identity->group_count = 1;
    }
    return 0;
}

int
identity_resolve(const struct config *config, struct identity *ret_identity, struct buf *error)
{
    struct identity identity = {.umask = (mode_t)config->master.umask,
                                .socket_mode = (mode_t)config->master.unix_mode,
                                .uid = geteuid(),
                                .gid = getegid()};
    int result = 0;

    if (config->master.user != NULL) {
        result = resolve_user(config, &identity, error);
    }
    if (result == 0 && config->master.group != NULL) {
        result = resolve_group(config, &identity, error);
    }
    if (result != 0) {
        return result;
    }
    identity.drop = identity.uid != geteuid() || identity.gid != getegid();
    if (identity.drop && geteuid() != 0) {
        bool is_user = config->master.user != NULL;
        return fail(config, is_user ? "user" : "group", error,
                    "only a master started as root can change it; start narwhal as root, or leave "
                    "the setting away to run as you are",
                    is_user ? config->master.user : config->master.group);
    }
    *ret_identity = identity;
    return 0;
}

/* Until the kernel does not know the number: it may know more of them than the headers do. A root
 * of a container that may not do this has few capabilities to lose, and no_new_privs keeps them
 * from coming back. */
static void
empty_bounding_set(void)
{
    for (unsigned long number = 0; prctl(PR_CAPBSET_DROP, number, 0, 0, 0) == 0; number++) {
        ;
    }
}

/* Ambient capabilities outlive a change of user (capabilities(7)), and a service manager may have
 * given some to a master that never was root, as CAP_NET_BIND_SERVICE for its ports. */
static int
clear_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};

    /* EINVAL: Linux before 4.3 has no such set. */
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == -1 && errno != EINVAL) {
        return -errno;
    }
    return syscall(SYS_capset, &header, none) == -1 ? -errno : 0; /* glibc has no wrapper */
}

int
identity_take(const struct identity *identity, bool new_privileges)
{
    int result = 0;

    (void)umask(identity->umask);
    if (identity->drop && !new_privileges) {
        empty_bounding_set();
    }
    if (identity->drop && (setgroups(identity->group_count, identity->groups) == -1 ||
                           setresgid(identity->gid, identity->gid, identity->gid) == -1 ||
                           setresuid(identity->uid, identity->uid, identity->uid) == -1)) {
        return -errno;
    }
    if (geteuid() != 0) {
        result = clear_capabilities();
    }
    if (result == 0 && !new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1) {
        result = -errno;
    }
    return result;
}
