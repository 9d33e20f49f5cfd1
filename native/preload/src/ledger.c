/* SPDX-License-Identifier: Apache-2.0 */
#include "ledger.h"

#include "log.h"
#include "verbs.h"

#include <errno.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#undef ibv_reg_mr

#define SV_EXPORT __attribute__((visibility("default")))

struct entry {
    void *object;
    enum sv_verbs_kind kind;
};

/* OPAL's progress thread makes queue pairs and address handles beside the main thread. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Open addressing by the object's address; never more than half full. */
static struct entry *slots;
static size_t mask, used;
static bool noting;
static uint32_t generation; /* of openib, from 0 */

static size_t home(const void *object)
{
    return (size_t)(((uint64_t)(uintptr_t)object * 0x9e3779b97f4a7c15ull) >> 20) & mask;
}

static void insert(struct entry entry)
{
    size_t at = home(entry.object);
    while (slots[at].object) {
        at = (at + 1) & mask;
    }
    slots[at] = entry;
    used++;
}

static bool grow(void)
{
    const size_t before = slots ? mask + 1 : 0, size = before ? 2 * before : 256;
    struct entry *old = slots, *bigger = calloc(size, sizeof(*bigger));
    if (NULL == bigger) {
        return false;
    }
    slots = bigger;
    mask = size - 1;
    used = 0;
    for (size_t i = 0; i < before; i++) {
        if (old[i].object) {
            insert(old[i]);
        }
    }
    free(old);
    return true;
}

static struct entry *find(const void *object)
{
    if (NULL == slots) {
        return NULL;
    }
    for (size_t at = home(object); slots[at].object; at = (at + 1) & mask) {
        if (slots[at].object == object) {
            return &slots[at];
        }
    }
    return NULL;
}

static void erase(struct entry *entry)
{
    size_t hole = (size_t)(entry - slots);
    for (size_t at = (hole + 1) & mask; slots[at].object; at = (at + 1) & mask) {
        if (((at - home(slots[at].object)) & mask) >= ((at - hole) & mask)) {
            slots[hole] = slots[at];
            hole = at;
        }
    }
    slots[hole] = (struct entry){0};
    used--;
}

void sv_ledger_begin(void)
{
    noting = true;
}

void sv_ledger_end(void)
{
    noting = false;
    generation++;
}

static void note(enum sv_verbs_kind kind, void *object)
{
    if (2 * (used + 1) > (slots ? mask + 1 : 0) && !grow()) {
        return; /* without memory this one is openib's own affair, as it was */
    }
    insert((struct entry){object, kind});
}

void sv_ledger_opened(struct ibv_context *context)
{
    if (context && noting) {
        pthread_mutex_lock(&lock);
        note(SV_VERBS_CONTEXT, context);
        pthread_mutex_unlock(&lock);
    }
}

void *sv_ledger_note(enum sv_verbs_kind kind, struct ibv_context *context, void *object)
{
    if (object) {
        const int kept = errno;
        pthread_mutex_lock(&lock);
        if (find(context)) {
            note(kind, object);
        }
        pthread_mutex_unlock(&lock);
        errno = kept;
    }
    return object;
}

bool sv_ledger_has(const void *object)
{
    pthread_mutex_lock(&lock);
    const bool has = NULL != find(object);
    pthread_mutex_unlock(&lock);
    return has;
}

/* Takes the object out before it is destroyed: its address may be another's at once. */
static bool take_out(void *object, struct entry *kept)
{
    pthread_mutex_lock(&lock);
    struct entry *entry = find(object);
    const bool noted = NULL != entry;
    if (noted) {
        *kept = *entry;
        erase(entry);
    }
    pthread_mutex_unlock(&lock);
    return noted;
}

static const struct {
    const char *destroy, *name;
} kinds[SV_VERBS_KINDS] = {
    [SV_VERBS_QP] = {"ibv_destroy_qp", "queue pairs"},
    [SV_VERBS_AH] = {"ibv_destroy_ah", "address handles"},
    [SV_VERBS_SRQ] = {"ibv_destroy_srq", "shared receive queues"},
    [SV_VERBS_CQ] = {"ibv_destroy_cq", "completion queues"},
    [SV_VERBS_MR] = {"ibv_dereg_mr", "memory regions"},
    [SV_VERBS_CHANNEL] = {"ibv_destroy_comp_channel", "completion channels"},
    [SV_VERBS_PD] = {"ibv_dealloc_pd", "protection domains"},
    [SV_VERBS_CONTEXT] = {"ibv_close_device", "contexts"},
};

