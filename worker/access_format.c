/* SPDX-License-Identifier: Apache-2.0
 *
 * The form of a line of the access log. Runs in workers. Pure but for two caches of what the time
 * of the last line looked like.
 *
 * What a line may hold is what its form names: never the value of another header field, so that no
 * credential gets into a log that nobody asked for it to be in. For the same reason %(u)s is always
 * "-": narwhal authenticates nobody, and the user name of Basic credentials is often the secret.
 *
 * Whatever comes from the client is escaped and has a length of its own, so that a long target can
 * neither forge the rest of its line nor push it out.
 */
#include "worker/access_log.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/str.h"
#include "config/base/utf8.h"

#define COMMON "%(h)s %(l)s %(u)s %(t)s \"%(r)s\" %(s)s %(b)s"
#define COMBINED COMMON " \"%(f)s\" \"%(a)s\""

/* How values of the client share the room of a line that is left beside all else. */
#define METHOD_SHARE 64
#define TARGET_SHARE 3840
#define FIELD_SHARE 1536
#define HOST_SHARE 256
#define JSON_SHARES (METHOD_SHARE + TARGET_SHARE + 2 * FIELD_SHARE + 3 * HOST_SHARE)

/* Most bytes of an atom that is not the client's choice: an address, a time, numbers. */
#define FIXED_ATOM_BYTES PEER_TEXT_MAX
/* The keys of a line of JSON (240), two times, an address and five numbers. */
#define FIXED_JSON_BYTES 512
#define CUT_MARK "..."

enum item_kind {
    ITEM_LITERAL = 0,
    ITEM_FIELD, /* {name}i */
    ITEM_JSON,  /* the whole line */
    ITEM_ATOM,  /* a letter */
};

struct item {
    enum item_kind kind;
    bool quoted;     /* between double quotes of the format: white space is harmless there */
    char letter;     /* ITEM_ATOM */
    struct str text; /* of the format's text: the literal, or the name of the field */
};

struct access_format {
    char *text;           /* owned */
    uint32_t shares;      /* of all items together */
    uint32_t fixed_bytes; /* most that a line has besides its shares */
    uint32_t count;
    struct item *item; /* owned */
};

/* ---- compiling ------------------------------------------------------------------------------ */

#define ATOM_LETTERS "hlutrmUqHsBbfaTMDLp"
#define FIELD_NAME_BYTES "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

/* Reads the item that begins with the '%' at text; 0 when there is none, else its length. */
static size_t
compile_atom(const char *text, struct item *ret_item)
{
    size_t length;

    if (text[1] == '%') {
        *ret_item = (struct item){.kind = ITEM_LITERAL, .text = {text, 1}};
        return 2;
    }
    if (text[1] != '(') {
        return 0;
    }
    if (text[2] == '{') {
        size_t name = strspn(text + 3, FIELD_NAME_BYTES);
        if (name == 0 || text[3 + name] != '}' || text[4 + name] != 'i') {
            return 0;
        }
        *ret_item = (struct item){.kind = ITEM_FIELD, .text = {text + 3, name}};
        length = 3 + name + 2;
    } else {
        if (text[2] == '\0' || strchr(ATOM_LETTERS, text[2]) == NULL) {
            return 0;
        }
        *ret_item = (struct item){.kind = ITEM_ATOM, .letter = text[2]};
        length = 3;
    }
    return strncmp(text + length, ")s", 2) == 0 ? length + 2 : 0;
}

static uint32_t
item_shares(const struct item *item)
{
    if (item->kind == ITEM_FIELD) {
        return FIELD_SHARE;
    }
    if (item->kind != ITEM_ATOM) {
        return 0;
    }
    switch (item->letter) {
    case 'r':
        return METHOD_SHARE + TARGET_SHARE;
    case 'm':
        return METHOD_SHARE;
    case 'U':
    case 'q':
        return TARGET_SHARE;
    case 'f':
    case 'a':
        return FIELD_SHARE;
    default:
        return 0;
    }
}

