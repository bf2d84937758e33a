/* SPDX-License-Identifier: Apache-2.0
 *
 * Lists of tokens, and the fields that stay on one hop.
 */
#include "support.h"
#include "worker/http/connection_field.h"

Test(connection_field, a_list_is_divided_at_commas_and_trimmed)
{
    static const struct {
        const char *list;
        const char *elements[4];
    } rows[] = {
        {"", {NULL}},
        {",", {NULL}},
        {" \t, ,\t", {NULL}},
        {"a", {"a"}},
        {" a ", {"a"}},
        {"a,b", {"a", "b"}},
        {"a , b", {"a", "b"}},
        {",a,,b,", {"a", "b"}},
        {"a b,c", {"a b", "c"}},
        {"\ta\t,\tb\t", {"a", "b"}},
        {"a,b,c", {"a", "b", "c"}},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t length = strlen(rows[i].list);
        struct str list = {guarded_at_end(rows[i].list, length), length};
        struct str element;
        size_t count = 0;

        while (token_list_next(&list, &element)) {
            cr_assert(count < 4 && rows[i].elements[count] != NULL, "'%s' has too many",
                      rows[i].list);
            cr_expect(str_is(element, rows[i].elements[count]), "'%s', element %zu", rows[i].list,
                      count);
            count++;
        }
        cr_expect(count == 4 || rows[i].elements[count] == NULL, "'%s' has too few", rows[i].list);
        cr_expect(!token_list_next(&list, &element), "'%s' goes on after its end", rows[i].list);
    }
}

Test(connection_field, a_token_is_found_whole_and_in_any_case)
{
    cr_expect(token_list_has(STR("close"), STR("close")));
    cr_expect(token_list_has(STR("Keep-Alive, UPGRADE"), STR("upgrade")));
    cr_expect(token_list_has(STR("a,\tclose ,b"), STR("close")));
    cr_expect(!token_list_has(STR("closed"), STR("close")));
    cr_expect(!token_list_has(STR("not close"), STR("close")));
    cr_expect(!token_list_has(STR("clo,se"), STR("close")));
    cr_expect(!token_list_has(STR("close;q=1"), STR("close")));
    cr_expect(!token_list_has(STR(""), STR("close")));
    cr_expect(!token_list_has(STR("clos"), STR("close")));
}

/* A head of names and values at alternate places, made into fields. */
static size_t
make_fields(struct field *fields, const char *base, const char *const *parts)
{
    size_t count = 0;
    uint32_t at = 0;

    for (; parts[2 * count] != NULL; count++) {
        uint32_t name = (uint32_t)strlen(parts[2 * count]);
        uint32_t value = (uint32_t)strlen(parts[2 * count + 1]);
        cr_assert(memcmp(base + at, parts[2 * count], name) == 0);
        fields[count] = (struct field){
            {at, name}, {at + name, value}, field_id_of((struct str){base + at, name})};
        at += name + value;
    }
    return count;
}

Test(connection_field, hop_by_hop_fields_go_by_id_and_by_the_connection_list)
{
    static const struct {
        const char *parts[11];
        const char *stays; /* one letter per field: h for hop-by-hop, e for end-to-end */
    } rows[] = {
        {{"connection", "", "keep-alive", "", "proxy-connection", "", "te", "", "trailer", ""},
         "hhhhh"},
        {{"transfer-encoding", "", "upgrade", "", "proxy-authorization", "", "proxy-authenticate",
          ""},
         "hhhh"},
        {{"host", "", "content-length", "", "accept", "", "cookie", "", "x-a", ""}, "eeeee"},
        {{"x-a", "1", "Connection", "close, X-A", "x-b", "2"}, "hhe"},
        {{"X-A", "1", "Connection", "x-b", "x-b", "2", "connection", "x-c", "x-c", "3"}, "ehhhh"},
        {{"x-a", "1", "connection", "x-aa", "x-", "2"}, "ehe"},
        {{"Host", "a", "connection", "host, x-a", "x-a", ""}, "ehh"},
        {{"accept", "a", "connection", "Accept"}, "hh"},
        {{"connection-x", "close", "close", "a"}, "ee"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct field fields[5];
        char base[256] = "";

        for (size_t p = 0; rows[i].parts[p] != NULL; p++) {
            strcat(base, rows[i].parts[p]);
        }
        size_t count = make_fields(fields, base, rows[i].parts);
        cr_assert_eq(count, strlen(rows[i].stays));
        for (size_t f = 0; f < count; f++) {
            cr_expect_eq(field_is_hop_by_hop(&fields[f], fields, count, base),
                         rows[i].stays[f] == 'h', "row %zu, %s", i, rows[i].parts[2 * f]);
        }
    }
}