/* Does the kernel refuse to destroy `parent` while this object is there? NULL: a parent of all. */
static bool depends(const struct entry *entry, const void *parent)
{
    if (NULL == parent) {
        return true;
    }
    switch (entry->kind) {
    case SV_VERBS_QP: {
        const struct ibv_qp *qp = entry->object;
        return parent == qp->send_cq || parent == qp->recv_cq || parent == qp->srq || parent == qp->pd ||
               parent == qp->context;
    }
    case SV_VERBS_AH: {
        const struct ibv_ah *ah = entry->object;
        return parent == ah->pd || parent == ah->context;
    }
    case SV_VERBS_SRQ: {
        const struct ibv_srq *srq = entry->object;
        return parent == srq->pd || parent == srq->context;
    }
    case SV_VERBS_CQ: {
        const struct ibv_cq *cq = entry->object;
        return parent == cq->channel || parent == cq->context;
    }
    case SV_VERBS_MR: {
        const struct ibv_mr *mr = entry->object;
        return parent == mr->pd || parent == mr->context;
    }
    case SV_VERBS_CHANNEL:
        return parent == ((const struct ibv_comp_channel *)entry->object)->context;
    case SV_VERBS_PD:
        return parent == ((const struct ibv_pd *)entry->object)->context;
    default:
        return false;
    }
}

/* Takes out one object of this kind that `parent` waits for. */
static void *take_dependent(enum sv_verbs_kind kind, const void *parent)
{
    void *object = NULL;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; used && i <= mask; i++) {
        if (slots[i].object && slots[i].kind == kind && depends(&slots[i], parent)) {
            object = slots[i].object;
            erase(&slots[i]);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return object;
}

static int patiently(int (*real)(void *), void *object);

/* Destroys what `parent` (NULL: nothing in particular) waits for. Each is tried once, whatever comes of it. */
static int release(const void *parent, char *what, size_t size)
{
    int total = 0;
    size_t length = 0;
    what[0] = '\0';
    for (int kind = 0; kind < SV_VERBS_KINDS; kind++) {
        int count = 0;
        void *object;
        while (NULL != (object = take_dependent((enum sv_verbs_kind)kind, parent))) {
            int (*real)(void *);
            *(void **)&real = sv_verbs_real(kinds[kind].destroy);
            if (NULL == real || patiently(real, object)) {
                sv_warn("openib has left one of its %s behind, and it cannot be released", kinds[kind].name);
            }
            count++;
        }
        if (count && length < size) {
            length += (size_t)snprintf(what + length, size - length, "%s%d %s", length ? ", " : "", count, kinds[kind].name);
        }
        total += count;
    }
    return total;
}

/*
 * A driver may let go of what a queue pair held only after the call that destroyed it has returned: rdma_rxe does so
 * in a work item, and until then the completion queue counts as busy (rxe_qp_do_cleanup, rxe_destroy_cq). openib
 * gives the whole card up at the first such refusal, and leaves its registration cache to MPI_Finalize, which then
 * calls into a library that is gone. So the driver is given some time.
 */
static int patiently(int (*real)(void *), void *object)
{
    enum { STEP_NS = 2000000, STEPS = 1500 };
    const struct timespec step = {.tv_nsec = STEP_NS};
    int rc = real(object);
    for (int i = 0; rc && i < STEPS; i++) {
        nanosleep(&step, NULL);
        rc = real(object);
    }
    return rc;
}

/* As often as it takes the driver; and once what openib itself has lost sight of is taken out of its way. */
static int insist(int (*real)(void *), void *object)
{
    char left[160];
    const int rc = real(object);
    if (0 == rc) {
        return 0;
    }
    if (release(object, left, sizeof(left))) {
        sv_info("openib had lost sight of: %s", left);
    }
    return patiently(real, object);
}

static int destroy(const char *name, void *object)
{
    int (*real)(void *);
    struct entry kept;
    *(void **)&real = sv_verbs_real(name);
    if (NULL == real) {
        return ENOSYS;
    }
    const bool noted = take_out(object, &kept);
    const int rc = noted ? insist(real, object) : real(object);
    if (rc && noted) {
        pthread_mutex_lock(&lock);
        note(kept.kind, kept.object); /* it is still there */
        pthread_mutex_unlock(&lock);
    }
    return rc;
}

int sv_ledger_release(char *what, size_t size)
{
    return release(NULL, what, size);
}

/* ---- interposed verbs: those by which objects come and go; ibv_open_device and ibv_create_ah are in roce.c ---- */

#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (NULL == real) {                                                                                                \
        *(void **)&real = sv_verbs_real(name);                                                                         \
        if (NULL == real) {                                                                                            \
            errno = ENOSYS;                                                                                            \
            return NULL;                                                                                               \
        }                                                                                                              \
    }