static bool
compile(struct access_format *format)
{
    const char *c = format->text;
    bool quoted = false;
    bool any_atom = false;
    size_t cap = 1;

    for (const char *p = c; *p != '\0'; p++) {
        cap += *p == '%' ? 2 : 0;
    }
    format->item = xcalloc(cap, sizeof(*format->item));
    while (*c != '\0') {
        struct item item = {.kind = ITEM_LITERAL, .text = {c, strcspn(c, "%")}};
        size_t length = item.text.len;
        if (length == 0) {
            length = compile_atom(c, &item);
            if (length == 0) {
                return false;
            }
        } else {
            for (size_t i = 0; i < length; i++) {
                quoted ^= c[i] == '"';
            }
        }
        any_atom |= item.kind != ITEM_LITERAL;
        item.quoted = quoted;
        format->shares += item_shares(&item);
        format->fixed_bytes +=
            item.kind == ITEM_LITERAL ? (uint32_t)item.text.len : FIXED_ATOM_BYTES;
        format->item[format->count++] = item;
        c += length;
    }
    return any_atom;
}

struct access_format *
access_format_new(const char *text)
{
    if (text == NULL) {
        return NULL;
    }
    struct access_format *format = xcalloc(1, sizeof(*format));
    if (strcmp(text, "json") == 0) {
        format->item = xcalloc(1, sizeof(*format->item));
        format->item[format->count++] = (struct item){.kind = ITEM_JSON};
        format->shares = JSON_SHARES;
        format->fixed_bytes = FIXED_JSON_BYTES;
        return format;
    }
    if (strcmp(text, "common") == 0) {
        text = COMMON;
    } else if (strcmp(text, "combined") == 0) {
        text = COMBINED;
    }
    format->text = xstrdup(text);
    if (!compile(format)) {
        access_format_free(format);
        return NULL;
    }
    return format;
}

bool
access_format_shows(const struct access_format *format, struct str name)
{
    for (uint32_t i = 0; format != NULL && i < format->count; i++) {
        const struct item *item = &format->item[i];
        bool all = item->kind == ITEM_JSON;
        if ((item->kind == ITEM_FIELD && str_equal_nocase(name, item->text)) ||
            ((all || (item->kind == ITEM_ATOM && item->letter == 'f')) &&
             str_equal_nocase(name, STR("referer"))) ||
            ((all || (item->kind == ITEM_ATOM && item->letter == 'a')) &&
             str_equal_nocase(name, STR("user-agent")))) {
            return true;
        }
    }
    return false;
}

void
access_format_free(struct access_format *format)
{
    if (format != NULL) {
        free(format->item);
        free(format->text);
        free(format);
    }
}

/* ---- writing -------------------------------------------------------------------------------- */

struct line {
    char *p;
    char *end;       /* one byte remains behind it for the line end */
    size_t room;     /* for values of the client, */
    uint32_t shares; /* which is divided into as many shares */
};

static void
put_bytes(struct line *line, const char *bytes, size_t length)
{
    size_t room = (size_t)(line->end - line->p);
    size_t part = length < room ? length : room;

    memcpy(line->p, bytes, part);
    line->p += part;
}

static void
put_text(struct line *line, const char *text)
{
    put_bytes(line, text, strlen(text));
}

#define put_literal(line, literal) put_bytes((line), ("" literal), sizeof(literal) - 1)

/* At least width digits. */
static void
put_number(struct line *line, uint64_t number, int width)
{
    char digits[20];
    char *p = digits + sizeof(digits);

    for (; number > 0 || width > 0; number /= 10, width--) {
        *--p = (char)('0' + number % 10);
    }
    put_bytes(line, p, (size_t)(digits + sizeof(digits) - p));
}

static uint64_t
at_least_zero(int64_t ms)
{
    return ms > 0 ? (uint64_t)ms : 0;
}

enum escape {
    ESCAPE_BARE = 0, /* outside quotes: a space ends the value */
    ESCAPE_QUOTED,
    ESCAPE_JSON,
};

static bool
is_plain(unsigned char c, enum escape escape)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\' && (c != ' ' || escape != ESCAPE_BARE);
}

/* Writes the escaped form of the byte, or of the character, that p begins with to out, its length
 * to *ret_written, and returns how many bytes it was. */
static size_t
escape_one(const unsigned char *p, size_t left, enum escape escape, char out[6],
           size_t *ret_written)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char c = *p;

    if ((c == '"' && escape != ESCAPE_BARE) || c == '\\') {
        out[0] = '\\';
        out[1] = (char)c;
        *ret_written = 2;
        return 1;
    }
    if (escape == ESCAPE_JSON) {
        size_t length = utf8_length(p, left);
        if (length > 0) {
            memcpy(out, p, length);
            *ret_written = length;
            return length;
        }
        /* A byte that is no UTF-8 is taken for ISO-8859-1, as field values once were (RFC 9110
         * section 5.5): JSON has no way to hold a byte. */
        memcpy(out, "\\u00", 4);
        out[4] = hex[c >> 4];
        out[5] = hex[c & 15];
        *ret_written = 6;
        return 1;
    }
    out[0] = '\\';
    out[1] = 'x';
    out[2] = hex[c >> 4];
    out[3] = hex[c & 15];
    *ret_written = 4;
    return 1;
}

