/* SPDX-License-Identifier: Apache-2.0 */
/* udcm's way of taking events (event, poll, arm) over a queue that tells only what comes after it was armed. */
#include "check.h"
#include "ledger.h"
#include "verbs.h"

#include <infiniband/verbs.h>
#include <string.h>

static struct ibv_context card, others;
static struct ibv_cq queue, foreign;
static int messages, events, acknowledged, armings;
static bool armed;

static void message_comes(void)
{
    messages++;
    events += armed;
    armed = false;
}

static int req_notify(struct ibv_cq *cq, int solicited_only)
{
    CHECK(&queue == cq);
    CHECK_EQ(solicited_only, 0);
    armings++;
    armed = true;
    return 0;
}

static struct ibv_cq *create_cq(struct ibv_context *c, int n, void *cc, struct ibv_comp_channel *ch, int v)
{
    struct ibv_cq *cq = &card == c ? &queue : &foreign;
    cq->context = c;
    return cq;
}

static void ack(struct ibv_cq *cq, unsigned int n)
{
    acknowledged += (int)n;
}

void *sv_verbs_real(const char *name)
{
    if (0 == strcmp(name, "ibv_create_cq")) {
        return (void *)(uintptr_t)create_cq;
    }
    return 0 == strcmp(name, "ibv_ack_cq_events") ? (void *)(uintptr_t)ack : NULL;
}

static void set_up(void)
{
    card.ops.req_notify_cq = others.ops.req_notify_cq = req_notify;
    sv_ledger_begin();
    sv_ledger_opened(&card);
    CHECK(&queue == ibv_create_cq(&card, 1, NULL, NULL, 0));
    CHECK(&foreign == ibv_create_cq(&others, 1, NULL, NULL, 0));
}

/* udcm_cq_event_dispatch; another message comes between the poll and the arming. */
static void dispatch(bool another)
{
    CHECK(events > 0);
    events--;
    ibv_ack_cq_events(&queue, 1);
    messages = 0;
    if (another) {
        message_comes();
    }
    ibv_req_notify_cq(&queue, 0);
}

CASE(a_message_between_poll_and_arming_is_told)
{
    set_up();
    ibv_req_notify_cq(&queue, 0);
    message_comes();
    dispatch(true);
    CHECK_EQ(messages, 1);
    dispatch(false); /* there is an event for it */
    CHECK_EQ(messages, 0);
    CHECK_EQ(events, 0);
    CHECK_EQ(acknowledged, 2);
    message_comes();
    CHECK_EQ(events, 1);
}

CASE(queues_of_others_are_left_alone)
{
    set_up();
    ibv_ack_cq_events(&foreign, 3);
    CHECK_EQ(acknowledged, 3);
    CHECK_EQ(armings, 0);
}
