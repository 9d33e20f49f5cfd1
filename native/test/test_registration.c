/* SPDX-License-Identifier: Apache-2.0 */
#include "registration.h"
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- a real module that gives out 8-byte handles, as openib does ---- */

enum { REAL_SIZE = 8 };
static int registered_count, fail_after = -1;
static uint64_t next_key = 1000;
static sv_endpoint_t *last_endpoint;

static sv_handle_t *fake_register(mca_btl_base_module_t *module, sv_endpoint_t *endpoint, void *base, size_t size,
                                  uint32_t flags)
{
    if (0 == fail_after) {
        return NULL;
    }
    fail_after -= fail_after > 0;
    registered_count++;
    last_endpoint = endpoint;
    uint64_t *real = malloc(REAL_SIZE);
    *real = next_key++;
    return (sv_handle_t *)(void *)real;
}

static int fake_deregister(mca_btl_base_module_t *module, sv_handle_t *handle)
{
    registered_count--;
    free(handle);
    return OPAL_SUCCESS;
}

static mca_btl_base_module_t fake = {
    .btl_register_mem = fake_register,
    .btl_deregister_mem = fake_deregister,
    .btl_registration_handle_size = REAL_SIZE,
};

static void with_card(uint32_t epoch)
{
    sv_proxy.openib = &fake;
    sv_proxy.epoch = epoch;
    sv_proxy.rank = 3;
}

static sv_handle_t *make(void *base, size_t size)
{
    return sv_registration_make(&sv_proxy.module, MCA_BTL_ENDPOINT_ANY, base, size, 0);
}

static uint64_t key_of(const sv_handle_t *handle)
{
    uint64_t key;
    memcpy(&key, handle->real, sizeof(key));
    return key;
}

CASE(made_on_a_card)
{
    char memory[64];
    sv_endpoint_t inner = {.peer = 1}, peer = {.peer = 1, .openib = &inner};
    with_card(7);
    sv_handle_t *one = make(memory, sizeof(memory));
    CHECK(MCA_BTL_ENDPOINT_ANY == last_endpoint);
    sv_handle_t *two = sv_registration_make(&sv_proxy.module, &peer, memory, 8, 0);
    CHECK(&inner == last_endpoint);
    CHECK_EQ(one->owner, 3);
    CHECK_EQ(one->epoch, 7);
    CHECK(one->id != 0 && one->id != two->id);
    CHECK_EQ(key_of(one), 1000);
    CHECK_EQ(key_of(two), 1001);
    CHECK_EQ(sv_registration_count(), 2);
    CHECK_EQ(sv_registration_release(&sv_proxy.module, one), OPAL_SUCCESS);
    CHECK_EQ(sv_registration_release(&sv_proxy.module, two), OPAL_SUCCESS);
    CHECK_EQ(registered_count, 0);
    CHECK_EQ(sv_registration_count(), 0);
}

CASE(a_card_that_refuses)
{
    char memory[64];
    with_card(1);
    fail_after = 0;
    CHECK(NULL == make(memory, sizeof(memory)));
    CHECK_EQ(sv_registration_count(), 0);
    fail_after = -1;
    sv_handle_t *handle = make(memory, sizeof(memory));
    CHECK(NULL != handle);
    sv_registration_release(&sv_proxy.module, handle);
    CHECK_EQ(registered_count, 0);
}

CASE(drop_and_renew)
{
    static char memory[200][16];
    sv_handle_t *handles[200], listed[200];
    with_card(1);
    for (int i = 0; i < 200; i++) {
        handles[i] = make(memory[i], 16);
    }
    const uint32_t id = handles[17]->id;
    sv_registration_drop_all();
    CHECK_EQ(registered_count, 0);
    CHECK_EQ(sv_registration_count(), 200);
    CHECK(NULL == sv_registration_real(handles[17]));
    sv_proxy.openib = NULL;

    /* released and made while there is no card */
    sv_registration_release(&sv_proxy.module, handles[5]);
    handles[5] = make(memory[5], 16);
    CHECK_EQ(handles[5]->epoch, 0);

    with_card(2);
    CHECK_EQ(sv_registration_renew_all(), 0);
    CHECK_EQ(registered_count, 200);
    CHECK_EQ(handles[17]->id, id); /* the PML's pointer and the peers' number stay */
    CHECK_EQ(handles[17]->epoch, 2);
    CHECK_EQ(handles[5]->epoch, 2);
    CHECK(key_of(handles[17]) >= 1200);
    CHECK_EQ(sv_registration_list(NULL, 0), 200);
    CHECK_EQ(sv_registration_list(listed, 200), 200);
    for (int i = 0; i < 200; i++) {
        CHECK_EQ(listed[i].epoch, 2);
        CHECK_EQ(listed[i].owner, 3);
    }
    CHECK_EQ(sv_registration_renew_all(), 0); /* nothing left to do */
    CHECK_EQ(registered_count, 200);
    for (int i = 0; i < 200; i++) {
        sv_registration_release(&sv_proxy.module, handles[i]);
    }
    CHECK_EQ(registered_count, 0);
    CHECK_EQ(sv_registration_list(NULL, 0), 0);
}