/* Room of a value with that share. */
static size_t
value_room(const struct line *line, uint32_t share)
{
    return line->room * share / line->shares;
}

/* false when the escaped form does not fit into *room; then its beginning is there. */
static bool
put_escaped_part(struct line *line, struct str value, enum escape escape, size_t *room)
{
    const unsigned char *p = (const unsigned char *)value.ptr;
    const unsigned char *end = p + value.len;

    while (p < end) {
        const unsigned char *run = p;
        while (p < end && is_plain(*p, escape)) {
            p++;
        }
        size_t length = (size_t)(p - run);
        size_t part = length < *room ? length : *room;
        put_bytes(line, (const char *)run, part);
        *room -= part;
        if (part < length) {
            return false;
        }
        if (p < end) {
            char escaped[6];
            size_t written;
            p += escape_one(p, (size_t)(end - p), escape, escaped, &written);
            if (written > *room) {
                return false;
            }
            put_bytes(line, escaped, written);
            *room -= written;
        }
    }
    return true;
}

/* Puts a value that a client chose; one that does not fit into its share is cut and marked. */
static void
put_escaped(struct line *line, struct str value, uint32_t share, enum escape escape)
{
    size_t room = value_room(line, share);

    if (!put_escaped_part(line, value, escape, &room)) {
        put_text(line, CUT_MARK);
    }
}

/* ---- the time ------------------------------------------------------------------------------- */

/* The time as common log files have it, "[21/Nov/2026:10:40:01 +0000]". Made once a second. */
static void
put_clf_time(struct line *line, int64_t real_ms)
{
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    static struct {
        time_t second;
        char text[32];
        size_t length; /* 0: nothing is cached */
    } cache;
    time_t second = (time_t)(real_ms / 1000);

    if (cache.length == 0 || cache.second != second) {
        struct tm tm;
        CHECK(gmtime_r(&second, &tm) != NULL);
        struct line text = {cache.text, cache.text + sizeof(cache.text), 0, 1};
        put_literal(&text, "[");
        put_number(&text, (uint64_t)tm.tm_mday, 2);
        put_literal(&text, "/");
        put_text(&text, months[tm.tm_mon]);
        put_literal(&text, "/");
        put_number(&text, (uint64_t)tm.tm_year + 1900, 4);
        put_literal(&text, ":");
        put_number(&text, (uint64_t)tm.tm_hour, 2);
        put_literal(&text, ":");
        put_number(&text, (uint64_t)tm.tm_min, 2);
        put_literal(&text, ":");
        put_number(&text, (uint64_t)tm.tm_sec, 2);
        put_literal(&text, " +0000]");
        cache.length = (size_t)(text.p - cache.text);
        cache.second = second;
    }
    put_bytes(line, cache.text, cache.length);
}

/* RFC 3339 with milliseconds; the part before them is made once a second. */
static void
put_iso8601_time(struct line *line, int64_t real_ms)
{
    static struct {
        int64_t second;
        char text[CLOCK_ISO8601_SIZE];
    } cache;
    size_t length = sizeof(cache.text) - sizeof("123Z");

    if (cache.text[0] == '\0' || cache.second != real_ms / 1000) {
        clock_format_iso8601(real_ms, cache.text);
        cache.second = real_ms / 1000;
    }
    put_bytes(line, cache.text, length);
    put_number(line, (uint64_t)(real_ms % 1000), 3);
    put_literal(line, "Z");
}

/* ---- the values of a request ---------------------------------------------------------------- */

static void
put_client(struct line *line, const struct access_record *record)
{
    char text[PEER_TEXT_MAX];

    put_bytes(line, text, peer_format(record->peer, text));
}

static struct str
head_path(const struct access_record *record)
{
    const struct request_head *head = record->head;

    if (head->form == TARGET_AUTHORITY || head->form == TARGET_ASTERISK) {
        return span_str(head->target, record->base);
    }
    return head->path.len > 0 ? span_str(head->path, record->base) : STR("/");
}

