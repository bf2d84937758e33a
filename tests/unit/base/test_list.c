/* SPDX-License-Identifier: Apache-2.0
 *
 * The intrusive list.
 */
#include <criterion/criterion.h>

#include "config/base/list.h"

struct thing {
    int before;
    struct list_node node;
    int number;
};

static struct thing *
thing_of(struct list_node *node)
{
    return container_of(node, struct thing, node);
}

/* The numbers on the list as decimal digits, forwards; checks that backwards is the same. */
static int
digits(struct list_node *head)
{
    int forwards = 0;
    int backwards = 0;
    int factor = 1;

    LIST_FOR_EACH (node, head) {
        forwards = forwards * 10 + thing_of(node)->number;
    }
    for (struct list_node *node = head->prev; node != head; node = node->prev) {
        backwards += factor * thing_of(node)->number;
        factor *= 10;
    }
    cr_assert_eq(forwards, backwards);
    return forwards;
}

Test(list, pushes_at_both_ends_and_removes_anywhere)
{
    struct list_node head;
    struct thing things[5];

    list_init(&head);
    cr_assert(list_is_empty(&head));
    cr_assert_null(list_first(&head));
    for (int i = 0; i < 5; i++) {
        things[i].number = i + 1;
        list_init(&things[i].node);
        cr_assert_not(list_is_linked(&things[i].node));
    }
    list_push_back(&head, &things[2].node);
    list_push_back(&head, &things[3].node);
    list_push_front(&head, &things[1].node);
    list_push_front(&head, &things[0].node);
    list_push_back(&head, &things[4].node);
    cr_assert_eq(digits(&head), 12345);
    cr_assert_eq(thing_of(list_first(&head)), &things[0]);
    cr_assert(list_is_linked(&things[2].node));

    list_remove(&things[2].node);
    cr_assert_not(list_is_linked(&things[2].node));
    cr_assert_eq(digits(&head), 1245);
    list_remove(&things[2].node); /* on no list: nothing happens */
    list_remove(&things[0].node);
    list_remove(&things[4].node);
    cr_assert_eq(digits(&head), 24);
    list_push_back(&head, &things[0].node);
    cr_assert_eq(digits(&head), 241);
}

Test(list, elements_may_go_while_it_is_walked)
{
    struct list_node head;
    struct thing things[6];
    int visited = 0;

    list_init(&head);
    for (int i = 0; i < 6; i++) {
        things[i].number = i + 1;
        list_init(&things[i].node);
        list_push_back(&head, &things[i].node);
    }
    LIST_FOR_EACH_SAFE (node, &head) {
        visited++;
        if (thing_of(node)->number % 2 == 0) {
            list_remove(node);
        }
    }
    cr_assert_eq(visited, 6);
    cr_assert_eq(digits(&head), 135);
    LIST_FOR_EACH_SAFE (node, &head) {
        list_remove(node);
    }
    cr_assert(list_is_empty(&head));
}
