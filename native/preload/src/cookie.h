/* SPDX-License-Identifier: Apache-2.0 */
/* What a completion of the PML needs while the proxy's own stands in its place. */
#ifndef SV_COOKIE_H
#define SV_COOKIE_H

#include "proxy.h"

struct sv_cookie {
    union {
        mca_btl_base_completion_fn_t callback;
        mca_btl_base_rdma_completion_fn_t rdma_callback;
    };
    void *data, *context;
    sv_handle_t *local_handle;
    sv_endpoint_t *endpoint;
    struct sv_cookie *next;
    unsigned sequence; /* grows when the cookie is returned */
    int via;
    bool btl_owns;
};

extern SV_HIDDEN struct sv_cookie *sv_free_cookies;
bool sv_cookie_more(void);

/* NULL when there is no memory. */
static inline struct sv_cookie *sv_cookie_get(void)
{
    if (sv_unlikely(NULL == sv_free_cookies) && !sv_cookie_more()) {
        return NULL;
    }
    struct sv_cookie *cookie = sv_free_cookies;
    sv_free_cookies = cookie->next;
    return cookie;
}

static inline void sv_cookie_put(struct sv_cookie *cookie)
{
    cookie->sequence++; /* whoever remembers the old number sees that it is over */
    cookie->next = sv_free_cookies;
    sv_free_cookies = cookie;
}

/* Completion of put, get and atomics, of the card and of their emulation alike. */
void sv_rdma_done(mca_btl_base_module_t *module, sv_endpoint_t *real, void *local_address, sv_handle_t *local_handle,
                  void *context, void *data, int status);

#endif
