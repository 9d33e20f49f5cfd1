/* SPDX-License-Identifier: Apache-2.0 */
/* The route a job begins on: fake modex, fake openib. */
#include "check.h"
#include "cycle.h"
#include "openib.h"
#include "proxy.h"
#include "start.h"
#include "status.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ME = 1, WORLD = 4, JOB = 77 };

void sv_cycle_step(void)
{
}
void sv_cycle_finalize(void)
{
}

/* ---- openib ---- */

static mca_btl_base_module_t openib, tcp, defaults;
static bool knows_defaults = true;
static int closed, left_open;

const mca_btl_base_module_t *sv_openib_defaults(void)
{
    return knows_defaults ? &defaults : NULL;
}

void sv_openib_finalize(void)
{
}

int sv_openib_close(char *why, size_t size, int *open_count)
{
    closed += NULL != sv_proxy.openib;
    sv_proxy.openib = NULL;
    *open_count = left_open;
    strcpy(why, "uverbs0");
    return left_open ? -EBUSY : 0;
}

static int never_put(mca_btl_base_module_t *m, sv_endpoint_t *e, void *local, uint64_t remote, sv_handle_t *lh,
                     sv_handle_t *rh, size_t size, int flags, int order, mca_btl_base_rdma_completion_fn_t done,
                     void *context, void *data)
{
    CHECK(false); /* nobody puts before the start is decided */
    return OPAL_ERROR;
}

static int openib_connects, tcp_connects;
static struct mca_btl_base_endpoint_t openib_endpoint, tcp_endpoint;

static int openib_add_procs(mca_btl_base_module_t *m, size_t n, opal_proc_t **procs, sv_endpoint_t **endpoints,
                            opal_bitmap_t *reachable)
{
    openib_connects++;
    *endpoints = &openib_endpoint;
    return OPAL_SUCCESS;
}

static int tcp_add_procs(mca_btl_base_module_t *m, size_t n, opal_proc_t **procs, sv_endpoint_t **endpoints,
                         opal_bitmap_t *reachable)
{
    tcp_connects++;
    *endpoints = &tcp_endpoint;
    return OPAL_SUCCESS;
}

/* ---- the modex ---- */

enum said { NOTHING, HAS_PORT, NO_PORT };
static enum said said[WORLD];
static int asked, values, put_rc;

static void free_key(opal_object_t *object)
{
    free(((opal_value_t *)object)->key);
    values--;
}

static opal_construct_t constructs[] = {NULL};
static opal_destruct_t destructs[] = {free_key, NULL};
static opal_class_t value_class = {
    .cls_construct_array = constructs, .cls_destruct_array = destructs, .cls_sizeof = sizeof(opal_value_t)};

static int put(opal_pmix_scope_t scope, opal_value_t *value)
{
    values++;
    CHECK_TEXT(value->key, "symvirt.port");
    CHECK_EQ(scope, OPAL_PMIX_GLOBAL);
    said[ME] = value->data.flag ? HAS_PORT : NO_PORT;
    return put_rc;
}

static int get(const opal_process_name_t *name, const char *key, opal_list_t *info, opal_value_t **answer)
{
    asked++;
    CHECK_EQ(name->jobid, JOB);
    CHECK(name->vpid < WORLD && ME != name->vpid);
    if (NOTHING == said[name->vpid]) {
        return OPAL_ERR_NOT_FOUND;
    }
    opal_value_t *value = sv_opal_new_value();
    values++;
    value->key = strdup(key);
    value->type = OPAL_BOOL;
    value->data.flag = HAS_PORT == said[name->vpid];
    *answer = value;
    return OPAL_SUCCESS;
}

static opal_pmix_base_module_t pmix = {.put = put, .get = get};
static mca_btl_active_message_callback_t triggers[MCA_BTL_TAG_MAX];

static void set_up(bool has_port)
{
    const uint32_t rdma = MCA_BTL_FLAGS_SEND | MCA_BTL_FLAGS_RDMA | MCA_BTL_FLAGS_ATOMIC_FOPS;
    defaults = (mca_btl_base_module_t){.btl_flags = rdma, .btl_atomic_flags = MCA_BTL_ATOMIC_SUPPORTS_ADD,
                                       .btl_put = never_put, .btl_eager_limit = 12288, .btl_max_send_size = 65536,
                                       .btl_rdma_pipeline_frag_size = 1 << 20, .btl_get_limit = SIZE_MAX,
                                       .btl_put_limit = SIZE_MAX};
    openib = defaults;
    openib.btl_add_procs = openib_add_procs;
    openib.btl_get_limit = openib.btl_put_limit = 1 << 23;
    openib.btl_bandwidth = 800;
    tcp = (mca_btl_base_module_t){.btl_add_procs = tcp_add_procs, .btl_eager_limit = 4096,
                                  .btl_max_send_size = 131072};
    sv_opal.pmix = &pmix;
    sv_opal.value_class = &value_class;
    sv_opal.trigger = triggers;
    sv_proxy.rank = ME;
    sv_proxy.world_size = WORLD;
    sv_proxy.jobid = JOB;
    sv_proxy.epoch = 1;
    sv_proxy.tcp[0] = &tcp;
    sv_proxy.tcp_count = 1;
    sv_proxy.openib = has_port ? &openib : NULL;
    sv_proxy.polling = has_port;
    sv_proxy.via = SV_VIA_OPENIB;
    sv_proxy.undecided = true;
    sv_proxy_build(has_port ? &openib : &defaults, &sv_proxy.component);
    for (int rank = 0; rank < WORLD; rank++) {
        said[rank] = HAS_PORT;
    }
}

