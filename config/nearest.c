/* SPDX-License-Identifier: Apache-2.0
 *
 * "Did you mean": the edit distance of Damerau and Levenshtein in its optimal string alignment
 * form (insert, delete, replace, swap of neighbours each cost 1). Near enough is one slip per
 * three letters of the shorter name, at least one and at most three, and never all of a name. No
 * state.
 */
#include "config/nearest.h"

#include <ctype.h>
#include <string.h>

/* Longer texts get no suggestion: no name of ours comes near, and the table stays small. */
#define NEAREST_LENGTH_MAX 64

static char
fold(char c)
{
    return c == '-' ? '_' : (char)tolower((unsigned char)c);
}

static size_t
min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Both lengths are at most NEAREST_LENGTH_MAX. */
static size_t
distance_of(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t rows[3][NEAREST_LENGTH_MAX + 1];
    size_t *before = rows[0];
    size_t *above = rows[1];
    size_t *row = rows[2];

    for (size_t j = 0; j <= b_length; j++) {
        above[j] = j;
    }
    for (size_t i = 1; i <= a_length; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t cost = fold(a[i - 1]) == fold(b[j - 1]) ? 0 : 1;
            row[j] = min_size(min_size(above[j] + 1, row[j - 1] + 1), above[j - 1] + cost);
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
                fold(a[i - 2]) == fold(b[j - 1])) {
                row[j] = min_size(row[j], before[j - 2] + 1);
            }
        }
        size_t *spare = before;
        before = above;
        above = row;
        row = spare;
    }
    return above[b_length];
}

void
nearest_offer(struct nearest *nearest, const char *name)
{
    size_t text_length = strlen(nearest->text);
    size_t name_length = strlen(name);

    if (text_length == 0 || text_length > NEAREST_LENGTH_MAX || name_length > NEAREST_LENGTH_MAX) {
        return;
    }
    size_t shorter = min_size(text_length, name_length);
    size_t allowed = shorter < 6 ? 1 : min_size(shorter / 3, 3);
    size_t distance = distance_of(nearest->text, text_length, name, name_length);
    if (distance <= allowed && distance < shorter &&
        (nearest->name == NULL || distance < nearest->distance)) {
        nearest->name = name;
        nearest->distance = distance;
    }
}
