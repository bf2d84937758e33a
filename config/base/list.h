/* SPDX-License-Identifier: Apache-2.0
 *
 * Intrusive doubly linked list with a sentinel head. An element is a struct list_node embedded in
 * its object; the object is recovered by container_of(). A node that is on no list points at
 * itself, so that list_remove() and list_is_linked() are always safe after list_init().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define container_of(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

struct list_node {
    struct list_node *next;
    struct list_node *prev;
};

static inline void
list_init(struct list_node *node)
{
    node->next = node;
    node->prev = node;
}

static inline bool
list_is_empty(const struct list_node *head)
{
    return head->next == head;
}

static inline bool
list_is_linked(const struct list_node *node)
{
    return node->next != node;
}

/* Unlinks node from its list, if any, and leaves it reusable. */
static inline void
list_remove(struct list_node *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* Appends a node that is on no list. */
static inline void
list_push_back(struct list_node *head, struct list_node *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Prepends a node that is on no list. */
static inline void
list_push_front(struct list_node *head, struct list_node *node)
{
    node->next = head->next;
    node->prev = head;
    head->next->prev = node;
    head->next = node;
}

/* First node, or NULL when the list is empty. */
static inline struct list_node *
list_first(const struct list_node *head)
{
    return list_is_empty(head) ? NULL : head->next;
}

#define LIST_FOR_EACH(node, head)                                                                  \
    for (struct list_node *node = (head)->next; node != (head); node = node->next)
/* As LIST_FOR_EACH, and node itself may be removed inside the body. */
#define LIST_FOR_EACH_SAFE(node, head)                                                             \
    for (struct list_node *node = (head)->next, *node##_next = node->next; node != (head);         \
         node = node##_next, node##_next = node->next)
