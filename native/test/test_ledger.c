/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger of verbs objects over a verbs library of the test's own, in which objects hold each other. */
#include "check.h"
#include "ledger.h"
#include "verbs.h"

#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef ibv_reg_mr

static struct ibv_context openibs, others;
static char log_text[1024];
static const char *busy = ""; /* what cannot be destroyed */
static int refusals = -1;    /* so often; negative: always */

static void *make(size_t size)
{
    return calloc(1, size);
}

static struct ibv_pd *alloc_pd(struct ibv_context *c)
{
    struct ibv_pd *pd = make(sizeof(*pd));
    pd->context = c;
    return pd;
}

static struct ibv_qp *create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
    if (a && NULL == a->send_cq) {
        return NULL; /* refused */
    }
    struct ibv_qp *qp = make(sizeof(*qp));
    qp->pd = pd;
    qp->context = pd->context;
    if (a) {
        qp->send_cq = qp->recv_cq = a->send_cq;
        a->send_cq->cqe++;
    }
    return qp;
}

static struct ibv_cq *create_cq(struct ibv_context *c, int n, void *cc, struct ibv_comp_channel *ch, int v)
{
    struct ibv_cq *cq = make(sizeof(*cq));
    cq->context = c;
    return cq;
}

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *at, size_t n, int access)
{
    struct ibv_mr *mr = make(sizeof(*mr));
    mr->context = pd->context;
    mr->pd = pd;
    pd->handle++;
    return mr;
}

static int query_device(struct ibv_context *c, struct ibv_device_attr *a)
{
    a->node_guid = 0x1234;
    return 0;
}

static int gone(const char *what, void *object)
{
    if (0 == strcmp(busy, what) && refusals) {
        refusals--;
        return EBUSY;
    }
    snprintf(log_text + strlen(log_text), sizeof(log_text) - strlen(log_text), "%s ", what);
    if (object != &openibs && object != &others) {
        free(object);
    }
    return 0;
}

