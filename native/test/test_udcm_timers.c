/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of udcm whose endpoint goes, over a fake event base. */
#include "check.h"
#include "opal_symbols.h"
#include "udcm_timers.h"

#include <stdlib.h>
#include <string.h>

struct sv_opal sv_opal;

/* As in btl_openib_connect_udcm.c, up to what is looked at. */
struct call {
    opal_list_item_t super;
    void *data;
    size_t length;
    const void *endpoint;
};

static opal_class_t call_class = {.cls_name = "udcm_message_sent_t"}, item_class = {.cls_name = "opal_list_item_t"},
                    list_class = {.cls_name = "opal_list_t"}, other_class = {.cls_name = "udcm_message_recv_t"};
static char endpoint, other;

/* ---- a base with three timers and one that is none of udcm's ---- */

enum { TIMERS = 4 };
static struct call calls[3];
static void *argument[TIMERS];
static int deleted[TIMERS];
static opal_event_base_t *base;

static struct event *timer(int i)
{
    return (struct event *)(void *)&argument[i];
}

static int for_each(opal_event_base_t *b, int (*fn)(const opal_event_base_t *, const struct event *, void *), void *c)
{
    for (int i = 0; i < TIMERS; i++) {
        if (fn(b, timer(i), c)) {
            return -1;
        }
    }
    return 0;
}

static void *argument_of(const struct event *t)
{
    return *(void *const *)(const void *)t;
}

static int delete(struct event *t)
{
    deleted[(void **)(void *)t - argument]++;
    return 0;
}

static opal_list_t flying;

static void put(struct call *call, opal_class_t *class, const void *to)
{
    call->super.super.obj_class = class;
    call->endpoint = to;
    opal_list_item_t *end = &flying.opal_list_sentinel, *last = (opal_list_item_t *)end->opal_list_prev;
    call->super.opal_list_next = end;
    call->super.opal_list_prev = last;
    last->opal_list_next = end->opal_list_prev = &call->super;
    flying.opal_list_length++;
}

static void set_up(void)
{
    sv_opal = (struct sv_opal){.sync_event_base = &base,
                               .list_class = &list_class,
                               .event_base_foreach_event = for_each,
                               .event_get_callback_arg = argument_of,
                               .event_del = delete};
    ((opal_object_t *)&flying)->obj_class = &list_class;
    flying.opal_list_sentinel.super.obj_class = &item_class;
    flying.opal_list_sentinel.opal_list_next = flying.opal_list_sentinel.opal_list_prev = &flying.opal_list_sentinel;
    put(&calls[0], &call_class, &other);
    put(&calls[1], &call_class, &endpoint);
    put(&calls[2], &call_class, &other);
    for (int i = 0; i < 3; i++) {
        argument[i] = &calls[i];
    }
    argument[3] = (void *)8; /* a stranger's, which may be anything */
}

CASE(the_call_of_that_endpoint_goes_and_no_other)
{
    set_up();
    CHECK_EQ(sv_udcm_timers_end(&endpoint), 1);
    CHECK_EQ(deleted[0] + deleted[2] + deleted[3], 0);
    CHECK_EQ(deleted[1], 1);
    CHECK_EQ(flying.opal_list_length, 2);
    CHECK(&calls[2].super == calls[0].super.opal_list_next);
    CHECK(&calls[0].super == calls[2].super.opal_list_prev);
}

CASE(the_last_call_leaves_an_empty_list)
{
    set_up();
    CHECK_EQ(sv_udcm_timers_end(&other), 2);
    CHECK_EQ(sv_udcm_timers_end(&endpoint), 1);
    CHECK_EQ(flying.opal_list_length, 0);
    CHECK(&flying.opal_list_sentinel == flying.opal_list_sentinel.opal_list_next);
}

CASE(what_is_no_call_is_left_alone)
{
    set_up();
    calls[1].super.super.obj_class = &other_class;
    CHECK_EQ(sv_udcm_timers_end(&endpoint), 0);
    CHECK_EQ(deleted[1], 0);
}

CASE(a_libevent_that_cannot_tell_changes_nothing)
{
    set_up();
    sv_opal.event_base_foreach_event = NULL;
    CHECK_EQ(sv_udcm_timers_end(&endpoint), 0);
    CHECK_EQ(flying.opal_list_length, 3);
}
