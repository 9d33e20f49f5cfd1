/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who sent what has arrived over openib. A BTL does not say: its callback gets a module, a tag and a
 * descriptor. openib's receive descriptors hold a pointer to the endpoint they came by, at a place
 * that is found at the first message by the class of what the word points to (no private header).
 * Coalesced messages come with a descriptor of their own without that word, from inside the handler
 * of openib's control tag: there the outer descriptor says.
 *
 * Counted by openib's endpoint, not by peer: openib makes endpoints itself when it is called, before
 * the PML has asked for them.
 */
#ifndef SV_ARRIVALS_H
#define SV_ARRIVALS_H

#include "proxy.h"

struct sv_arrivals {
    const void *real;
    uint64_t count;
};

/* On the message path; hidden, so that they are read without a detour. */
extern SV_HIDDEN struct sv_arrivals *sv_arrivals_table;
extern SV_HIDDEN unsigned sv_arrivals_shift;
extern SV_HIDDEN unsigned sv_arrivals_word;     /* 0: not found yet */
extern SV_HIDDEN const void *sv_arrivals_outer; /* endpoint of the coalesced message that is being taken apart */

/* First message of an endpoint, or of the process. */
void sv_arrivals_first(const mca_btl_base_descriptor_t *descriptor, const void *real);

static inline unsigned sv_arrivals_slot(const void *real)
{
    return (unsigned)(((uint64_t)(uintptr_t)real * 0x9e3779b97f4a7c15ull) >> sv_arrivals_shift);
}

/* Of a message that is not coalesced: its count, or NULL if its endpoint is not at home in the table. */
static inline struct sv_arrivals *sv_arrivals_known(const mca_btl_base_descriptor_t *descriptor)
{
    const void *real = ((void *const *)descriptor)[sv_arrivals_word];
    struct sv_arrivals *a = &sv_arrivals_table[sv_arrivals_slot(real)];
    return sv_likely(a->real == real) ? a : NULL;
}

static inline void sv_arrivals_note(const mca_btl_base_descriptor_t *descriptor)
{
    const void *real = sv_unlikely(NULL != sv_arrivals_outer) ? sv_arrivals_outer
                                                              : ((void *const *)descriptor)[sv_arrivals_word];
    struct sv_arrivals *a = &sv_arrivals_table[sv_arrivals_slot(real)];
    if (sv_likely(a->real == real)) {
        a->count++;
    } else {
        sv_arrivals_first(descriptor, real);
    }
}

/* Takes openib's control tag over from a component that has just been opened. */
void sv_arrivals_attach(void);
/* Of all endpoints, those that are gone and those that could not be told included. */
uint64_t sv_arrivals_count(void);
/* Of those endpoints of openib's that are there now. */
uint64_t sv_arrivals_present(void);
/* By that endpoint of openib's. */
uint64_t sv_arrivals_by(const void *real);
/* The endpoint goes: its count is kept in the sum and returned. */
uint64_t sv_arrivals_forget(const void *real);
/* All endpoints go, with the component. What none of the proxy's endpoints has claimed blurs. */
void sv_arrivals_forget_all(void);
/* Some message could not be told: the counts by peer are not complete, for good. */
bool sv_arrivals_blurred(void);
void sv_arrivals_blur(void);

#endif
