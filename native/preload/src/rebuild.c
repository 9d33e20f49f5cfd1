/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild.h"

#include "agent_link.h"
#include "board.h"
#include "join.h"
#include "modex.h"
#include "openib.h"
#include "proxy.h"
#include "registration.h"
#include "status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned attempt;

void sv_rebuild_attempt(unsigned number)
{
    attempt = number;
}

const char *sv_rebuild_key(const char *part)
{
    static char key[SV_WIRE_KEY];
    if (0 == attempt) {
        return part;
    }
    snprintf(key, sizeof(key), "%s.%u", part, attempt);
    return key;
}

struct opened_post {
    int32_t error;
    uint32_t size; /* of the blob that follows */
};
struct handles_post {
    int32_t error;
    uint32_t epoch, count, reserved;
};

/* The first rank whose post says it failed, or -1; a post too short counts as a failure. */
static int64_t failed_rank(const struct sv_board_set *set, size_t least)
{
    for (uint32_t i = 0; i < set->world_size; i++) {
        int32_t error = -EPROTO;
        if (set->part[i].size >= least) {
            memcpy(&error, set->part[i].bytes, sizeof(error));
        }
        if (error) {
            return i;
        }
    }
    return -1;
}

static int post_blob(int error, bool keeps)
{
    size_t size = 0;
    const void *blob = error || keeps ? NULL : sv_modex_own(&size);
    struct opened_post *post = malloc(sizeof(*post) + size);
    if (NULL == post) {
        return -ENOMEM;
    }
    post->error = error;
    post->size = (uint32_t)size;
    if (size) {
        memcpy(post + 1, blob, size);
    }
    const int rc = sv_link_post(sv_handled_cycle, sv_handled_step, sv_rebuild_key("blob"), post, sizeof(*post) + size);
    free(post);
    return rc;
}

static int take_blobs(const struct sv_board_set *set)
{
    for (uint32_t i = 0; i < set->world_size; i++) {
        struct opened_post post;
        memcpy(&post, set->part[i].bytes, sizeof(post));
        /* none: the card it has stays open, and what is known of it true */
        if (post.size != set->part[i].size - sizeof(post) ||
            (post.size && sv_modex_set_peer(i, set->part[i].bytes + sizeof(post), post.size))) {
            snprintf(sv_status.detail, sizeof(sv_status.detail), "the address card of rank %u is damaged", i);
            return -EPROTO;
        }
    }
    return 0;
}

static int post_handles(int error)
{
    const uint32_t count = error ? 0 : sv_registration_list(NULL, 0);
    const size_t size = sizeof(struct handles_post) + count * sizeof(sv_handle_t);
    struct handles_post *post = malloc(size);
    if (NULL == post) {
        return -ENOMEM;
    }
    *post = (struct handles_post){.error = error, .epoch = sv_proxy.epoch, .count = count};
    sv_registration_list((sv_handle_t *)(post + 1), count);
    const int rc = sv_link_post(sv_handled_cycle, sv_handled_step, sv_rebuild_key("handles"), post, size);
    free(post);
    return rc;
}

static int take_handles(const struct sv_board_set *set)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < set->world_size; i++) {
        total += set->part[i].size / sizeof(sv_handle_t) + 1;
    }
    if (sv_registration_remote_reset((uint32_t)total)) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < set->world_size; i++) {
        struct handles_post post;
        memcpy(&post, set->part[i].bytes, sizeof(post));
        if (post.count != (set->part[i].size - sizeof(post)) / sizeof(sv_handle_t)) {
            return -EPROTO;
        }
        for (uint32_t k = 0; k < post.count; k++) {
            sv_handle_t handle;
            memcpy(&handle, set->part[i].bytes + sizeof(post) + k * sizeof(handle), sizeof(handle));
            if (sv_registration_remote_add(&handle)) {
                return -EPROTO;
            }
        }
        sv_endpoint_set_epoch(i, post.epoch);
    }
    return 0;
}

static const struct sv_board_set *set_of(const char *part)
{
    return sv_board_ready(sv_handled_cycle, sv_handled_step, sv_rebuild_key(part));
}

void sv_rebuild_post_joined(int error)
{
    const int32_t post = error;
    sv_link_post(sv_handled_cycle, sv_handled_step, sv_rebuild_key("joined"), &post, sizeof(post));
}

int sv_rebuild_joined(int rc)
{
    const int64_t failed = failed_rank(set_of("joined"), sizeof(int32_t));
    if (0 == rc && failed >= 0) {
        snprintf(sv_status.detail, sizeof(sv_status.detail), "openib of rank %lld did not connect", (long long)failed);
        rc = -ECANCELED;
    }
    return rc;
}

int sv_rebuild_open(void)
{
    const uint64_t start = sv_now_us();
    sv_join_listen();
    int rc = sv_openib_open(sv_status.detail, sizeof(sv_status.detail));
    sv_status.timing_us[SV_TIMING_LOAD] = sv_since(start);
    const int posted = post_blob(rc, false);
    if (0 == rc && posted) {
        snprintf(sv_status.detail, sizeof(sv_status.detail), "posting the address card: %s", strerror(-posted));
        rc = posted;
        post_blob(rc, false); /* the others must hear of it, not wait */
    }
    return rc;
}

int sv_rebuild_keep(void)
{
    sv_join_listen();
    return post_blob(0, true);
}

int sv_rebuild_connect(int rc)
{
    const struct sv_board_set *set = set_of("blob");
    const uint64_t start = sv_now_us();
    const int64_t failed = failed_rank(set, sizeof(struct opened_post));
    if (0 == rc && failed >= 0) {
        snprintf(sv_status.detail, sizeof(sv_status.detail), "rank %lld could not open its card", (long long)failed);
        rc = -ECANCELED;
    }
    if (rc || (rc = take_blobs(set))) {
        return rc;
    }
    sv_receive_attach(sv_proxy.openib);
    rc = sv_endpoint_connect_openib(sv_status.detail, sizeof(sv_status.detail));
    if (0 == rc && (rc = sv_registration_renew_all())) {
        snprintf(sv_status.detail, sizeof(sv_status.detail), "registering live memory again: %s", strerror(-rc));
    }
    const int listed = post_handles(rc);
    if (0 == rc && listed) {
        snprintf(sv_status.detail, sizeof(sv_status.detail), "posting %u live registrations: %s",
                 sv_registration_count(), strerror(-listed));
        rc = listed;
        post_handles(rc);
    }
    sv_status.timing_us[SV_TIMING_CONNECT] = sv_since(start);
    return rc;
}

bool sv_rebuild_handles_failed(void)
{
    return failed_rank(set_of("handles"), sizeof(struct handles_post)) >= 0;
}

int sv_rebuild_adopt(int rc)
{
    const struct sv_board_set *set = set_of("handles");
    const int64_t failed = failed_rank(set, sizeof(struct handles_post));
    if (0 == rc && failed >= 0) {
        snprintf(sv_status.detail, sizeof(sv_status.detail), "rank %lld could not connect over its card",
                 (long long)failed);
        rc = -ECANCELED;
    }
    if (0 == rc && (rc = take_handles(set))) {
        snprintf(sv_status.detail, sizeof(sv_status.detail), "the registrations on the board are damaged");
    }
    if (0 == rc) {
        sv_proxy_copy_limits();
    }
    return rc;
}

void sv_rebuild_take_back(void)
{
    char rest[160];
    int open_count;
    sv_proxy.polling = false;
    sv_openib_close(rest, sizeof(rest), &open_count);
    sv_status.open_descriptors = (uint32_t)open_count;
}
