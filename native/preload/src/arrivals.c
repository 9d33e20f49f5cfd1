/* SPDX-License-Identifier: Apache-2.0 */
#include "arrivals.h"

#include "peek.h"

#include <stdlib.h>
#include <string.h>

/* Before the first message every look must miss. */
static struct sv_arrivals none[2] = {{.real = &none}, {.real = &none}};
struct sv_arrivals *sv_arrivals_table = none;
unsigned sv_arrivals_shift = 63;
unsigned sv_arrivals_word;
const void *sv_arrivals_outer;

static unsigned slots, used;
static uint64_t gone, untold; /* counts of endpoints that are no more; of messages of unknown origin */
static bool blurred;
static unsigned searches; /* for the word; a build that has none is not searched for ever */
static mca_btl_base_module_recv_cb_fn_t real_control;

/* ---- the word of the descriptor ---- */

static unsigned find_word(const mca_btl_base_descriptor_t *descriptor)
{
    enum { LAST = 64, MOST_SEARCHES = 16 };
    if (searches++ >= MOST_SEARCHES) {
        return 0;
    }
    for (unsigned i = sizeof(opal_object_t) / sizeof(void *); i < LAST; i++) {
        void *word;
        if (!sv_peek((void *const *)descriptor + i, &word, sizeof(word))) {
            break;
        }
        if (sv_is_of_class(word, "mca_btl_openib_endpoint_t")) {
            sv_debug("word %u of openib's receive descriptors is the endpoint", i);
            return i;
        }
    }
    return 0;
}

/* ---- the table ---- */

static bool grow(void)
{
    const unsigned size = slots ? 2 * slots : 64;
    struct sv_arrivals *old = sv_arrivals_table, *bigger = calloc(size, sizeof(*bigger));
    const unsigned before = slots;
    if (NULL == bigger) {
        return false;
    }
    sv_arrivals_table = bigger;
    __atomic_store_n(&slots, size, __ATOMIC_RELEASE); /* who reads the new length finds the new table */
    sv_arrivals_shift = 64 - (unsigned)__builtin_ctz(size);
    for (unsigned i = 0; i < before; i++) {
        if (old[i].real) {
            unsigned at = sv_arrivals_slot(old[i].real);
            while (bigger[at].real) {
                at = (at + 1) & (size - 1);
            }
            bigger[at] = old[i];
        }
    }
    /* The old table stays: the thread that talks to the agent may be adding it up. Each is half as long as
     * the next, so all of them together are no longer than the last. */
    if (before) {
        static struct sv_arrivals *retired[32] __attribute__((used));
        static unsigned count;
        retired[count++] = old;
    }
    return true;
}

static struct sv_arrivals *slot_of(const void *real)
{
    if (0 == slots) {
        return NULL;
    }
    unsigned at = sv_arrivals_slot(real);
    while (sv_arrivals_table[at].real && sv_arrivals_table[at].real != real) {
        at = (at + 1) & (slots - 1);
    }
    return &sv_arrivals_table[at];
}

void sv_arrivals_first(const mca_btl_base_descriptor_t *descriptor, const void *real)
{
    if (0 == sv_arrivals_word && NULL == sv_arrivals_outer) {
        sv_arrivals_word = find_word(descriptor);
        real = sv_arrivals_word ? ((void *const *)descriptor)[sv_arrivals_word] : NULL;
    }
    if (0 == sv_arrivals_word || NULL == real || (2 * (used + 1) > slots && !grow())) {
        untold++;
        blurred = true;
        return;
    }
    struct sv_arrivals *a = slot_of(real);
    if (NULL == a->real) {
        a->real = real;
        used++;
    }
    a->count++;
}

uint64_t sv_arrivals_present(void)
{
    uint64_t sum = 0;
    const unsigned count = __atomic_load_n(&slots, __ATOMIC_ACQUIRE); /* before the table */
    const struct sv_arrivals *table = __atomic_load_n(&sv_arrivals_table, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < count; i++) {
        sum += table[i].count;
    }
    return sum;
}

uint64_t sv_arrivals_count(void)
{
    return gone + untold + sv_arrivals_present();
}

uint64_t sv_arrivals_by(const void *real)
{
    const struct sv_arrivals *a = slot_of(real);
    return a ? a->count : 0;
}

uint64_t sv_arrivals_forget(const void *real)
{
    struct sv_arrivals *a = slot_of(real);
    if (NULL == a || NULL == a->real) {
        return 0;
    }
    const uint64_t count = a->count;
    gone += count;
    a->count = 0;
    /* The slot goes as well (another endpoint may get that address): what follows it moves up. */
    unsigned hole = (unsigned)(a - sv_arrivals_table), at = hole;
    used--;
    for (;;) {
        at = (at + 1) & (slots - 1);
        if (NULL == sv_arrivals_table[at].real) {
            break;
        }
        const unsigned home = sv_arrivals_slot(sv_arrivals_table[at].real);
        if (((at - home) & (slots - 1)) >= ((at - hole) & (slots - 1))) {
            sv_arrivals_table[hole] = sv_arrivals_table[at];
            hole = at;
        }
    }
    sv_arrivals_table[hole] = (struct sv_arrivals){0};
    return count;
}

void sv_arrivals_forget_all(void)
{
    gone = sv_arrivals_count() - untold;
    for (unsigned i = 0; i < slots; i++) {
        blurred = blurred || sv_arrivals_table[i].count;
        sv_arrivals_table[i] = (struct sv_arrivals){0};
    }
    used = 0;
}

void sv_arrivals_blur(void)
{
    blurred = true;
}

bool sv_arrivals_blurred(void)
{
    return blurred;
}

/* ---- coalesced messages ---- */

static void control(mca_btl_base_module_t *module, mca_btl_base_tag_t tag, mca_btl_base_descriptor_t *descriptor,
                    void *data)
{
    const void *kept = sv_arrivals_outer;
    if (0 == sv_arrivals_word) {
        sv_arrivals_word = find_word(descriptor);
    }
    if (sv_arrivals_word) {
        sv_arrivals_outer = ((void *const *)descriptor)[sv_arrivals_word];
    }
    real_control(module, tag, descriptor, data);
    sv_arrivals_outer = kept;
}

void sv_arrivals_attach(void)
{
    mca_btl_active_message_callback_t *trigger = &sv_opal.trigger[SV_TAG_OPENIB_CONTROL];
    if (trigger->cbfunc && control != trigger->cbfunc) {
        real_control = trigger->cbfunc;
        trigger->cbfunc = control;
    }
}