#define GONE(name) \
    static int name##_gone(void *object) \
    { \
        return gone(#name, object); \
    }
static int qp_gone(void *object)
{
    struct ibv_qp *qp = object;
    if (qp->send_cq) {
        qp->send_cq->cqe--;
    }
    return gone("qp", object);
}

/* `cqe` of the fake's queues and `handle` of its domains: how many objects hold them */
static int cq_gone(void *object)
{
    return ((struct ibv_cq *)object)->cqe ? EBUSY : gone("cq", object);
}

static int mr_gone(void *object)
{
    ((struct ibv_mr *)object)->pd->handle--;
    return gone("mr", object);
}

static int pd_gone(void *object)
{
    return ((struct ibv_pd *)object)->handle ? EBUSY : gone("pd", object);
}

GONE(context)

void *sv_verbs_real(const char *name)
{
    static const struct {
        const char *name;
        void *real;
    } all[] = {
        {"ibv_alloc_pd", alloc_pd},      {"ibv_create_qp", create_qp}, {"ibv_create_cq", create_cq},
        {"ibv_query_device", query_device},
        {"ibv_reg_mr", reg_mr},          {"ibv_destroy_qp", qp_gone},  {"ibv_destroy_cq", cq_gone},
        {"ibv_dereg_mr", mr_gone},       {"ibv_dealloc_pd", pd_gone},  {"ibv_close_device", context_gone},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (0 == strcmp(all[i].name, name)) {
            return all[i].real;
        }
    }
    return NULL;
}

static struct ibv_pd *open_card(void)
{
    sv_ledger_begin();
    sv_ledger_opened(&openibs);
    sv_ledger_end();
    return ibv_alloc_pd(&openibs);
}

CASE(nothing_is_left_of_what_was_destroyed)
{
    char left[64] = "?";
    struct ibv_pd *pd = open_card();
    struct ibv_qp *qp = ibv_create_qp(pd, NULL);
    CHECK_EQ(ibv_destroy_qp(qp), 0);
    CHECK_EQ(ibv_dealloc_pd(pd), 0);
    CHECK_EQ(ibv_close_device(&openibs), 0);
    CHECK_EQ(sv_ledger_release(left, sizeof(left)), 0);
    CHECK_TEXT(left, "");
    CHECK_TEXT(log_text, "qp pd context ");
}

/* As device_destruct of openib does: one queue pair is forgotten, and it gives up at its completion queue. */
CASE(what_is_left_goes_in_the_kernels_order)
{
    char left[128];
    struct ibv_pd *pd = open_card();
    struct ibv_cq *cq = ibv_create_cq(&openibs, 1, NULL, NULL, 0);
    ibv_create_qp(pd, NULL);
    ibv_create_qp(pd, NULL);
    ibv_reg_mr(pd, left, 1, 0);
    busy = "cq";
    CHECK_EQ(ibv_destroy_cq(cq), EBUSY);
    busy = "";
    CHECK_EQ(sv_ledger_release(left, sizeof(left)), 6);
    CHECK_TEXT(left, "2 queue pairs, 1 completion queues, 1 memory regions, 1 protection domains, 1 contexts");
    CHECK_TEXT(log_text, "qp qp cq mr pd context ");
    CHECK_EQ(sv_ledger_release(left, sizeof(left)), 0);
}

/* One queue pair and one registration that openib has forgotten do not keep it from giving up its cache and card. */
CASE(what_stands_in_the_way_goes_first)
{
    char left[128];
    struct ibv_pd *pd = open_card();
    struct ibv_cq *cq = ibv_create_cq(&openibs, 1, NULL, NULL, 0), *other = ibv_create_cq(&openibs, 1, NULL, NULL, 0);
    struct ibv_qp_init_attr on_cq = {.send_cq = cq}, on_other = {.send_cq = other};
    ibv_create_qp(pd, &on_cq);
    struct ibv_qp *kept = ibv_create_qp(pd, &on_other);
    struct ibv_mr *registration = ibv_reg_mr(pd, left, 1, 0);
    CHECK_EQ(ibv_destroy_cq(cq), 0);
    CHECK_TEXT(log_text, "qp cq "); /* and no other one */
    CHECK_EQ(ibv_destroy_qp(kept), 0);
    CHECK_EQ(ibv_destroy_cq(other), 0);
    CHECK(registration && 1 == pd->handle);
    CHECK_EQ(ibv_dealloc_pd(pd), 0);
    CHECK_TEXT(log_text, "qp cq qp cq mr pd ");
    CHECK_EQ(ibv_close_device(&openibs), 0);
    CHECK_EQ(sv_ledger_release(left, sizeof(left)), 0);
}

/* rdma_rxe cleans a queue pair up in a work item; its completion queue is busy a moment longer. */
CASE(what_is_busy_for_a_moment_is_waited_for)
{
    char left[64];
    struct ibv_pd *pd = open_card();
    struct ibv_cq *cq = ibv_create_cq(&openibs, 1, NULL, NULL, 0);
    busy = "cq";
    refusals = 3;
    CHECK_EQ(ibv_destroy_cq(cq), 0);
    CHECK_EQ(refusals, 0);
    CHECK_EQ(ibv_dealloc_pd(pd), 0);
    CHECK_EQ(ibv_close_device(&openibs), 0);
    CHECK_EQ(sv_ledger_release(left, sizeof(left)), 0);
}

CASE(what_others_have_opened_is_theirs)
{
    char left[64];
    sv_ledger_opened(&others); /* not while openib opens its card */
    struct ibv_pd *pd = ibv_alloc_pd(&others);
    struct ibv_qp *qp = ibv_create_qp(pd, NULL);
    CHECK_EQ(sv_ledger_release(left, sizeof(left)), 0);
    CHECK_EQ(ibv_destroy_qp(qp), 0);
    CHECK_EQ(ibv_dealloc_pd(pd), 0);
    CHECK_TEXT(log_text, "qp pd ");
}

CASE(what_was_refused_is_not_noted)
{
    char left[64];
    struct ibv_qp_init_attr refused = {.send_cq = NULL};
    struct ibv_pd *pd = open_card();
    CHECK(NULL == ibv_create_qp(pd, &refused));
    CHECK_EQ(sv_ledger_release(left, sizeof(left)), 2);
    CHECK_TEXT(left, "1 protection domains, 1 contexts");
}

CASE(an_object_that_cannot_go_is_tried_once)
{
    char left[64];
    struct ibv_pd *pd = open_card();
    busy = "pd";
    CHECK_EQ(sv_ledger_release(left, sizeof(left)), 2);
    CHECK_TEXT(log_text, "context ");
    CHECK_EQ(sv_ledger_release(left, sizeof(left)), 0);
    free(pd);
}

/* rcache/grdma looks its caches up by the GUID and keeps them with freed entries. */
CASE(every_epoch_sees_another_guid)
{
    char left[64];
    struct ibv_device_attr first, second, foreign;
    open_card();
    sv_ledger_end(); /* the second epoch */
    CHECK_EQ(ibv_query_device(&openibs, &first), 0);
    sv_ledger_release(left, sizeof(left));
    open_card();
    CHECK_EQ(ibv_query_device(&openibs, &second), 0);
    CHECK_EQ(ibv_query_device(&others, &foreign), 0);
    CHECK(first.node_guid != second.node_guid);
    CHECK_EQ(foreign.node_guid, 0x1234);
    sv_ledger_release(left, sizeof(left));
}

CASE(thousands_of_objects_come_and_go)
{
    enum { N = 5000 };
    static struct ibv_mr *mr[N];
    char left[64];
    struct ibv_pd *pd = open_card();
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) {
            mr[i] = ibv_reg_mr(pd, left, 1, 0);
        }
        for (int i = 0; i < N; i++) {
            CHECK_EQ(ibv_dereg_mr(mr[(i * 7) % N]), 0);
            log_text[0] = '\0';
        }
    }
    CHECK_EQ(sv_ledger_release(left, sizeof(left)), 2);
}
