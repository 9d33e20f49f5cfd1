/* SPDX-License-Identifier: Apache-2.0 */
/* The proof of a connection after a re-init, over a fake openib and a clock that the test sets. */
#include "check.h"
#include "join.h"
#include "proxy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the rest of the library would do ---- */

static uint64_t now_us = 1;
uint64_t sv_now_us(void)
{
    return now_us;
}

static struct mca_btl_base_endpoint_t mine, lower, higher, inner[3];
sv_endpoint_t *sv_endpoint_of_rank(uint32_t rank)
{
    sv_endpoint_t *const all[] = {&lower, &mine, &higher};
    return rank < 3 ? all[rank] : NULL;
}

static uint64_t heard_from[3];
uint64_t sv_endpoint_received(uint32_t rank)
{
    return heard_from[rank];
}

struct sv_proxy sv_proxy;
struct sv_opal sv_opal;

/* ---- fake openib ---- */

static mca_btl_base_module_t openib;
static mca_btl_active_message_callback_t triggers[MCA_BTL_TAG_MAX];
static mca_btl_base_descriptor_t *sent[8];
static int sends, no_fragments, send_result;

static mca_btl_base_descriptor_t *card_alloc(mca_btl_base_module_t *m, sv_endpoint_t *e, uint8_t order, size_t size,
                                             uint32_t flags)
{
    if (no_fragments) {
        return NULL;
    }
    mca_btl_base_descriptor_t *d = calloc(1, sizeof(*d));
    d->des_segments = calloc(1, sizeof(*d->des_segments));
    d->des_segments[0].seg_addr.pval = calloc(1, size);
    d->des_segments[0].seg_len = size;
    return d;
}

static int card_send(mca_btl_base_module_t *m, sv_endpoint_t *e, mca_btl_base_descriptor_t *d, mca_btl_base_tag_t tag)
{
    CHECK_EQ(tag, SV_TAG_JOIN);
    sent[sends++] = d;
    return send_result;
}

static void complete(int which)
{
    mca_btl_base_descriptor_t *d = sent[which];
    d->des_cbfunc(&openib, NULL, d, OPAL_SUCCESS);
    free(d->des_segments[0].seg_addr.pval);
    free(d->des_segments);
    free(d);
}

static opal_proc_t own_proc;
static opal_proc_t *local_proc(void)
{
    return &own_proc;
}

/* This is rank 1 of three. */
static void set_up(void)
{
    openib = (mca_btl_base_module_t){.btl_alloc = card_alloc, .btl_send = card_send};
    sv_opal.trigger = triggers;
    sv_opal.proc_local_get = local_proc;
    sv_proxy.openib = &openib;
    sv_proxy.rank = 1;
    sv_proxy.world_size = 3;
    lower = (struct mca_btl_base_endpoint_t){.peer = 0, .openib = &inner[0], .next = &mine};
    mine = (struct mca_btl_base_endpoint_t){.peer = 1, .openib = &inner[1], .proc = &own_proc, .next = &higher};
    higher = (struct mca_btl_base_endpoint_t){.peer = 2, .openib = &inner[2]};
    sv_proxy.endpoints = &lower;
    lower.sent[SV_VIA_OPENIB] = higher.sent[SV_VIA_TCP] = 1;
    sv_join_listen();
}

static void hear(uint32_t rank)
{
    mca_btl_base_segment_t segment = {.seg_addr.pval = &rank, .seg_len = sizeof(rank)};
    mca_btl_base_descriptor_t d = {.des_segments = &segment};
    triggers[SV_TAG_JOIN].cbfunc(&openib, SV_TAG_JOIN, &d, NULL);
}

static char why[128];
static int state(void)
{
    return sv_join_state(why, sizeof(why));
}

CASE(the_lower_rank_calls_and_the_higher_answers)
{
    set_up();
    sv_join_begin(NULL);
    CHECK_EQ(state(), 0);
    CHECK_EQ(sends, 1); /* to the higher one */
    hear(0);
    CHECK_EQ(state(), 0);
    CHECK_EQ(sends, 2);
    complete(0);
    CHECK_EQ(state(), 0);
    complete(1);
    CHECK_EQ(state(), 1);
}

CASE(the_higher_rank_calls_when_it_is_not_called)
{
    set_up();
    sv_join_begin(NULL);
    CHECK_EQ(state(), 0);
    now_us += SV_JOIN_CALL_MS * 1000ull + 1;
    CHECK_EQ(state(), 0);
    CHECK_EQ(sends, 2);
    complete(0);
    complete(1);
    CHECK_EQ(state(), 1);
}

CASE(a_rank_that_computes_is_waited_for)
{
    set_up();
    sv_join_begin(NULL);
    CHECK_EQ(state(), 0);
    now_us += 600 * 1000000ull;
    CHECK_EQ(state(), 0);
    sv_join_all_called();
    now_us += SV_JOIN_MS * 1000ull - 1;
    CHECK_EQ(state(), 0);
    sv_join_all_called(); /* told again, it counts from the first time */
    now_us += 1;
    CHECK_EQ(state(), -ETIMEDOUT);
    CHECK_TEXT(why, "did not connect to rank 2 within 15 s");
    sv_join_begin(NULL); /* the next order counts anew */
    CHECK_EQ(state(), 0);
    while (sends) {
        complete(--sends);
    }
}

CASE(only_those_that_move_are_called)
{
    struct sv_ranks moving = {0};
    set_up();
    moving.bits[0] = 1 << 2;
    sv_join_begin(&moving);
    CHECK_EQ(state(), 0);
    CHECK_EQ(sends, 1);
    complete(0);
    CHECK_EQ(state(), 1);
}

CASE(without_a_fragment_it_is_tried_again)
{
    set_up();
    hear(0);
    no_fragments = 1;
    sv_join_begin(NULL);
    CHECK_EQ(state(), 0);
    CHECK_EQ(sends, 0);
    no_fragments = 0;
    CHECK_EQ(state(), 0);
    CHECK_EQ(sends, 2);
    complete(0);
    complete(1);
    CHECK_EQ(state(), 1);
}

CASE(a_peer_never_talked_to_is_not_called)
{
    set_up();
    lower.sent[SV_VIA_OPENIB] = 0;
    sv_join_begin(NULL);
    CHECK_EQ(state(), 0);
    CHECK_EQ(sends, 1);
    complete(0);
    CHECK_EQ(state(), 1);
    CHECK_EQ(sends, 1);
}

CASE(a_peer_that_only_ever_sent_is_called)
{
    set_up();
    higher.sent[SV_VIA_TCP] = 0;
    heard_from[2] = 1;
    hear(0);
    sv_join_begin(NULL);
    CHECK_EQ(state(), 0);
    CHECK_EQ(sends, 2);
    complete(0);
    complete(1);
    CHECK_EQ(state(), 1);
}

/* openib has queued it all the same: freed, it would be in two lists. */
CASE(a_message_whose_call_fails_is_openibs)
{
    set_up();
    hear(0);
    send_result = OPAL_ERROR;
    sv_join_begin(NULL);
    CHECK_EQ(state(), 0);
    CHECK_EQ(state(), 0);
    CHECK_EQ(sends, 2);
    complete(0);
    complete(1);
    CHECK_EQ(state(), 1);
}