/*
 * openib names its registration cache after the card's GUID, and the cache outlives openib (rcache/grdma keeps
 * it with what was still registered, in memory that is freed). On the same card the next epoch would find it
 * and release what is released already. So a card has another GUID in every epoch; nothing else asks for it.
 */
SV_EXPORT int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attributes)
{
    static int (*real)(struct ibv_context *, struct ibv_device_attr *);
    if (NULL == real) {
        *(void **)&real = sv_verbs_real("ibv_query_device");
        if (NULL == real) {
            return ENOSYS;
        }
    }
    const int rc = real(context, attributes);
    pthread_mutex_lock(&lock);
    if (0 == rc && find(context)) {
        attributes->node_guid ^= (uint64_t)generation << 32;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

SV_EXPORT struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attributes)
{
    REAL(struct ibv_qp *, "ibv_create_qp", struct ibv_pd *, struct ibv_qp_init_attr *)
    return sv_ledger_note(SV_VERBS_QP, pd->context, real(pd, attributes));
}

SV_EXPORT struct ibv_srq *ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attributes)
{
    REAL(struct ibv_srq *, "ibv_create_srq", struct ibv_pd *, struct ibv_srq_init_attr *)
    return sv_ledger_note(SV_VERBS_SRQ, pd->context, real(pd, attributes));
}

SV_EXPORT struct ibv_cq *ibv_create_cq(struct ibv_context *context, int entries, void *cq_context,
                                       struct ibv_comp_channel *channel, int vector)
{
    REAL(struct ibv_cq *, "ibv_create_cq", struct ibv_context *, int, void *, struct ibv_comp_channel *, int)
    return sv_ledger_note(SV_VERBS_CQ, context, real(context, entries, cq_context, channel, vector));
}

SV_EXPORT struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *address, size_t length, int access)
{
    REAL(struct ibv_mr *, "ibv_reg_mr", struct ibv_pd *, void *, size_t, int)
    return sv_ledger_note(SV_VERBS_MR, pd->context, real(pd, address, length, access));
}

SV_EXPORT struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
    REAL(struct ibv_comp_channel *, "ibv_create_comp_channel", struct ibv_context *)
    return sv_ledger_note(SV_VERBS_CHANNEL, context, real(context));
}

SV_EXPORT struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
    REAL(struct ibv_pd *, "ibv_alloc_pd", struct ibv_context *)
    return sv_ledger_note(SV_VERBS_PD, context, real(context));
}

SV_EXPORT int ibv_destroy_qp(struct ibv_qp *qp)
{
    return destroy(kinds[SV_VERBS_QP].destroy, qp);
}

SV_EXPORT int ibv_destroy_ah(struct ibv_ah *ah)
{
    return destroy(kinds[SV_VERBS_AH].destroy, ah);
}

SV_EXPORT int ibv_destroy_srq(struct ibv_srq *srq)
{
    return destroy(kinds[SV_VERBS_SRQ].destroy, srq);
}

SV_EXPORT int ibv_destroy_cq(struct ibv_cq *cq)
{
    return destroy(kinds[SV_VERBS_CQ].destroy, cq);
}

SV_EXPORT int ibv_dereg_mr(struct ibv_mr *mr)
{
    return destroy(kinds[SV_VERBS_MR].destroy, mr);
}

SV_EXPORT int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
    return destroy(kinds[SV_VERBS_CHANNEL].destroy, channel);
}

SV_EXPORT int ibv_dealloc_pd(struct ibv_pd *pd)
{
    return destroy(kinds[SV_VERBS_PD].destroy, pd);
}

SV_EXPORT int ibv_close_device(struct ibv_context *context)
{
    return destroy(kinds[SV_VERBS_CONTEXT].destroy, context);
}
