/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing the route between openib and tcp while the job runs: the state machine of one rank.
 * Nothing here knows a BTL, a board or a clock: what it needs is in struct sv_handover_rank, so that
 * every interleaving can be tried without a card.
 *
 * Leaving (openib to tcp)                        Coming back (tcp to openib)
 *   OPENIB    until tcp has been connected to
 *             all who were ever talked to
 *   flip      new traffic takes tcp from here      open      load openib, post the address card
 *   DRAINING  all that was sent to me is here,     connect   add the peers, poll, post the handles
 *             nothing of mine is in openib         adopt     take the others' handles
 *   DRAINED   all ranks have drained               READY     all ranks poll and know all handles
 *   QUIET     all ranks have stopped polling       flip      new traffic takes openib from here
 *   tear down                                      DRAINING  the same for tcp
 *                                                  DRAINED   all ranks have drained: close tcp
 *
 * After the flip nothing new goes over the old route, so its sent counters are frozen and one round
 * of the board is enough. Each rank moves at its own safe points; nobody waits for a rank that
 * computes.
 *
 * Two sets decide, each at the moment the host sees it complete. "quiet": before it nobody has torn
 * down, so everybody can flip back; after it everybody tears down. "ready": before it nobody has
 * flipped to openib, so everybody can unload it again; after it nobody may, for others send there.
 * A rank may miss that moment (it computes, its agent was away), so every order says which side the
 * job decided for last. "ready" is posted only by a rank that succeeded: the host reads no bytes.
 *
 * A change may concern only some ranks: those of the VM that moves change the routes to all their
 * peers, the others (they stay) only those to the moving ones, and keep the card for the rest. They
 * go on polling openib, so a moving rank's queue pairs may not go before the staying ranks' ends of
 * them are gone: a credit message to a queue pair already destroyed is fatal for its sender. Hence one
 * more set, "dropped": a staying rank posts it when it has no queue pair to a moving one (any more), and
 * a moving one waits for it before it lets its card go.
 *
 * Of the host this asks: after "back.drained" is complete ranks close tcp, and no new order comes
 * until all have reported that they are done, or a connection would be used that is half closed.
 */
#ifndef SV_HANDOVER_H
#define SV_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

enum sv_handover_state {
    SV_HANDOVER_OPENIB, /* steady: openib carries all */
    SV_HANDOVER_FLIPPED,
    SV_HANDOVER_DRAINING,
    SV_HANDOVER_DRAINED,
    SV_HANDOVER_QUIET,
    SV_HANDOVER_DROPPING, /* moves: the card goes when the staying ranks have dropped it */
    SV_HANDOVER_TCP, /* steady: tcp carries all, the card has no user */
    SV_HANDOVER_OPENED,
    SV_HANDOVER_CONNECTED,
    SV_HANDOVER_READY,
    SV_HANDOVER_BACK_FLIPPED,
    SV_HANDOVER_BACK_DRAINING,
    SV_HANDOVER_BACK_DRAINED,
};

enum sv_handover_order { SV_ORDER_NONE, SV_ORDER_LEAVE, SV_ORDER_BACK };

/* Of this rank in an order: all ranks change everything, or it is one of those that move or stay. */
enum sv_handover_role { SV_ROLE_WHOLE, SV_ROLE_MOVES, SV_ROLE_STAYS };

/* What the machine asks of the rank it drives. `context` is handed through. */
struct sv_handover_rank {
    void *context;
    /* No descriptor of that BTL is allocated and not yet sent (rule: a descriptor goes with the BTL
     * that made it). Descriptors the BTL already has do not matter: a busy rank never has none. */
    bool (*none_in_hand)(void *context, bool tcp);
    /* Connects tcp to the peers this rank talks to, while openib still carries everything: what is sent in
     * the middle of a connect waits until the rank calls MPI again, which may be long. 1: done, or a peer
     * computes and is not waited for; 0: not yet; negative errno: one cannot be reached. */
    int (*connect_tcp)(void *context);
    void (*flip)(void *context, bool to_tcp);
    /* Posts "flip" or "back.flip": how many fragments this rank has sent to each, over that BTL. */
    void (*post_sent)(void *context, bool tcp);
    /* All that was sent to this rank over that BTL (by the complete set) has arrived, and nothing of
     * its own is outstanding there. */
    bool (*drained)(void *context, bool tcp);
    void (*post)(void *context, const char *key);
    bool (*complete)(void *context, const char *key);
    void (*poll_openib)(void *context, bool on);
    /* Lets the card go, or (stays) the queue pairs to the moving ranks. 0 or negative errno: the card
     * still has a user in this process. */
    int (*tear_down)(void *context);
    /* Loads openib and posts its address card, or the failure. 0 or negative errno. */
    int (*open)(void *context);
    /* The complete "blob" set: 0 if every rank has opened and this one has connected, else negative
     * errno (and why is noted). If all have opened it posts "handles": its own, or the failure. */
    int (*connect)(void *context);
    /* The complete "handles" set: 0 if every rank has connected and this one could take it all. A
     * failure of this rank alone is told by its state: it does not post "ready". */
    int (*adopt)(void *context);
    /* Undoes open, connect and adopt, however far they came. */
    void (*take_back)(void *context);
    void (*disconnect_tcp)(void *context);
    void (*entered)(void *context, enum sv_handover_state state);
};

struct sv_handover {
    enum sv_handover_state state;
    enum sv_handover_order order;
    enum sv_handover_role role;
    bool opened; /* DROPPING: undoes open, connect and adopt instead of a leave */
    int error; /* of the last order, negative errno: the rank is in the steady state it came from, or (not
                * all ranks move) waits in the midst of it for the next order, which undoes it */
};

/* A new order; posts belong to its step from here on. `given_up`: of the sets "quiet" and "ready" the
 * host has last seen "quiet" complete, so the job has given the card up; else it has (still or again)
 * decided for the card. A rank in the midst of an older order first does what the others have done
 * by that. The roles are the same in all orders from one steady state to the next. Returns false for an order that changes nothing (the rank is there already). May be given
 * in any state. */
bool sv_handover_begin(struct sv_handover *handover, const struct sv_handover_rank *rank,
                       enum sv_handover_order order, enum sv_handover_role role, bool given_up);
/* Goes on as far as it can. To be called at safe points (outside any BTL call) until it returns
 * true: the order is done, or has failed with `error` set. */
bool sv_handover_step(struct sv_handover *handover, const struct sv_handover_rank *rank);

#endif
