/* SPDX-License-Identifier: Apache-2.0
 *
 * What the resolver process tells the master: one fixed-size message for each round of a question.
 * The questions have no message: the resolver is born with them, and other ones get another
 * process. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/value.h"

#ifndef ANSWER_MAGIC
#define ANSWER_MAGIC 0x6e726e31u /* "nrn1": changes with the layout */
#endif
/* Most addresses of one answer; the largest value of [backend] addresses. */
#define ANSWER_ADDRESSES_MAX 256
#define ANSWER_WHY_MAX 96
/* As of weight=N. */
#define ANSWER_WEIGHT_MAX 1000

enum answer_kind {
    ANSWER_NONE = 0,
    ANSWER_HELLO,     /* the process has started */
    ANSWER_ADDRESSES, /* 1 or more, ascending by answer_compare(), none twice */
    ANSWER_FAILED     /* why says how; what was known before may still be right */
};

struct answer_address {
    uint8_t family;    /* 4 or 6 */
    uint8_t is_backup; /* SRV: of a lower priority than the first one */
    uint16_t port;     /* host order, 1 or more */
    uint16_t weight;   /* 1 to ANSWER_WEIGHT_MAX */
    uint16_t unused;   /* zero */
    uint8_t address[16];
};

struct answer {
    uint32_t magic;
    uint32_t kind;     /* enum answer_kind */
    uint32_t question; /* index into what the process was born with */
    uint32_t count;
    uint32_t left_out;        /* addresses beyond ANSWER_ADDRESSES_MAX */
    uint32_t unused;          /* zero */
    char why[ANSWER_WHY_MAX]; /* ANSWER_FAILED: printable text with its NUL */
    struct answer_address item[ANSWER_ADDRESSES_MAX];
};

/* By family, address and port. */
int answer_compare(const struct answer_address *a, const struct answer_address *b);
/* Whether a server may be connected to there: 0.0.0.0, ::, broadcast and multicast are lies. */
bool answer_address_is_usable(const struct answer_address *address);
/* Adds one that is usable and not there yet; room is for capacity of them. */
void answer_list_add(struct answer_address *list, size_t *count, size_t capacity,
                     const struct answer_address *address);
/* What is wrong with length bytes that came from a resolver with question_count questions: a
 * constant. NULL: nothing. */
const char *answer_error(const struct answer *answer, size_t length, size_t question_count);
/* The address as the scoreboard has it. */
void answer_to_address(const struct answer_address *from, struct address *ret_address);