/* Without its '?'. */
static struct str
head_query(const struct access_record *record)
{
    struct str query = span_str(record->head->query, record->base);

    return query.len > 0 ? (struct str){query.ptr + 1, query.len - 1} : query;
}

static const char *
head_protocol(const struct request_head *head)
{
    return head->minor_version == 0 ? "HTTP/1.0" : "HTTP/1.1";
}

/* All values of the name, as if they were one (RFC 9110 section 5.3); "-" without any. */
static void
put_field(struct line *line, const struct access_record *record, struct str name,
          enum escape escape)
{
    size_t room = value_room(line, FIELD_SHARE);
    bool found = false;

    for (uint16_t i = 0; i < record->head->field_count; i++) {
        const struct field *field = &record->head->fields[i];
        if (!str_equal_nocase(span_str(field->name, record->base), name)) {
            continue;
        }
        struct str comma = escape == ESCAPE_BARE ? STR(",") : STR(", ");
        if ((found && !put_escaped_part(line, comma, escape, &room)) ||
            !put_escaped_part(line, span_str(field->value, record->base), escape, &room)) {
            put_text(line, CUT_MARK);
            return;
        }
        found = true;
    }
    if (!found) {
        put_literal(line, "-");
    }
}

static void
put_field_id(struct line *line, const struct access_record *record, enum field_id id,
             enum escape escape)
{
    const struct field *field = request_field(record->head, id);

    if (field == NULL) {
        put_literal(line, "-");
    } else {
        put_escaped(line, span_str(field->value, record->base), FIELD_SHARE, escape);
    }
}

/* ---- lines of atoms ------------------------------------------------------------------------- */

/* Atoms that come from the head. */
static void
put_head_atom(struct line *line, const struct access_record *record, char letter,
              enum escape escape)
{
    const struct request_head *head = record->head;
    const char *base = record->base;

    if (head == NULL) {
        put_literal(line, "-");
        return;
    }
    switch (letter) {
    case 'r':
        put_escaped(line, span_str(head->method_text, base), METHOD_SHARE, escape);
        put_literal(line, " ");
        put_escaped(line, span_str(head->target, base), TARGET_SHARE, escape);
        put_literal(line, " ");
        put_text(line, head_protocol(head));
        break;
    case 'm':
        put_escaped(line, span_str(head->method_text, base), METHOD_SHARE, escape);
        break;
    case 'U':
        put_escaped(line, head_path(record), TARGET_SHARE, escape);
        break;
    case 'q':
        put_escaped(line, head_query(record), TARGET_SHARE, escape);
        break;
    case 'H':
        put_text(line, head_protocol(head));
        break;
    case 'f':
        put_field_id(line, record, FIELD_REFERER, escape);
        break;
    case 'a':
        put_field_id(line, record, FIELD_USER_AGENT, escape);
        break;
    }
}

