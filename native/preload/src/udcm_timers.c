/* SPDX-License-Identifier: Apache-2.0 */
#include "udcm_timers.h"

#include "log.h"
#include "opal_symbols.h"
#include "peek.h"

#include <stddef.h>

/* One peer has one call open at a time, and its repetitions are the same message. */
enum { MOST = 16 };

struct found {
    const void *endpoint;
    struct event *timer[MOST];
    opal_list_item_t *message[MOST];
    int count;
};

/* udcm_message_sent_t begins with a list item, the message, its length and the endpoint. */
static bool is_call_to(const void *argument, const void *endpoint)
{
    enum { FIRST = sizeof(opal_list_item_t) / sizeof(void *), LAST = FIRST + 6 };
    if (!sv_is_of_class(argument, "udcm_message_sent_t")) {
        return false;
    }
    for (int i = FIRST; i < LAST; i++) {
        const void *word;
        if (sv_peek((void *const *)argument + i, &word, sizeof(word)) && word == endpoint) {
            return true;
        }
    }
    return false;
}

/* The base is locked here: nothing may be changed. */
static int note(const opal_event_base_t *base, const struct event *timer, void *context)
{
    struct found *found = context;
    void *argument = sv_opal.event_get_callback_arg(timer);
    if (found->count < MOST && is_call_to(argument, found->endpoint)) {
        found->timer[found->count] = (struct event *)timer;
        found->message[found->count++] = argument;
    }
    return 0;
}

/* Out of the module's list of messages on their way, which is found by its end. */
static void unlink_item(opal_list_item_t *item)
{
    enum { LONGEST = 100000 };
    opal_list_item_t *at = (opal_list_item_t *)item->opal_list_next;
    for (int i = 0; at && at != item && i < LONGEST; i++) {
        opal_list_t *list = (opal_list_t *)(void *)((char *)at - offsetof(opal_list_t, opal_list_sentinel));
        if (!sv_is_of_class(at, "udcm_message_sent_t") && ((opal_object_t *)list)->obj_class == sv_opal.list_class) {
            opal_list_remove_item(list, item);
            return;
        }
        at = (opal_list_item_t *)at->opal_list_next;
    }
}

int sv_udcm_timers_end(const void *openib_endpoint)
{
    struct found found = {.endpoint = openib_endpoint};
    if (NULL == sv_opal.event_base_foreach_event || NULL == sv_opal.event_get_callback_arg ||
        NULL == sv_opal.event_del) {
        return 0;
    }
    sv_opal.event_base_foreach_event(*sv_opal.sync_event_base, note, &found);
    for (int i = 0; i < found.count; i++) {
        sv_opal.event_del(found.timer[i]);
        unlink_item(found.message[i]); /* its few hundred bytes stay until the job ends */
    }
    if (found.count) {
        sv_info("ended %d unanswered calls of openib's connection manager", found.count);
    }
    return found.count;
}
