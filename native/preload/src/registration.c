/* SPDX-License-Identifier: Apache-2.0 */
#include "registration.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct sv_registration live = {.next = &live, .previous = &live};
static struct sv_registration *free_registrations;
static uint32_t live_count, window_count, next_id;

static struct sv_registration *take(void)
{
    struct sv_registration *r = free_registrations;
    if (sv_unlikely(NULL == r)) {
        enum { SLAB = 64 };
        r = calloc(SLAB, sizeof(*r));
        if (NULL == r) {
            return NULL;
        }
        for (int i = 0; i < SLAB - 1; i++) {
            r[i].next = &r[i + 1];
        }
    }
    free_registrations = r->next;
    return r;
}

static void give_back(struct sv_registration *r)
{
    r->next = free_registrations;
    free_registrations = r;
}

static inline sv_endpoint_t *openib_endpoint(sv_endpoint_t *endpoint)
{
    return MCA_BTL_ENDPOINT_ANY == endpoint || NULL == endpoint ? MCA_BTL_ENDPOINT_ANY : endpoint->openib;
}

sv_handle_t *sv_registration_make(mca_btl_base_module_t *module, sv_endpoint_t *endpoint, void *base, size_t size,
                                  uint32_t flags)
{
    struct sv_registration *r = take();
    sv_handle_t *real = NULL;
    if (sv_unlikely(NULL == r)) {
        return NULL;
    }
    /* Without a card a handle has no real part: never NULL, the PML would retry for ever. */
    if (sv_likely(NULL != sv_proxy.openib)) {
        real = sv_proxy.openib->btl_register_mem(sv_proxy.openib, openib_endpoint(endpoint), base, size, flags);
        if (sv_unlikely(NULL == real)) {
            give_back(r);
            return NULL;
        }
    }
    r->handle.owner = sv_proxy.rank;
    r->handle.id = ++next_id;
    r->handle.epoch = real ? sv_proxy.epoch : 0;
    r->handle.reserved = 0;
    if (real) {
        memcpy(r->handle.real, real, sv_proxy.openib->btl_registration_handle_size);
    }
    r->real = real;
    r->base = base;
    r->size = size;
    r->flags = flags;
    r->endpoint = endpoint;
    r->next = &live;
    r->previous = live.previous;
    live.previous->next = r;
    live.previous = r;
    live_count++;
    window_count += 0 != (flags & MCA_BTL_REG_FLAG_REMOTE_ATOMIC);
    return &r->handle;
}

int sv_registration_release(mca_btl_base_module_t *module, sv_handle_t *handle)
{
    struct sv_registration *r = (struct sv_registration *)(void *)handle;
    if (r->real && sv_proxy.openib) {
        sv_proxy.openib->btl_deregister_mem(sv_proxy.openib, r->real);
    }
    r->previous->next = r->next;
    r->next->previous = r->previous;
    live_count--;
    window_count -= 0 != (r->flags & MCA_BTL_REG_FLAG_REMOTE_ATOMIC);
    give_back(r);
    return OPAL_SUCCESS;
}

uint32_t sv_registration_count(void)
{
    return live_count;
}

uint32_t sv_registration_windows(void)
{
    return window_count;
}

void sv_registration_drop_all(void)
{
    for (struct sv_registration *r = live.next; r != &live; r = r->next) {
        if (r->real) {
            sv_proxy.openib->btl_deregister_mem(sv_proxy.openib, r->real);
            r->real = NULL;
        }
    }
}

int sv_registration_renew_all(void)
{
    for (struct sv_registration *r = live.next; r != &live; r = r->next) {
        if (r->real) {
            continue;
        }
        r->real = sv_proxy.openib->btl_register_mem(sv_proxy.openib, openib_endpoint(r->endpoint), r->base, r->size,
                                                    r->flags);
        if (NULL == r->real) {
            return -ENOMEM;
        }
        memcpy(r->handle.real, r->real, sv_proxy.openib->btl_registration_handle_size);
        r->handle.epoch = sv_proxy.epoch;
    }
    return 0;
}

uint32_t sv_registration_list(sv_handle_t *handles, uint32_t count)
{
    uint32_t n = 0;
    for (struct sv_registration *r = live.next; r != &live; r = r->next, n++) {
        if (n < count) {
            handles[n] = r->handle;
        }
    }
    return n;
}

/* ---- handles of the other ranks: open addressing on (owner, id) ---- */

static struct {
    sv_handle_t *slots;
    uint32_t mask, used;
} remote;

static inline uint32_t slot_of(uint32_t owner, uint32_t id)
{
    uint64_t h = ((uint64_t)owner << 32 | id) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(h >> 32) & remote.mask;
}

int sv_registration_remote_reset(uint32_t expected)
{
    uint32_t size = 16;
    while (size < 2 * expected) {
        size *= 2;
    }
    sv_handle_t *slots = calloc(size, sizeof(*slots));
    if (NULL == slots) {
        return -ENOMEM;
    }
    free(remote.slots);
    remote.slots = slots;
    remote.mask = size - 1;
    remote.used = 0;
    return 0;
}

int sv_registration_remote_add(const sv_handle_t *handle)
{
    if (0 == handle->id || remote.used > remote.mask / 2 + 1) {
        return -EINVAL;
    }
    uint32_t i = slot_of(handle->owner, handle->id);
    while (remote.slots[i].id) {
        i = (i + 1) & remote.mask;
    }
    remote.slots[i] = *handle;
    remote.used++;
    return 0;
}

sv_handle_t *sv_registration_translate(const sv_endpoint_t *endpoint, const sv_handle_t *handle, sv_handle_t *room)
{
    if (NULL == remote.slots) {
        return NULL;
    }
    for (uint32_t i = slot_of(handle->owner, handle->id); remote.slots[i].id; i = (i + 1) & remote.mask) {
        const sv_handle_t *known = &remote.slots[i];
        if (known->owner == handle->owner && known->id == handle->id) {
            if (known->epoch != endpoint->owner_epoch) {
                return NULL;
            }
            *room = *known;
            return (sv_handle_t *)room->real;
        }
    }
    return NULL;
}
