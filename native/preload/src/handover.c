/* SPDX-License-Identifier: Apache-2.0 */
#include "handover.h"

#include <errno.h>

static void enter(struct sv_handover *h, const struct sv_handover_rank *r, enum sv_handover_state state)
{
    h->state = state;
    r->entered(r->context, state);
}

static bool finish(struct sv_handover *h, const struct sv_handover_rank *r, enum sv_handover_state steady, int error)
{
    h->error = error;
    h->order = SV_ORDER_NONE;
    enter(h, r, steady);
    return true;
}

/* A rank that stays polls for its other peers all the time. */
static void poll_openib(const struct sv_handover *h, const struct sv_handover_rank *r, bool on)
{
    if (SV_ROLE_STAYS != h->role) {
        r->poll_openib(r->context, on);
    }
}

/* The card goes, by all. True when the order that led here is done. */
static bool let_go(struct sv_handover *h, const struct sv_handover_rank *r)
{
    int error = 0;
    if (h->opened) {
        h->opened = false;
        r->take_back(r->context);
    } else {
        error = r->tear_down(r->context);
    }
    if (SV_ORDER_LEAVE == h->order) {
        return finish(h, r, SV_HANDOVER_TCP, error);
    }
    enter(h, r, SV_HANDOVER_TCP);
    return false;
}

/* The old way is given up by all. A moving rank has to wait for those that stay. True as above. */
static bool leave_the_card(struct sv_handover *h, const struct sv_handover_rank *r)
{
    if (SV_ROLE_MOVES == h->role) {
        r->post(r->context, "dropped");
        enter(h, r, SV_HANDOVER_DROPPING);
        return false;
    }
    const bool stays = SV_ROLE_STAYS == h->role;
    const bool done = let_go(h, r);
    if (stays) {
        r->post(r->context, "dropped");
    }
    return done;
}

/* A return failed in this rank or in another. Where some stay, the next order undoes it: they may not
 * be hurt, and not all of them need know of the failure. */
static bool give_up_return(struct sv_handover *h, const struct sv_handover_rank *r, int error)
{
    if (SV_ROLE_WHOLE == h->role) {
        r->take_back(r->context);
        return finish(h, r, SV_HANDOVER_TCP, error);
    }
    h->error = error;
    h->order = SV_ORDER_NONE;
    return true;
}

/* openib is up and polled, the route is tcp: a leave begins after its flip, with the counters of its
 * own step; a return has only to flip. */
static void stay_flipped(struct sv_handover *h, const struct sv_handover_rank *r)
{
    if (SV_ORDER_LEAVE == h->order) {
        r->post_sent(r->context, false);
    }
    enter(h, r, SV_HANDOVER_FLIPPED);
}

bool sv_handover_begin(struct sv_handover *h, const struct sv_handover_rank *r, enum sv_handover_order order,
                       enum sv_handover_role role, bool given_up)
{
    h->order = order;
    h->role = role;
    h->error = 0;
    switch (h->state) {
    case SV_HANDOVER_OPENIB:
        /* A back order to a rank that never flipped is an abort it must still take part in: the
         * others count on its frozen tcp counters. */
        return true;
    case SV_HANDOVER_FLIPPED:
    case SV_HANDOVER_DRAINING:
    case SV_HANDOVER_DRAINED:
    case SV_HANDOVER_QUIET:
        if (given_up) {
            poll_openib(h, r, false);
            return !leave_the_card(h, r); /* as the others have: the order begins from tcp, or is done */
        }
        poll_openib(h, r, true);
        stay_flipped(h, r); /* the queue pairs still stand everywhere */
        return true;
    case SV_HANDOVER_READY:
        if (!given_up) {
            stay_flipped(h, r); /* others may send over openib already: it must not go */
            return true;
        }
        /* fall through */
    case SV_HANDOVER_OPENED:
    case SV_HANDOVER_CONNECTED:
        h->opened = true; /* nobody has flipped: not all were ready */
        poll_openib(h, r, false);
        return !leave_the_card(h, r);
    case SV_HANDOVER_DROPPING:
        r->post(r->context, "dropped"); /* it belongs to this step now */
        return true;
    case SV_HANDOVER_BACK_FLIPPED:
    case SV_HANDOVER_BACK_DRAINING:
    case SV_HANDOVER_BACK_DRAINED:
        enter(h, r, SV_HANDOVER_OPENIB); /* openib carries all that is new already */
        return true;
    case SV_HANDOVER_TCP:
        break;
    }
    if (SV_ROLE_WHOLE != role) {
        r->post(r->context, "dropped"); /* a moving rank in the midst of an older order may wait for it */
    }
    if (SV_ORDER_LEAVE == order) {
        finish(h, r, SV_HANDOVER_TCP, 0);
        return false;
    }
    return true;
}

