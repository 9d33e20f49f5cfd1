/* SPDX-License-Identifier: Apache-2.0 */
#include "roce.h"

#include "ledger.h"
#include "log.h"
#include "verbs.h"

#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdlib.h>
#include <string.h>

#define SV_EXPORT __attribute__((visibility("default")))

static bool enabled, everywhere;
/* Index 1 is the IPv4 GID where the interface has one address (rxe, mlx5 RoCE v1); SYMVIRT_ROCE_GID_INDEX overrides. */
static int gid_index = 1;

typedef int (*query_port_fn)(struct ibv_context *, uint8_t, struct ibv_port_attr *, size_t);
/* One process sees few drivers; each has its own query_port. */
static struct {
    struct ibv_context *context;
    query_port_fn real;
} adapted[16];

/* The real ibv_query_gid, for this library links nothing. */
static int query_gid(struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid)
{
    static int (*real)(struct ibv_context *, uint8_t, int, union ibv_gid *);
    if (NULL == real) {
        *(void **)&real = sv_verbs_real("ibv_query_gid");
    }
    return real ? real(context, port, index, gid) : ENOSYS;
}

static bool ipv4_mapped(const union ibv_gid *gid)
{
    static const unsigned char prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return 0 == memcmp(gid->raw, prefix, sizeof(prefix));
}

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attributes, size_t size)
{
    query_port_fn real = NULL;
    union ibv_gid gid;
    for (size_t i = 0; i < sizeof(adapted) / sizeof(adapted[0]); i++) {
        if (adapted[i].context == context) {
            real = adapted[i].real;
        }
    }
    if (NULL == real) {
        return ENOSYS;
    }
    const int rc = real(context, port, attributes, size);
    if (0 != rc || IBV_LINK_LAYER_ETHERNET != attributes->link_layer) {
        return rc;
    }
    if (0 != query_gid(context, port, gid_index, &gid) || !ipv4_mapped(&gid)) {
        attributes->state = IBV_PORT_DOWN; /* no address yet: openib must not take it as usable */
        return 0;
    }
    attributes->link_layer = IBV_LINK_LAYER_INFINIBAND;
    attributes->lid = (uint16_t)(gid.raw[14] << 8 | gid.raw[15]);
    return 0;
}

static bool is_adapted(const struct ibv_context *context)
{
    for (size_t i = 0; i < sizeof(adapted) / sizeof(adapted[0]); i++) {
        if (adapted[i].context == context) {
            return true;
        }
    }
    return false;
}

void sv_roce_consider(bool all_devices)
{
    everywhere = all_devices;
    const char *wanted = secure_getenv("SYMVIRT_ROCE");
    const char *index = secure_getenv("SYMVIRT_ROCE_GID_INDEX");
    if (index) {
        gid_index = atoi(index);
    }
    if (wanted && (0 == strcmp(wanted, "on") || 0 == strcmp(wanted, "off"))) {
        enabled = 0 == strcmp(wanted, "on");
    } else {
        /* an openib with rdmacm needs it loaded: RoCE works there without help */
        void *rdmacm = dlopen("librdmacm.so.1", RTLD_NOLOAD | RTLD_LAZY);
        enabled = NULL == rdmacm;
        if (rdmacm) {
            dlclose(rdmacm);
        }
    }
    sv_debug("RoCE adaptation %s", enabled ? "on" : "off");
}

bool sv_roce_on(void)
{
    return enabled;
}

/* ---- interposed verbs ---- */

SV_EXPORT struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    static struct ibv_context *(*real)(struct ibv_device *);
    if (NULL == real) {
        *(void **)&real = sv_verbs_real("ibv_open_device");
        if (NULL == real) {
            errno = ENOSYS;
            return NULL;
        }
    }
    struct ibv_context *context = real(device);
    sv_ledger_opened(context);
    /* The application's own verbs see the port as it is. */
    const bool ours = enabled && context && (everywhere || sv_ledger_has(context));
    struct verbs_context *extended = ours ? verbs_get_ctx(context) : NULL;
    if (!ours) {
        for (size_t i = 0; i < sizeof(adapted) / sizeof(adapted[0]); i++) {
            if (context && adapted[i].context == context) {
                adapted[i].context = NULL; /* one of openib's had that address, and is closed */
            }
        }
    }
    if (NULL == extended || NULL == extended->query_port || query_port == extended->query_port) {
        return context;
    }
    size_t free_slot = sizeof(adapted) / sizeof(adapted[0]);
    for (size_t i = sizeof(adapted) / sizeof(adapted[0]); i-- > 0;) {
        if (adapted[i].context == context || NULL == adapted[i].context) {
            free_slot = i; /* same address: the old context was closed */
            if (adapted[i].context == context) {
                break;
            }
        }
    }
    if (free_slot == sizeof(adapted) / sizeof(adapted[0])) {
        memset(adapted, 0, sizeof(adapted)); /* contexts of epochs long closed */
        free_slot = 0;
    }
    adapted[free_slot].real = extended->query_port;
    adapted[free_slot].context = context;
    extended->query_port = query_port;
    return context;
}

/* A LID names a host of our subnet: turn it into that host's GID. */
static void address_by_gid(struct ibv_context *context, struct ibv_ah_attr *address)
{
    union ibv_gid gid;
    if (0 != query_gid(context, address->port_num, gid_index, &gid)) {
        return;
    }
    gid.raw[14] = (uint8_t)(address->dlid >> 8);
    gid.raw[15] = (uint8_t)address->dlid;
    address->is_global = 1;
    address->grh.dgid = gid;
    address->grh.sgid_index = (uint8_t)gid_index;
    address->grh.hop_limit = 64;
    address->grh.flow_label = 0;
    address->grh.traffic_class = 0;
}

SV_EXPORT struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *address)
{
    static struct ibv_ah *(*real)(struct ibv_pd *, struct ibv_ah_attr *);
    if (NULL == real) {
        *(void **)&real = sv_verbs_real("ibv_create_ah");
        if (NULL == real) {
            errno = ENOSYS;
            return NULL;
        }
    }
    struct ibv_ah_attr changed = *address;
    if (enabled && is_adapted(pd->context)) {
        address_by_gid(pd->context, &changed);
    }
    /* ibv_create_ah copies the attributes (libibverbs keeps no pointer to them) */
    return sv_ledger_note(SV_VERBS_AH, pd->context, real(pd, &changed));
}

SV_EXPORT int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attributes, int mask)
{
    static int (*real)(struct ibv_qp *, struct ibv_qp_attr *, int);
    if (NULL == real) {
        *(void **)&real = sv_verbs_real("ibv_modify_qp");
        if (NULL == real) {
            return ENOSYS;
        }
    }
    if (enabled && (mask & IBV_QP_AV) && is_adapted(qp->context)) {
        struct ibv_qp_attr changed = *attributes;
        address_by_gid(qp->context, &changed.ah_attr);
        return real(qp, &changed, mask);
    }
    return real(qp, attributes, mask);
}
