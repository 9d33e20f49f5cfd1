/* SPDX-License-Identifier: Apache-2.0 */
#include "modex.h"

#include "proxy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static opal_pmix_base_module_put_fn_t real_put;
static opal_pmix_base_module_get_fn_t real_get;
static const char prefix[] = "btl.openib";

struct blob {
    void *bytes;
    size_t size;
};
static struct blob own, *peers; /* peers: by rank, NULL before the second epoch */

static int store(struct blob *blob, const void *bytes, size_t size)
{
    void *copy = malloc(size ? size : 1);
    if (NULL == copy) {
        return -ENOMEM;
    }
    memcpy(copy, bytes, size);
    free(blob->bytes);
    blob->bytes = copy;
    blob->size = size;
    return 0;
}

static int put(opal_pmix_scope_t scope, opal_value_t *value)
{
    if (value->key && 0 == strncmp(value->key, prefix, sizeof(prefix) - 1)) {
        if (store(&own, value->data.bo.bytes, value->data.bo.size)) {
            return OPAL_ERR_OUT_OF_RESOURCE;
        }
        if (sv_proxy.epoch > 1) {
            return OPAL_SUCCESS; /* goes over the board */
        }
    }
    return real_put(scope, value);
}

static int get(const opal_process_name_t *name, const char *key, opal_list_t *info, opal_value_t **answer)
{
    if (peers && key && name && name->jobid == sv_proxy.jobid && name->vpid < sv_proxy.world_size &&
        peers[name->vpid].bytes && 0 == strncmp(key, prefix, sizeof(prefix) - 1)) {
        const struct blob *blob = &peers[name->vpid];
        opal_value_t *value = sv_opal_new_value();
        if (NULL == value) {
            return OPAL_ERR_OUT_OF_RESOURCE;
        }
        value->key = strdup(key);
        value->type = OPAL_BYTE_OBJECT;
        value->data.bo.size = (int32_t)blob->size;
        value->data.bo.bytes = malloc(blob->size ? blob->size : 1);
        if (value->data.bo.bytes) {
            memcpy(value->data.bo.bytes, blob->bytes, blob->size);
        }
        *answer = value;
        return OPAL_SUCCESS;
    }
    return real_get(name, key, info, answer);
}

void sv_modex_interpose(void)
{
    real_put = sv_opal.pmix->put;
    real_get = sv_opal.pmix->get;
    sv_opal.pmix->put = put;
    sv_opal.pmix->get = get;
}

const void *sv_modex_own(size_t *size)
{
    *size = own.size;
    return own.bytes;
}

int sv_modex_set_peer(uint32_t rank, const void *bytes, size_t size)
{
    if (NULL == peers) {
        peers = calloc(sv_proxy.world_size, sizeof(*peers));
        if (NULL == peers) {
            return -ENOMEM;
        }
    }
    return rank < sv_proxy.world_size ? store(&peers[rank], bytes, size) : -EINVAL;
}