static void check_began_over_tcp(void)
{
    CHECK_EQ(sv_proxy.via, SV_VIA_TCP);
    CHECK(NULL == sv_proxy.openib && !sv_proxy.polling && !sv_proxy.undecided);
    CHECK_EQ(sv_proxy.module.btl_flags & MCA_BTL_FLAGS_ATOMIC_FOPS, 0);
    CHECK_EQ(sv_proxy.module.btl_flags & MCA_BTL_FLAGS_SEND, MCA_BTL_FLAGS_SEND);
    CHECK_EQ(sv_proxy.module.btl_atomic_flags, 0);
    CHECK_EQ(sv_proxy.module.btl_get_limit, 1 << 20);
    CHECK_EQ(sv_proxy.module.btl_put_limit, 1 << 20);
    CHECK_EQ(sv_proxy.module.btl_eager_limit, 4096);
    CHECK_EQ(sv_proxy.module.btl_max_send_size, 65536);
    CHECK_EQ(values, 0);
}

/* The PML adds a peer: the endpoint it gets. */
static sv_endpoint_t *add_peer(uint32_t rank)
{
    static opal_proc_t procs[WORLD];
    opal_proc_t *proc = &procs[rank];
    sv_endpoint_t *endpoint = NULL;
    proc->proc_name = (opal_process_name_t){.jobid = JOB, .vpid = rank};
    CHECK_EQ(sv_endpoint_add_procs(&sv_proxy.module, 1, &proc, &endpoint, NULL), OPAL_SUCCESS);
    CHECK(NULL != endpoint);
    return endpoint;
}

CASE(says_whether_it_has_a_port)
{
    set_up(false);
    CHECK_EQ(sv_start_announce(false), 0);
    CHECK_EQ(said[ME], NO_PORT);
    CHECK_EQ(sv_start_announce(true), 0);
    CHECK_EQ(said[ME], HAS_PORT);
    put_rc = OPAL_ERROR;
    CHECK_EQ(sv_start_announce(true), -EIO);
    CHECK_EQ(values, 0);
}

CASE(all_ranks_have_ports)
{
    set_up(true);
    sv_endpoint_t *peer = add_peer(0);
    CHECK_EQ(asked, WORLD - 1);
    CHECK_EQ(sv_proxy.via, SV_VIA_OPENIB);
    CHECK(peer->openib == &openib_endpoint && NULL == peer->tcp);
    CHECK_EQ(sv_proxy.module.btl_put_limit, 1 << 23);
    CHECK_EQ(closed, 0);
    CHECK_EQ(values, 0);
    add_peer(2);
    CHECK_EQ(asked, WORLD - 1); /* decided once */
}

CASE(another_rank_has_none)
{
    set_up(true);
    said[3] = NO_PORT;
    sv_endpoint_t *peer = add_peer(0);
    CHECK_EQ(closed, 1);
    check_began_over_tcp();
    CHECK_TEXT(sv_status.detail, "rank 3 had no port");
    CHECK(peer->tcp == &tcp_endpoint && NULL == peer->openib);
    CHECK_EQ(peer->via, SV_VIA_TCP);
    CHECK(peer->wants_openib);
    CHECK_EQ(openib_connects, 0);
}

CASE(this_rank_has_none)
{
    set_up(false);
    said[ME] = NO_PORT;
    sv_endpoint_t *peer = add_peer(3);
    CHECK_EQ(asked, 0);
    check_began_over_tcp();
    CHECK_TEXT(sv_status.detail, "rank 1 had no port");
    CHECK(peer->wants_openib && peer->module == &tcp);
    CHECK_EQ(tcp_connects, 1);
}

CASE(a_rank_that_says_nothing_is_not_waited_for)
{
    set_up(true);
    said[0] = said[2] = NOTHING;
    add_peer(0);
    CHECK_EQ(sv_proxy.via, SV_VIA_OPENIB);
    CHECK_EQ(closed, 0);
}

CASE(without_tcp_a_card_is_kept)
{
    set_up(true);
    said[0] = NO_PORT;
    sv_proxy.tcp_count = 0;
    add_peer(2);
    CHECK_EQ(sv_proxy.via, SV_VIA_OPENIB);
    CHECK(sv_proxy.openib == &openib);
    CHECK_EQ(closed, 0);
}

CASE(a_card_that_stays_open_is_told)
{
    set_up(true);
    said[0] = NO_PORT;
    left_open = 3;
    add_peer(2);
    check_began_over_tcp();
    CHECK_EQ(sv_status.open_descriptors, 3);
}

CASE(what_the_pml_was_shown_stays_when_a_card_comes)
{
    set_up(false);
    add_peer(3);
    check_began_over_tcp();
    sv_proxy.openib = &openib;
    sv_endpoint_route_all(SV_VIA_OPENIB);
    sv_proxy_copy_limits();
    CHECK_EQ(sv_proxy.module.btl_flags & MCA_BTL_FLAGS_ATOMIC_FOPS, 0);
    CHECK_EQ(sv_proxy.module.btl_put_limit, 1 << 20);
    CHECK_EQ(sv_proxy.module.btl_eager_limit, 4096);
    CHECK_EQ(sv_proxy.module.btl_bandwidth, 0);
}
