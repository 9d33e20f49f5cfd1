/* SPDX-License-Identifier: Apache-2.0 */
/* Put, get and atomics over tcp, as active messages to the owner of the memory, for whenever the
 * card may not be used: no card, or a handle without a real part in the owner's epoch. */
#ifndef SV_REMOTE_H
#define SV_REMOTE_H

#include "cookie.h"

/* Messages that found no resource and wait to be sent again, and questions that are not answered yet. */
extern SV_HIDDEN int sv_remote_waiting;

/* Each takes the cookie over if it returns 0: sv_rdma_done is called when the operation is
 * complete in the owner's memory. Negative OPAL error: nothing happened. */
int sv_remote_put(sv_endpoint_t *endpoint, void *local, uint64_t remote, size_t size, struct sv_cookie *cookie);
int sv_remote_get(sv_endpoint_t *endpoint, void *local, uint64_t remote, size_t size, struct sv_cookie *cookie);
/* `swap`: compare-and-swap of `operand` against `compare`; else fetch-and-`op`. */
int sv_remote_atomic(sv_endpoint_t *endpoint, void *local, uint64_t remote, mca_btl_base_atomic_op_t op,
                     uint64_t operand, uint64_t compare, bool swap, int flags, struct sv_cookie *cookie);
/* Greetings that have not been answered. */
extern int sv_remote_hellos;
/* Connects tcp to the peer: what is sent after its answer does not wait for a connection. */
int sv_remote_hello(sv_endpoint_t *endpoint);
/* Asks the peer to say when `sent` fragments have reached it over openib, and, being behind it, all that
 * was sent over tcp. Its answer goes to sv_throttle_passed with `flips`. */
int sv_remote_ask(sv_endpoint_t *endpoint, uint64_t sent, uint64_t flips);
void sv_remote_retry(void);
void sv_remote_received(mca_btl_base_module_t *, mca_btl_base_tag_t, mca_btl_base_descriptor_t *, void *);

#endif