/* gunicorn's atoms; docs.gunicorn.org, settings, access_log_format. */
static void
put_atom(struct line *line, const struct access_record *record, uint32_t pid,
         const struct item *item)
{
    uint64_t duration_ms = at_least_zero(record->duration_ms);

    switch (item->letter) {
    case 'h':
        put_client(line, record);
        break;
    case 'l':
    case 'u':
        put_literal(line, "-");
        break;
    case 't':
        put_clf_time(line, record->started_real_ms);
        break;
    case 's':
        if (record->status > 0) {
            put_number(line, (uint64_t)record->status, 3);
        } else { /* the client left before it was answered */
            put_literal(line, "-");
        }
        break;
    case 'b': /* as common log files have it: no bytes are "-" */
        if (record->body_bytes == 0) {
            put_literal(line, "-");
            break;
        }
        put_number(line, record->body_bytes, 1);
        break;
    case 'B':
        put_number(line, record->body_bytes, 1);
        break;
    case 'T': /* seconds, milliseconds, microseconds, seconds with a fraction */
        put_number(line, duration_ms / 1000, 1);
        break;
    case 'M':
        put_number(line, duration_ms, 1);
        break;
    case 'D':
        put_number(line, duration_ms * 1000, 1);
        break;
    case 'L':
        put_number(line, duration_ms / 1000, 1);
        put_literal(line, ".");
        put_number(line, duration_ms % 1000 * 1000, 6);
        break;
    case 'p':
        put_literal(line, "<");
        put_number(line, pid, 1);
        put_literal(line, ">");
        break;
    default:
        put_head_atom(line, record, item->letter, item->quoted ? ESCAPE_QUOTED : ESCAPE_BARE);
        break;
    }
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static void
put_json_string(struct line *line, const char *key, struct str value, uint32_t share)
{
    put_text(line, key);
    put_literal(line, "\"");
    put_escaped(line, value, share, ESCAPE_JSON);
    put_literal(line, "\"");
}

static void
put_json_text(struct line *line, const char *key, const char *text)
{
    if (text != NULL) {
        put_json_string(line, key, str_from(text), HOST_SHARE);
    } else {
        put_text(line, key);
        put_literal(line, "null");
    }
}

static void
put_json_number(struct line *line, const char *key, bool known, uint64_t number)
{
    put_text(line, key);
    if (known) {
        put_number(line, number, 1);
    } else {
        put_literal(line, "null");
    }
}

static void
put_json_field(struct line *line, const struct access_record *record, const char *key,
               enum field_id id)
{
    const struct field *field = record->head != NULL ? request_field(record->head, id) : NULL;

    if (field != NULL) {
        put_json_string(line, key, span_str(field->value, record->base), FIELD_SHARE);
    } else {
        put_json_text(line, key, NULL);
    }
}

static void
put_json(struct line *line, const struct access_record *record, uint32_t pid)
{
    const struct request_head *head = record->head;
    const char *base = record->base;

    put_literal(line, "{\"time\":\"");
    put_iso8601_time(line, record->started_real_ms);
    put_literal(line, "\",\"client\":\"");
    put_client(line, record);
    put_literal(line, "\"");
    if (head != NULL) {
        put_json_string(line, ",\"method\":", span_str(head->method_text, base), METHOD_SHARE);
        put_json_string(line, ",\"target\":", span_str(head->target, base), TARGET_SHARE);
    } else {
        put_literal(line, ",\"method\":null,\"target\":null");
    }
    put_json_text(line, ",\"protocol\":", head != NULL ? head_protocol(head) : NULL);
    put_json_number(line, ",\"status\":", record->status > 0, (uint64_t)record->status);
    put_json_number(line, ",\"bytes\":", true, record->body_bytes);
    put_json_number(line, ",\"duration_ms\":", true, at_least_zero(record->duration_ms));
    if (head != NULL && head->host.len > 0) {
        put_json_string(line, ",\"host\":", span_str(head->host, base), HOST_SHARE);
    } else {
        put_json_text(line, ",\"host\":", NULL);
    }
    put_json_field(line, record, ",\"referer\":", FIELD_REFERER);
    put_json_field(line, record, ",\"user_agent\":", FIELD_USER_AGENT);
    put_json_text(line, ",\"backend\":", record->backend);
    put_json_text(line, ",\"server\":", record->server);
    put_json_number(line, ",\"upstream_ms\":", record->upstream_ms >= 0,
                    at_least_zero(record->upstream_ms));
    put_json_number(line, ",\"pid\":", true, pid);
    put_literal(line, "}");
}

/* ---- the line ------------------------------------------------------------------------------- */

size_t
access_format_line(const struct access_format *format, const struct access_record *record,
                   uint32_t pid, char *out, size_t capacity)
{
    if (capacity == 0) {
        return 0;
    }
    size_t fixed = format->fixed_bytes + format->count * (sizeof(CUT_MARK) - 1) + 1;
    struct line line = {.p = out,
                        .end = out + capacity - 1,
                        .room = capacity > fixed ? capacity - fixed : 0,
                        .shares = format->shares > 0 ? format->shares : 1};
    for (uint32_t i = 0; i < format->count; i++) {
        const struct item *item = &format->item[i];
        switch (item->kind) {
        case ITEM_LITERAL:
            put_bytes(&line, item->text.ptr, item->text.len);
            break;
        case ITEM_ATOM:
            put_atom(&line, record, pid, item);
            break;
        case ITEM_FIELD:
            if (record->head != NULL) {
                put_field(&line, record, item->text, item->quoted ? ESCAPE_QUOTED : ESCAPE_BARE);
            } else {
                put_literal(&line, "-");
            }
            break;
        case ITEM_JSON:
            put_json(&line, record, pid);
            break;
        }
    }
    *line.p++ = '\n';
    return (size_t)(line.p - out);
}
