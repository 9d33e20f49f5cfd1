/* SPDX-License-Identifier: Apache-2.0 */
#include "start.h"

#include "openib.h"
#include "proxy.h"
#include "status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char key[] = "symvirt.port";

int sv_start_announce(bool has_port)
{
    opal_value_t *value = sv_opal_new_value();
    if (NULL == value) {
        return -ENOMEM;
    }
    value->key = strdup(key);
    value->type = OPAL_BOOL;
    value->data.flag = has_port;
    const int rc = value->key ? sv_opal.pmix->put(OPAL_PMIX_GLOBAL, value) : OPAL_ERR_OUT_OF_RESOURCE;
    sv_opal_free_value(value);
    return OPAL_SUCCESS == rc ? 0 : -EIO;
}

/* A rank that says nothing is not ours, and uses what it has. */
static bool lacks_port(uint32_t rank)
{
    const opal_process_name_t name = {.jobid = sv_proxy.jobid, .vpid = rank};
    opal_value_t *value = NULL;
    if (OPAL_SUCCESS != sv_opal.pmix->get(&name, key, NULL, &value) || NULL == value) {
        return false;
    }
    const bool lacks = OPAL_BOOL == value->type && !value->data.flag;
    sv_opal_free_value(value);
    return lacks;
}

/* The first rank without a port, or -1. */
static int64_t first_without(void)
{
    if (NULL == sv_proxy.openib) {
        return sv_proxy.rank;
    }
    for (uint32_t rank = 0; rank < sv_proxy.world_size; rank++) {
        if (rank != sv_proxy.rank && lacks_port(rank)) {
            return rank;
        }
    }
    return -1;
}

void sv_start_decide(void)
{
    char why[256];
    int open_count = 0;
    sv_proxy.undecided = false;
    const int64_t without = first_without();
    if (without < 0) {
        return;
    }
    if (0 == sv_proxy.tcp_count) {
        sv_error("rank %lld has no port, and this one has no tcp to reach it", (long long)without);
        return;
    }
    snprintf(sv_status.detail, sizeof(sv_status.detail), "began over tcp: rank %lld had no port",
             (long long)without);
    sv_proxy.polling = false;
    if (sv_openib_close(why, sizeof(why), &open_count)) {
        sv_error("the card is not released: %s", why);
    }
    sv_status.open_descriptors = (uint32_t)open_count;
    sv_proxy.via = SV_VIA_TCP;
    sv_proxy.began_bare = true;
    sv_proxy_build(sv_openib_defaults(), &sv_proxy.component);
    sv_proxy_copy_limits();
    sv_info("%s", sv_status.detail);
}
