/* SPDX-License-Identifier: Apache-2.0
 *
 * One typed value of the settings file: its C type, parsing it from text, printing it back.
 * Pure: no file, no socket is opened here. Name resolution does not happen here either.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "config/network.h"

struct buf;

/* ---- addresses ----------------------------------------------------------------------------- */
enum address_kind {
    ADDRESS_TCP = 0,
    ADDRESS_UNIX,
    ADDRESS_FD,
    ADDRESS_NAME,   /* of a host: "dns:api.internal:8000" */
    ADDRESS_SRV,    /* of a service: "dns+srv:_http._tcp.api.internal" */
    ADDRESS_SYSTEMD /* "systemd:http": sockets that a .socket unit passes under that name */
};

#define ADDRESS_SYSTEMD_PREFIX "systemd:"

/* Longest text of an address: "unix:" and a full sun_path. */
#define ADDRESS_TEXT_MAX 120

struct address {
    enum address_kind kind;
    int fd;           /* ADDRESS_FD: the inherited descriptor; else -1 */
    socklen_t length; /* of sa; 0 for all but ADDRESS_TCP and ADDRESS_UNIX */
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
    char text[ADDRESS_TEXT_MAX]; /* canonical form, as it is logged and compared */
};

struct address_list {
    size_t count;
    struct address *item; /* owned */
};

/* ---- other values -------------------------------------------------------------------------- */
struct server {
    struct address address;
    int64_t weight; /* 1 or more */
    int64_t slots;  /* requests at a time; -1: as the backend says */
    bool backup;
};

struct server_list {
    size_t count;
    struct server *item; /* owned */
};

struct text_list {
    size_t count;
    char **item; /* owned */
};

enum balance {
    BALANCE_LEAST_BUSY = 0,
    BALANCE_ROUND_ROBIN,
    BALANCE_HASH,
    BALANCE_RANDOM2,
    BALANCE_COUNT
};

/* What of a request decides with BALANCE_HASH. */
enum hash_source { HASH_ADDRESS = 0, HASH_PATH, HASH_HEADER, HASH_COOKIE };
struct hash_key {
    enum hash_source source;
    const char *name; /* HASH_HEADER, HASH_COOKIE; points into the text that was read */
};

/* Reads "address", "path", "header:NAME" or "cookie:NAME"; false: it is none of them. */
bool hash_key_parse(const char *text, struct hash_key *ret_key);

/* How an app instance gets its listening socket. */
enum listen_mode { LISTEN_AUTO = 0, LISTEN_FD, LISTEN_SOCKET, LISTEN_PORT, LISTEN_MODE_COUNT };

/* How a server is told who the client is, before the first request (PROXY protocol). */
enum proxy_version { PROXY_OFF = 0, PROXY_V1, PROXY_V2, PROXY_VERSION_COUNT };

/* Which fields of a trusted peer are believed. */
enum told_by { TOLD_BY_X_FORWARDED = 0, TOLD_BY_FORWARDED, TOLD_BY_COUNT };

/* Whether workers are fenced in by Landlock and seccomp, see worker/sandbox.h. */
enum sandbox_mode { SANDBOX_AUTO = 0, SANDBOX_ON, SANDBOX_OFF, SANDBOX_MODE_COUNT };
const char *sandbox_mode_name(enum sandbox_mode mode);

/* Where a log goes. */
enum target_kind {
    TARGET_OFF = 0,
    TARGET_STDOUT,
    TARGET_STDERR,
    TARGET_SYSLOG,
    TARGET_JOURNALD,
    TARGET_FILE
};

struct log_target {
    enum target_kind kind;
    char *path; /* TARGET_FILE: owned; else NULL */
};

/* Path of a route. */
struct path_pattern {
    bool exact; /* written as =/path */
    char *path; /* owned; begins with '/' */
};

struct redirect {
    int status;     /* 0: not set */
    char *location; /* owned; NULL when not set */
};

struct respond {
    int status; /* 0: not set */
    char *text; /* owned; without a line end; NULL when not set, may be "" */
};

/* ---- all of them behind one interface ------------------------------------------------------- */
/* The types of settings.def; each says which C type the field has. */
enum value_type {
    VALUE_COUNT = 0, /* int64_t */
    VALUE_WORKERS,   /* int64_t, 0 = auto */
    VALUE_DURATION,  /* int64_t, milliseconds */
    VALUE_SIZE,      /* int64_t, bytes */
    VALUE_BOOL,      /* bool */
    VALUE_TEXT,      /* char *, NULL when empty */
    VALUE_PATH,      /* char *, absolute, NULL when empty */
    VALUE_LEVEL,     /* enum log_level */
    VALUE_BALANCE,   /* enum balance */
    VALUE_LISTEN,    /* enum listen_mode */
    VALUE_PROXY,     /* enum proxy_version */
    VALUE_TOLD,      /* enum told_by */
    VALUE_SANDBOX,   /* enum sandbox_mode */
    VALUE_OCTAL,     /* int64_t, written in octal: bits of a file's mode */
    VALUE_TARGET,    /* struct log_target */
    VALUE_ADDRESSES, /* struct address_list */
    VALUE_SERVERS,   /* struct server_list */
    VALUE_TEXTS,     /* struct text_list */
    VALUE_NETWORKS,  /* struct network_list */
    VALUE_PATTERN,   /* struct path_pattern */
    VALUE_REDIRECT,  /* struct redirect */
    VALUE_RESPOND,   /* struct respond */
    VALUE_TYPE_COUNT
};

/* Most items of one list: a bound on what a file can make the processes hold. */
#define VALUE_LIST_MAX 256
#define VALUE_SERVERS_MAX 1024 /* as many as the scoreboard has records */

struct value_rules {
    int64_t min; /* min and max: in the unit of the field */
    int64_t max;
    const char *folder; /* absolute; what relative paths are relative to. NULL: none are allowed */
};

/* Reads text into *field, which holds a valid value (all zero is one) and keeps it on failure. A
 * list type appends one item; empty text empties the list. Returns NULL, or what is wrong and
 * what is allowed, as a sentence that starts small; the caller frees it. */
char *value_parse(enum value_type type, const struct value_rules *rules, const char *text,
                  void *field);
/* How many texts value_print() has for the field: 0 when it is not set, the items of a list. */
size_t value_count(enum value_type type, const void *field);
/* Adds the canonical text of item index; value_parse() reads it back to an equal value. */
void value_print(enum value_type type, const void *field, size_t index, struct buf *out);
bool value_equal(enum value_type type, const void *a, const void *b);
/* Frees what the field owns and zeroes it. */
void value_release(enum value_type type, void *field);
/* Whether a setting of this type may be given more than once. */
bool value_is_list(enum value_type type);
/* What the type allows, for documents: "100ms to 1h", "on or off". */
void value_print_allowed(enum value_type type, const struct value_rules *rules, struct buf *out);

/* Adds text in quotes as error messages show it: shortened when long, control bytes as '?'. */
void value_quote(const char *text, struct buf *out);

/* Whether it must be resolved first. */
bool address_is_name(const struct address *address);
/* The name to ask for, and the port; 0 for a service, whose records have ports of their own. */
void address_name(const struct address *address, char ret_name[ADDRESS_TEXT_MAX],
                  uint16_t *ret_port);
/* Reads one address: HOST:PORT, [IPV6]:PORT, :PORT, unix:/PATH or fd://N. Returns as
 * value_parse() does. */
char *address_parse(const char *text, struct address *ret_address);
