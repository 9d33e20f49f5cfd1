/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a sender may be ahead of a peer whose old route has not drained: ob1 numbers messages with
 * 16 bits and keeps those that come too early in memory. Held back is only what has such a number, in
 * btl_sendi, btl_send or btl_alloc, wherever ob1 queues the request and tries again from its beginning; what
 * answers a request (ACK, PUT, FIN) would wait for a completion that may never come.
 *
 * A peer is asked whether all of the old route has reached it, so that nobody waits for a third rank
 * that computes: over tcp, with the number sent over openib; or, on the way back, behind all that was
 * sent over tcp.
 */
#ifndef SV_THROTTLE_H
#define SV_THROTTLE_H

#include "proxy.h"

/* The routes to those peers (NULL: to all) have just changed. */
void sv_throttle_begin(const struct sv_ranks *peers);
/* The old routes are drained everywhere, or given up. */
void sv_throttle_end(void);
/* Whether a new message to that peer has to wait. Of a throttled endpoint. Asks the peer in time. */
bool sv_throttle_holds(sv_endpoint_t *endpoint);
/* The peer's answer to the question asked after that change of route. */
void sv_throttle_passed(sv_endpoint_t *endpoint, uint64_t flips);

/* ob1's MATCH, RNDV and RGET (pml_ob1_hdr.h): the headers with a sequence number. */
static inline bool sv_throttle_numbered(mca_btl_base_tag_t tag)
{
    return (mca_btl_base_tag_t)(tag - (MCA_BTL_TAG_PML + 1)) < 3;
}

/*
 * Descriptors whose sending ob1 does not take back (pml_ob1_sendreq.c): of a buffered send it has told
 * the application by then (start_buffered), and a get has its fragment, which would be lost (start_rdma).
 * They are refused when they are made. Both have this flag alone; FIN, ACK and PUT want a callback as well,
 * and are shorter.
 */
static inline bool sv_throttle_final(size_t size, uint32_t flags)
{
    enum { LONGEST_ANSWER = 64 };
    return size > LONGEST_ANSWER &&
           MCA_BTL_DES_FLAGS_SIGNAL == (flags & (MCA_BTL_DES_FLAGS_SIGNAL | MCA_BTL_DES_SEND_ALWAYS_CALLBACK));
}

#endif