static bool step_leave(struct sv_handover *h, const struct sv_handover_rank *r)
{
    int error;
    switch (h->state) {
    case SV_HANDOVER_OPENIB:
        error = r->connect_tcp(r->context);
        if (error < 0) {
            return finish(h, r, SV_HANDOVER_OPENIB, error);
        }
        if (0 == error || !r->none_in_hand(r->context, false)) {
            return false;
        }
        r->flip(r->context, true);
        r->post_sent(r->context, false);
        enter(h, r, SV_HANDOVER_FLIPPED);
        /* fall through */
    case SV_HANDOVER_FLIPPED:
        if (!r->complete(r->context, "flip")) {
            return false;
        }
        enter(h, r, SV_HANDOVER_DRAINING);
        /* fall through */
    case SV_HANDOVER_DRAINING:
        /* a descriptor that came back at its completion goes with openib, too */
        if (!r->none_in_hand(r->context, false) || !r->drained(r->context, false)) {
            return false;
        }
        r->post(r->context, "drained");
        enter(h, r, SV_HANDOVER_DRAINED);
        /* fall through */
    case SV_HANDOVER_DRAINED:
        if (!r->complete(r->context, "drained")) {
            return false;
        }
        /* openib sends credit messages by itself when it receives; one to a queue pair already
         * destroyed is fatal: all stop polling before anyone tears down. */
        poll_openib(h, r, false);
        r->post(r->context, "quiet");
        enter(h, r, SV_HANDOVER_QUIET);
        /* fall through */
    case SV_HANDOVER_QUIET:
        if (!r->complete(r->context, "quiet")) {
            return false;
        }
        if (leave_the_card(h, r)) {
            return true;
        }
        /* fall through */
    case SV_HANDOVER_DROPPING:
        return r->complete(r->context, "dropped") && let_go(h, r);
    default: /* no begin leads here: said, not waited for */
        return finish(h, r, h->state, -EPROTO);
    }
}

static bool step_back(struct sv_handover *h, const struct sv_handover_rank *r)
{
    int error;
    switch (h->state) {
    case SV_HANDOVER_DROPPING:
        if (!r->complete(r->context, "dropped")) {
            return false;
        }
        let_go(h, r);
        /* fall through */
    case SV_HANDOVER_TCP:
        error = r->open(r->context);
        enter(h, r, SV_HANDOVER_OPENED);
        h->error = error;
        /* fall through */
    case SV_HANDOVER_OPENED:
        if (!r->complete(r->context, "blob")) {
            return false;
        }
        error = r->connect(r->context);
        if (error) {
            return give_up_return(h, r, h->error ? h->error : error);
        }
        enter(h, r, SV_HANDOVER_CONNECTED);
        /* fall through */
    case SV_HANDOVER_CONNECTED:
        if (!r->complete(r->context, "handles")) {
            return false;
        }
        error = r->adopt(r->context);
        if (error) {
            return give_up_return(h, r, error);
        }
        r->post(r->context, "ready");
        enter(h, r, SV_HANDOVER_READY);
        /* fall through */
    case SV_HANDOVER_READY:
        if (!r->none_in_hand(r->context, true) || !r->complete(r->context, "ready")) {
            return false;
        }
        r->flip(r->context, false);
        r->post_sent(r->context, true);
        enter(h, r, SV_HANDOVER_BACK_FLIPPED);
        break;
    case SV_HANDOVER_OPENIB:
    case SV_HANDOVER_FLIPPED:
    case SV_HANDOVER_DRAINING:
    case SV_HANDOVER_DRAINED:
    case SV_HANDOVER_QUIET:
        /* an abort: the card was never given up */
        if (!r->none_in_hand(r->context, true)) {
            return false;
        }
        r->flip(r->context, false);
        r->post_sent(r->context, true);
        enter(h, r, SV_HANDOVER_BACK_FLIPPED);
        break;
    default:
        break;
    }
    if (SV_HANDOVER_BACK_FLIPPED == h->state) {
        if (!r->complete(r->context, "back.flip")) {
            return false;
        }
        enter(h, r, SV_HANDOVER_BACK_DRAINING);
    }
    if (SV_HANDOVER_BACK_DRAINING == h->state) {
        if (!r->none_in_hand(r->context, true) || !r->drained(r->context, true)) {
            return false;
        }
        r->post(r->context, "back.drained");
        enter(h, r, SV_HANDOVER_BACK_DRAINED);
    }
    if (!r->complete(r->context, "back.drained")) {
        return false;
    }
    r->disconnect_tcp(r->context);
    return finish(h, r, SV_HANDOVER_OPENIB, 0);
}

bool sv_handover_step(struct sv_handover *h, const struct sv_handover_rank *r)
{
    switch (h->order) {
    case SV_ORDER_LEAVE:
        return step_leave(h, r);
    case SV_ORDER_BACK:
        return step_back(h, r);
    case SV_ORDER_NONE:
        break;
    }
    return true;
}