CASE(renewal_that_stops_half_way)
{
    static char memory[10][16];
    with_card(1);
    for (int i = 0; i < 10; i++) {
        make(memory[i], 16);
    }
    sv_registration_drop_all();
    sv_proxy.epoch = 2;
    fail_after = 4;
    CHECK_EQ(sv_registration_renew_all(), -ENOMEM);
    CHECK_EQ(registered_count, 4);
    sv_registration_drop_all(); /* what taking the re-init back does */
    CHECK_EQ(registered_count, 0);
    fail_after = -1;
    sv_proxy.epoch = 3;
    CHECK_EQ(sv_registration_renew_all(), 0);
    CHECK_EQ(registered_count, 10);
    sv_registration_drop_all();
}

static void fill(sv_handle_t *handle, uint32_t owner, uint32_t id, uint32_t epoch)
{
    memset(handle, 0, sizeof(*handle));
    handle->owner = owner;
    handle->id = id;
    handle->epoch = epoch;
    const uint64_t key = (uint64_t)owner << 32 | id;
    memcpy(handle->real, &key, sizeof(key));
}

CASE(translation)
{
    enum { OWNERS = 7, IDS = 3000 };
    sv_handle_t handle, room;
    CHECK_EQ(sv_registration_remote_reset(OWNERS * IDS), 0);
    for (uint32_t owner = 0; owner < OWNERS; owner++) {
        for (uint32_t id = 1; id <= IDS; id++) {
            fill(&handle, owner, id, 5);
            CHECK_EQ(sv_registration_remote_add(&handle), 0);
        }
    }
    for (uint32_t owner = 0; owner < OWNERS; owner++) {
        const sv_endpoint_t peer = {.peer = owner, .owner_epoch = 5}, late = {.peer = owner, .owner_epoch = 6};
        for (uint32_t id = 1; id <= IDS; id++) {
            uint64_t key = 0;
            fill(&handle, owner, id, 2); /* as it was sent three epochs ago */
            const sv_handle_t *real = sv_registration_translate(&peer, &handle, &room);
            CHECK(NULL != real);
            memcpy(&key, real, sizeof(key));
            CHECK_EQ(key, (uint64_t)owner << 32 | id);
            CHECK(NULL == sv_registration_translate(&late, &handle, &room));
        }
        fill(&handle, owner, IDS + 1, 5);
        CHECK(NULL == sv_registration_translate(&peer, &handle, &room));
        fill(&handle, owner + OWNERS, 1, 5);
        CHECK(NULL == sv_registration_translate(&peer, &handle, &room));
    }
}

/* Every id in one small table: most of them collide, the scan for a missing one must still end. */
CASE(translation_with_collisions)
{
    sv_handle_t handle, room;
    const sv_endpoint_t peer = {.owner_epoch = 1};
    CHECK_EQ(sv_registration_remote_reset(8), 0);
    for (uint32_t id = 1; id <= 8; id++) {
        fill(&handle, 0, id * 0x10000, 1);
        CHECK_EQ(sv_registration_remote_add(&handle), 0);
    }
    for (uint32_t id = 1; id <= 8; id++) {
        fill(&handle, 0, id * 0x10000, 1);
        CHECK(NULL != sv_registration_translate(&peer, &handle, &room));
    }
    for (uint32_t id = 1; id <= 5000; id++) {
        fill(&handle, 1, id, 1);
        CHECK(NULL == sv_registration_translate(&peer, &handle, &room));
    }
}

/* A board that holds more than was announced must not fill the table: a lookup would never end. */
CASE(translation_table_never_fills)
{
    sv_handle_t handle, room;
    const sv_endpoint_t peer = {.owner_epoch = 1};
    int refused = 0;
    CHECK_EQ(sv_registration_remote_reset(4), 0);
    for (uint32_t id = 1; id <= 100; id++) {
        fill(&handle, 0, id, 1);
        refused += 0 != sv_registration_remote_add(&handle);
    }
    CHECK(refused >= 84);
    fill(&handle, 9, 9, 1);
    CHECK(NULL == sv_registration_translate(&peer, &handle, &room));
    fill(&handle, 0, 0, 1);
    CHECK_EQ(sv_registration_remote_add(&handle), -EINVAL);
}

CASE(translation_reset)
{
    sv_handle_t handle, room;
    const sv_endpoint_t peer = {.owner_epoch = 1};
    fill(&handle, 0, 1, 1);
    CHECK(NULL == sv_registration_translate(&peer, &handle, &room)); /* before the first cycle */
    CHECK_EQ(sv_registration_remote_reset(1), 0);
    CHECK_EQ(sv_registration_remote_add(&handle), 0);
    CHECK(NULL != sv_registration_translate(&peer, &handle, &room));
    CHECK_EQ(sv_registration_remote_reset(0), 0);
    CHECK(NULL == sv_registration_translate(&peer, &handle, &room));
}
