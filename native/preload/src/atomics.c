/* SPDX-License-Identifier: Apache-2.0 */
#include "atomics.h"

#include <stdlib.h>

int sv_atomics_waiting;
static struct sv_atomic *first, **last = &first;

int sv_atomics_defer(const struct sv_atomic *atomic)
{
    struct sv_atomic *copy = malloc(sizeof(*copy));
    if (NULL == copy) {
        return OPAL_ERR_OUT_OF_RESOURCE;
    }
    *copy = *atomic;
    copy->next = NULL;
    *last = copy;
    last = &copy->next;
    sv_atomics_waiting++;
    return OPAL_SUCCESS;
}

static bool try_later(int rc)
{
    return OPAL_ERR_OUT_OF_RESOURCE == rc || OPAL_ERR_TEMP_OUT_OF_RESOURCE == rc || OPAL_ERR_RESOURCE_BUSY == rc;
}

void sv_atomics_retry(void)
{
    while (first && !sv_proxy.hold_atomics) {
        /* out of the list before it begins: a completion may come from inside, and with it this function */
        struct sv_atomic *a = first;
        first = a->next;
        if (NULL == first) {
            last = &first;
        }
        const int rc = sv_proxy_atomic(a);
        if (try_later(rc)) {
            a->next = first;
            first = a;
            if (NULL == a->next) {
                last = &a->next;
            }
            return;
        }
        sv_atomics_waiting--;
        if (OPAL_SUCCESS != rc) { /* 1: done, and the BTL calls nobody; or it will never be done */
            a->callback(&sv_proxy.module, a->endpoint, a->local_address, a->local_handle, a->context, a->data,
                        rc < 0 ? rc : OPAL_SUCCESS);
        }
        free(a);
    }
}
