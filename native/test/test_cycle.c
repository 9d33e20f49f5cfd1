/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank's part of a cycle against a scripted host. The link, the board and openib are fakes in this
 * process: whenever the rank waits (for the link or in opal_progress), the test's `host` gets its turn,
 * so there are no threads and no time in it.
 */
#include "agent_link.h"
#include "arrivals.h"
#include "board.h"
#include "check.h"
#include "cycle.h"
#include "join.h"
#include "live.h"
#include "modex.h"
#include "openib.h"
#include "proxy.h"
#include "registration.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORLD = 3, CYCLE = 4 };

/* ---- what the rank has said and what the host says ---- */

static struct sv_msg_state last;
static char history[1024]; /* "state/step " of everything published in the cycle */
static char posts[1024];   /* "key/step " */
static struct sv_want wanted;
static uint64_t silence;
static void (*host)(void);
static unsigned turns;

static struct {
    char key[SV_WIRE_KEY];
    uint32_t step;
    unsigned char *bytes;
    size_t size;
} post;

static const char *name_of(uint32_t what)
{
    static const char *const names[] = {"init", "running", "draining", "closing", "parked", "opening", "failed", "inert", "held"};
    return names[what];
}

static void append(char *list, size_t room, const char *word, uint32_t step)
{
    const size_t used = strlen(list);
    snprintf(list + used, room - used, "%s/%u ", word, step);
}

static struct sv_ranks moving; /* in all wants of a test */

static void want(uint32_t step, uint32_t phase, uint32_t flags)
{
    wanted = (struct sv_want){.cycle = CYCLE, .step = step, .phase = phase, .flags = flags, .arrived_us = sv_now_us()};
    wanted.moving = moving;
    atomic_store(&sv_pending, 1);
}

static void turn(void)
{
    CHECK(++turns < 20000); /* the rank waits for what will not come */
    if (host) {
        host();
    }
}

bool sv_link_available(void)
{
    return true;
}

static struct sv_msg_hello hello;
static int started, stopped;
int sv_link_start(const struct sv_msg_hello *h)
{
    hello = *h;
    started++;
    return 0;
}

void sv_link_announce_inert(const struct sv_msg_hello *h)
{
    hello = *h;
}

void sv_link_stop(void)
{
    stopped++;
}

bool sv_link_want(uint32_t cycle, uint32_t step, struct sv_want *w)
{
    if (wanted.cycle > cycle || (wanted.cycle == cycle && wanted.step > step)) {
        *w = wanted;
        return true;
    }
    return false;
}

void sv_link_state(const struct sv_msg_state *state)
{
    last = *state;
    if (CYCLE == state->h.cycle) {
        append(history, sizeof(history), name_of(state->state), state->h.step);
    }
}

static int joins_told;
int sv_link_post(uint32_t cycle, uint32_t step, const char *key, const void *bytes, size_t size)
{
    if (size > SV_WIRE_MAX_POST) {
        return -EMSGSIZE;
    }
    if (0 == strcmp(key, "join")) { /* beside the sets that lead on: nobody waits for it */
        joins_told++;
        return 0;
    }
    CHECK_EQ(cycle, CYCLE);
    free(post.bytes);
    post.bytes = malloc(size ? size : 1);
    memcpy(post.bytes, bytes, size);
    post.size = size;
    post.step = step;
    strcpy(post.key, key);
    append(posts, sizeof(posts), key, step);
    return 0;
}

void sv_link_wait(uint32_t microseconds)
{
    turn();
}

uint64_t sv_link_silence_ms(void)
{
    return silence;
}

static char logged[256];
void sv_link_log(int level, const char *text)
{
    CHECK_EQ(level, SV_LOG_WARN);
    snprintf(logged, sizeof(logged), "%s", text);
}

/* ---- the board: the other ranks' parts ---- */

struct drain_part {
    uint64_t sent, received, outstanding, in_hand;
};
struct opened_part {
    int32_t error;
    uint32_t size;
    char blob[8];
};
struct handles_part {
    int32_t error;
    uint32_t epoch, count, reserved;
    sv_handle_t handle[1];
};

/* What rank 1 and 2 answer; a test changes what it is about. */
static struct drain_part drains[WORLD][16]; /* by round; the last one said is repeated */
static unsigned drain_rounds;
static struct opened_part opened[WORLD];
static struct handles_part handles[WORLD];
static size_t drain_size = sizeof(struct drain_part), opened_size = sizeof(struct opened_part),
              handles_size = sizeof(struct handles_part);
static bool keeps[WORLD]; /* has no new address card */
static int32_t joined[WORLD]; /* what the others say of their connections */
static const char *withheld = "none"; /* the host does not complete sets of this key */

static struct sv_board_set *set;

static void put_part(uint32_t rank, const void *bytes, size_t size)
{
    set->part[rank].bytes = malloc(size ? size : 1);
    memcpy(set->part[rank].bytes, bytes, size);
    set->part[rank].size = (uint32_t)size;
}

static void free_set(void)
{
    for (uint32_t i = 0; set && i < WORLD; i++) {
        free(set->part[i].bytes);
    }
    free(set);
    set = NULL;
}

const struct sv_board_set *sv_board_ready(uint32_t cycle, uint32_t step, const char *key)
{
    if (0 != strcmp(post.key, key) || post.step != step || 0 == strncmp(key, withheld, strlen(withheld))) {
        return NULL;
    }
    free_set();
    set = calloc(1, sizeof(*set) + WORLD * sizeof(set->part[0]));
    set->world_size = WORLD;
    put_part(0, post.bytes, post.size);
    for (uint32_t r = 1; r < WORLD; r++) {
        if (0 == strncmp(key, "drain.", 6)) {
            unsigned round = (unsigned)atoi(key + 6);
            put_part(r, &drains[r][round < drain_rounds ? round : drain_rounds], drain_size);
        } else if (0 == strncmp(key, "blob", 4)) {
            put_part(r, &opened[r], keeps[r] ? 8 : opened_size);
        } else if (0 == strncmp(key, "handles", 7)) {
            put_part(r, &handles[r], handles_size);
        } else if (0 == strncmp(key, "joined", 6)) {
            static const int32_t well;
            put_part(r, '\0' == key[6] ? &joined[r] : &well, sizeof(well));
        } else if (0 == strcmp(key, "flip") || 0 == strcmp(key, "back.flip")) {
            static const uint64_t nothing_sent[WORLD];
            put_part(r, nothing_sent, sizeof(nothing_sent));
        } else {
            put_part(r, "", 0);
        }
    }
    return set;
}

void sv_board_release_before(uint32_t cycle, uint32_t step)
{
}

/* ---- openib ---- */

static int opens, closes, open_rc, left_open;
static mca_btl_base_module_t card;

static int add_procs_rc;
static int card_add_procs(mca_btl_base_module_t *m, size_t n, opal_proc_t **procs, sv_endpoint_t **real,
                          opal_bitmap_t *reachable)
{
    static struct mca_btl_base_endpoint_t inner;
    for (size_t i = 0; i < n; i++) {
        real[i] = &inner;
    }
    return add_procs_rc;
}

static int card_register_error(mca_btl_base_module_t *m, mca_btl_base_module_error_cb_fn_t callback)
{
    return 0;
}

static char registered;
static sv_handle_t *card_register(mca_btl_base_module_t *m, sv_endpoint_t *e, void *base, size_t size, uint32_t flags)
{
    return (sv_handle_t *)(void *)&registered;
}

static int card_deregister(mca_btl_base_module_t *m, sv_handle_t *h)
{
    return 0;
}

const mca_btl_base_module_t *sv_openib_defaults(void)
{
    return &card;
}

int sv_openib_open(char *why, size_t size)
{
    opens++;
    sv_proxy.epoch++;
    if (open_rc) {
        snprintf(why, size, "no usable port");
        return open_rc;
    }
    sv_proxy.openib = &card;
    return 0;
}

int sv_openib_close(char *why, size_t size, int *open_count)
{
    CHECK(!sv_proxy.polling); /* nobody polls a card that goes */
    closes += NULL != sv_proxy.openib;
    if (sv_proxy.openib) {
        sv_registration_drop_all();
        for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
            e->openib = NULL;
        }
    }
    sv_proxy.openib = NULL;
    *open_count = left_open;
    snprintf(why, size, "%s", left_open ? "fd 9 /dev/infiniband/uverbs0" : "");
    return left_open ? -EBUSY : 0;
}

static int drops;
int sv_openib_drop(const struct sv_ranks *peers, char *why, size_t size)
{
    drops++;
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (sv_ranks_has(peers, e->peer)) {
            e->openib = NULL;
            e->wants_openib = true;
        }
    }
    return 0;
}

void sv_openib_unload(void)
{
}

void sv_openib_finalize(void)
{
}

void sv_openib_end(void)
{
}

int sv_openib_take_over(const mca_btl_base_component_t *stock, char *why, size_t size)
{
    return 0;
}

void sv_join_listen(void)
{
}

static int failing_joins, joins;
void sv_join_begin(const struct sv_ranks *peers)
{
    joins++;
}

void sv_join_all_called(void)
{
}

int sv_join_state(char *why, size_t size)
{
    if (joins > failing_joins) {
        return 1;
    }
    snprintf(why, size, "openib did not connect to rank 1");
    return -ETIMEDOUT;
}

static char own_blob[8] = "mine";
static size_t own_size = sizeof(own_blob);
static void *own_big;
const void *sv_modex_own(size_t *size)
{
    *size = own_size;
    return own_big ? own_big : own_blob;
}

static char peer_blobs[WORLD][8];
int sv_modex_set_peer(uint32_t rank, const void *bytes, size_t size)
{
    CHECK(rank < WORLD);
    memcpy(peer_blobs[rank], bytes, size < 8 ? size : 8);
    return 0;
}

void sv_modex_interpose(void)
{
}

/* ---- OPAL ---- */

static void progress(void)
{
    sv_proxy_safe_point(); /* from inside a cycle: must not begin another */
    turn();
}

static int unregister(opal_progress_callback_t callback)
{
    return 0;
}

static opal_proc_t me, other;
static opal_proc_t *local_proc(void)
{
    return &me;
}

static mca_base_component_t pml = {.mca_component_name = "ob1"};
static struct mca_btl_base_endpoint_t peer;
static mca_btl_active_message_callback_t triggers[MCA_BTL_TAG_MAX];

static void set_up(void)
{
    setenv("PMIX_NAMESPACE", "123 456", 1);
    sv_opal.progress = progress;
    sv_opal.progress_unregister = unregister;
    sv_opal.selected_pml = &pml;
    sv_opal.proc_local_get = local_proc;
    sv_opal.trigger = triggers;
    card.btl_add_procs = card_add_procs;
    card.btl_register_error = card_register_error;
    card.btl_register_mem = card_register;
    card.btl_deregister_mem = card_deregister;
    card.btl_registration_handle_size = 1;
    sv_proxy.world_size = WORLD;
    sv_proxy.epoch = 1;
    sv_proxy.openib = &card;
    sv_proxy.polling = true;
    peer = (struct mca_btl_base_endpoint_t){.peer = 1, .proc = &other, .wants_openib = true, .owner_epoch = 1};
    sv_proxy.endpoints = &peer;
    for (uint32_t r = 1; r < WORLD; r++) {
        opened[r] = (struct opened_part){.size = 8};
        snprintf(opened[r].blob, 8, "rank%u", r);
        handles[r] = (struct handles_part){.epoch = 2, .count = 1, .handle = {{.owner = r, .id = 1, .epoch = 2}}};
    }
    sv_cycle_prepare("4.1.4");
    sv_cycle_step(); /* says hello */
    CHECK_EQ(started, 1);
    CHECK_EQ(last.state, SV_RANK_RUNNING);
}

static void tear_down(void)
{
    free(post.bytes);
    post.bytes = NULL;
    free_set();
}

static bool is(uint32_t what, uint32_t step)
{
    return last.state == (uint32_t)what && last.h.step == step && CYCLE == last.h.cycle;
}

static void host_runs_after_park(void)
{
    if (is(SV_RANK_PARKED, 1)) {
        want(2, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    }
}

static void check_running(uint32_t step, uint32_t epoch)
{
    CHECK(is(SV_RANK_RUNNING, step));
    CHECK_EQ(last.route, SV_ROUTE_OPENIB);
    CHECK_EQ(last.epoch, epoch);
    CHECK_EQ(last.error, 0);
    CHECK(sv_proxy.polling);
    CHECK(&card == sv_proxy.openib);
    CHECK_EQ(sv_proxy.depth, 0);
}

/* ---- cases ---- */

CASE(hello)
{
    set_up();
    CHECK_EQ(hello.world_size, WORLD);
    CHECK_EQ(hello.flags & (SV_HELLO_INERT | SV_HELLO_TCP_ONLY), 0);
    CHECK(0 == strcmp(hello.job, "123-456")); /* only letters the agent accepts */
    CHECK(0 == strcmp(hello.openmpi_version, "4.1.4"));
    sv_cycle_finalize();
    CHECK_EQ(stopped, 1);
    tear_down();
}

CASE(hello_waits_for_the_route)
{
    static mca_base_component_t ob1 = {.mca_component_name = "ob1"};
    sv_opal.selected_pml = &ob1;
    sv_proxy.undecided = true;
    sv_cycle_prepare("4.1.4");
    sv_cycle_step();
    CHECK_EQ(started, 0);
    CHECK_EQ(atomic_load(&sv_pending), 1);
    sv_proxy.undecided = false;
    sv_cycle_step();
    CHECK_EQ(started, 1);
}

CASE(hello_waits_for_the_pml)
{
    static mca_base_component_t none;
    sv_opal.selected_pml = &none;
    sv_cycle_prepare("4.1.4");
    sv_cycle_step();
    CHECK_EQ(started, 0);
    CHECK_EQ(atomic_load(&sv_pending), 1);
}

CASE(another_pml_is_left_alone)
{
    static mca_base_component_t ucx = {.mca_component_name = "ucx"};
    sv_opal.selected_pml = &ucx;
    sv_cycle_prepare("4.1.4");
    sv_cycle_step();
    CHECK_EQ(started, 0);
    CHECK_EQ(hello.flags, SV_HELLO_INERT);
    CHECK_TEXT(hello.reason, "the PML is ucx");
    CHECK_EQ(atomic_load(&sv_pending), 0);
}

CASE(park_and_run)
{
    char memory[8];
    set_up();
    sv_handle_t *window = sv_registration_make(&sv_proxy.module, MCA_BTL_ENDPOINT_ANY, memory, 8, 0);
    want(1, SV_PHASE_PARK, 0);
    host = host_runs_after_park;
    errno = 77;
    sv_cycle_step();
    CHECK_EQ(errno, 77);
    CHECK_TEXT(history, "draining/1 closing/1 parked/1 opening/2 running/2 ");
    CHECK_TEXT(posts, "drain.0/1 drain.1/1 quiet/1 blob/2 handles/2 ");
    check_running(2, 2);
    CHECK_EQ(opens, 1);
    CHECK_EQ(closes, 1);
    CHECK_EQ(last.live_cycles, 1);
    CHECK_EQ(last.registrations, 1);
    CHECK_EQ(window->epoch, 2);
    CHECK_EQ(peer.owner_epoch, 2);
    CHECK(0 == strcmp(peer_blobs[1], "rank1") && 0 == strcmp(peer_blobs[2], "rank2"));
    CHECK(0 == strcmp(peer_blobs[0], "mine"));
    sv_handle_t old = {.owner = 1, .id = 1, .epoch = 1}, room;
    CHECK(NULL != sv_registration_translate(&peer, &old, &room));
    CHECK_EQ(atomic_load(&sv_pending), 0);
    sv_registration_release(&sv_proxy.module, window);
    tear_down();
}

/* A handshake that stopped half way, here or at another rank: the card is opened anew. */
CASE(a_join_that_fails_is_tried_again)
{
    set_up();
    failing_joins = 1;
    want(1, SV_PHASE_PARK, 0);
    host = host_runs_after_park;
    sv_cycle_step();
    CHECK_TEXT(posts, "blob/2 handles/2 joined/2 blob.1/2 handles.1/2 ");
    CHECK_EQ(opens, 2);
    CHECK_EQ(closes, 2);
    CHECK_EQ(joins, 2);
    check_running(2, 3);
    tear_down();
}

CASE(a_join_of_another_rank_fails)
{
    set_up();
    joined[2] = -ETIMEDOUT;
    want(1, SV_PHASE_PARK, 0);
    host = host_runs_after_park;
    sv_cycle_step();
    CHECK_EQ(opens, 2);
    check_running(2, 3);
    tear_down();
}

static mca_btl_base_module_t gone; /* the card of the epoch before */
static int early_turns;
static void host_sends_before_the_last_has_joined(void)
{
    host_runs_after_park();
    if (is(SV_RANK_PARKED, 1)) {
        peer.module = &gone;
    }
    if (is(SV_RANK_OPENING, 2) && sv_proxy.polling) {
        CHECK(&card == peer.module); /* what the PML answers a message with */
        CHECK(peer.openib && peer.openib == peer.real);
        CHECK_EQ(peer.via, SV_VIA_OPENIB);
        if (3 == ++early_turns) {
            withheld = "none";
        }
    }
}

/* The others have seen the complete set and run already: their messages come while this rank still waits. */
CASE(a_message_before_the_last_has_joined_is_answered_over_the_new_card)
{
    set_up();
    withheld = "joined";
    want(1, SV_PHASE_PARK, 0);
    host = host_sends_before_the_last_has_joined;
    sv_cycle_step();
    CHECK_EQ(early_turns, 3);
    check_running(2, 2);
    tear_down();
}

static void host_gives_up_joining(void)
{
    host_runs_after_park();
    if (is(SV_RANK_FAILED, 2)) {
        CHECK(NULL == sv_proxy.openib);
        CHECK_TEXT(last.detail, "did not connect to rank 1");
        CHECK_EQ(last.error, -ETIMEDOUT);
        want(3, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    }
}

CASE(a_join_that_never_succeeds_leaves_the_rank_held)
{
    set_up();
    failing_joins = 3;
    want(1, SV_PHASE_PARK, 0);
    host = host_gives_up_joining;
    sv_cycle_step();
    CHECK_EQ(opens, 4);
    check_running(3, 5);
    tear_down();
}

static int completed_after;
static void host_completes_a_send(void)
{
    if (sv_proxy.traffic[SV_VIA_OPENIB].outstanding && ++completed_after == 10) {
        CHECK_EQ(strlen(posts), 0); /* says nothing before it is idle itself */
        sv_proxy.traffic[SV_VIA_OPENIB].outstanding = 0;
        sv_proxy.traffic[SV_VIA_TCP].in_hand = 0;
    }
    host_runs_after_park();
}

CASE(drain_waits_for_completions)
{
    set_up();
    sv_proxy.traffic[SV_VIA_OPENIB].outstanding = 1;
    sv_proxy.traffic[SV_VIA_TCP].in_hand = 1;
    want(1, SV_PHASE_PARK, 0);
    host = host_completes_a_send;
    sv_cycle_step();
    CHECK_EQ(completed_after, 10);
    check_running(2, 2);
    tear_down();
}

/* Quiet is two rounds with the same sums, sent and received alike. */
CASE(drain_rounds)
{
    set_up();
    sv_proxy.traffic[SV_VIA_OPENIB].sent = 10;
    drains[1][0].received = 9;   /* one on the wire */
    drains[1][1].received = 10;  /* equal, but for the first time */
    drains[1][2] = (struct drain_part){.sent = 1, .received = 11}; /* equal, but it has moved */
    drains[1][3] = (struct drain_part){.sent = 1, .received = 11, .in_hand = 1};
    drains[1][4] = (struct drain_part){.sent = 1, .received = 11, .outstanding = 1};
    drains[1][5] = drains[1][6] = (struct drain_part){.sent = 1, .received = 11};
    drain_rounds = 6;
    want(1, SV_PHASE_PARK, 0);
    host = host_runs_after_park;
    sv_cycle_step();
    CHECK_TEXT(posts, "drain.5/1 drain.6/1 quiet/1 ");
    check_running(2, 2);
    tear_down();
}

static void host_gives_up_damaged_drain(void)
{
    if (strstr(posts, "drain.5/1")) {
        want(2, SV_PHASE_RUN_OPENIB, 0);
    }
}

CASE(damaged_drain_post_is_not_quiet)
{
    set_up();
    drain_size = 8;
    want(1, SV_PHASE_PARK, 0);
    host = host_gives_up_damaged_drain;
    withheld = "drain.5"; /* so that the rank waits there and the host gets its turn */
    sv_cycle_step();
    check_running(2, 1);
    CHECK(NULL == strstr(posts, "quiet"));
    CHECK_EQ(closes, 0);
    tear_down();
}

static uint32_t abort_flags;
static const char *abort_at;
static void host_aborts(void)
{
    if (strstr(posts, abort_at) && !strstr(history, "parked/1")) {
        want(2, SV_PHASE_RUN_OPENIB, abort_flags);
    }
}

CASE(abort_in_the_drain)
{
    set_up();
    withheld = "drain.1";
    abort_at = "drain.1/1";
    host = host_aborts;
    want(1, SV_PHASE_PARK, 0);
    sv_cycle_step();
    CHECK_EQ(opens + closes, 0);
    check_running(2, 1);
    CHECK(NULL == strstr(history, "closing"));
    tear_down();
}

static void host_aborts_busy_drain(void)
{
    if (completed_after++ == 5) {
        want(2, SV_PHASE_RUN_OPENIB, 0);
    }
}

CASE(abort_while_a_send_is_under_way)
{
    set_up();
    sv_proxy.traffic[SV_VIA_OPENIB].outstanding = 1;
    host = host_aborts_busy_drain;
    want(1, SV_PHASE_PARK, 0);
    sv_cycle_step();
    CHECK_EQ(opens + closes, 0);
    CHECK(0 == strcmp(posts, "back.flip/2 back.drained/2 "));
    check_running(2, 1);
    tear_down();
}

CASE(abort_before_quiet_is_complete)
{
    set_up();
    withheld = "quiet";
    abort_at = "quiet/1";
    host = host_aborts;
    want(1, SV_PHASE_PARK, 0);
    sv_cycle_step();
    CHECK_EQ(opens + closes, 0);
    check_running(2, 1); /* polls again */
    tear_down();
}

/* The others have torn down: so does this rank, before it obeys. */
CASE(superseded_after_quiet_was_complete)
{
    set_up();
    withheld = "quiet";
    abort_at = "quiet/1";
    abort_flags = SV_WANT_QUIET_COMPLETE;
    host = host_aborts;
    want(1, SV_PHASE_PARK, 0);
    sv_cycle_step();
    CHECK_TEXT(history, "closing/1 parked/1 opening/2 running/2 ");
    CHECK_EQ(opens, 1);
    CHECK_EQ(closes, 1);
    check_running(2, 2);
    tear_down();
}

CASE(abort_before_the_safe_point)
{
    set_up();
    want(1, SV_PHASE_PARK, 0);
    want(2, SV_PHASE_RUN_OPENIB, 0);
    sv_cycle_step();
    CHECK(0 == strcmp(history, "running/2 "));
    check_running(2, 1);
    CHECK(0 == strcmp(posts, "back.flip/2 back.drained/2 ")); /* takes part in the others' way back */
    want(3, SV_PHASE_RUN_TCP, 0);
    sv_cycle_step();
    CHECK(is(SV_RANK_FAILED, 3));
    CHECK_EQ(last.error, -EHOSTUNREACH);
    CHECK_TEXT(last.detail, "tcp does not reach rank 1");
    CHECK_EQ(last.route, SV_ROUTE_OPENIB); /* runs on over its card */
    CHECK(sv_proxy.polling);
    tear_down();
}

/* After a failure the host tries the next step; the rank is held all the time. */
static void host_tries_again(void)
{
    host_runs_after_park();
    if (is(SV_RANK_FAILED, 2)) {
        CHECK(NULL == sv_proxy.openib);
        CHECK(!sv_proxy.polling);
        open_rc = 0;
        add_procs_rc = 0;
        own_size = sizeof(own_blob);
        for (uint32_t r = 1; r < WORLD; r++) {
            opened[r].error = handles[r].error = 0;
            opened[r].size = 8;
            handles[r].count = 1;
        }
        opened_size = sizeof(struct opened_part);
        handles_size = sizeof(struct handles_part);
        want(3, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    }
}

static char failure[160];
static int failure_error;
static void host_notes_failure(void)
{
    if (is(SV_RANK_FAILED, 2)) {
        strcpy(failure, last.detail);
        failure_error = last.error;
    }
    host_tries_again();
}

static void fail_and_recover(int error, const char *detail)
{
    want(1, SV_PHASE_PARK, 0);
    host = host_notes_failure;
    sv_cycle_step();
    CHECK_EQ(failure_error, error);
    CHECK_TEXT(failure, detail);
    CHECK_TEXT(history, "failed/2 opening/3 running/3 ");
    check_running(3, 3);
    CHECK_EQ(opens, 2);
    tear_down();
}

CASE(card_does_not_open_here)
{
    set_up();
    open_rc = -ENODEV;
    fail_and_recover(-ENODEV, "no usable port");
}

CASE(card_does_not_open_elsewhere)
{
    set_up();
    opened[2].error = -ENODEV;
    fail_and_recover(-ECANCELED, "rank 2 could not open its card");
}

CASE(connecting_fails_here)
{
    set_up();
    add_procs_rc = OPAL_ERR_UNREACH;
    fail_and_recover(-EIO, "add_procs failed");
}

CASE(connecting_fails_elsewhere)
{
    set_up();
    handles[1].error = -EIO;
    fail_and_recover(-ECANCELED, "rank 1 could not connect");
}

CASE(address_card_is_damaged)
{
    set_up();
    opened[1].size = 9;
    fail_and_recover(-EPROTO, "address card of rank 1 is damaged");
}

CASE(address_card_is_too_short)
{
    set_up();
    opened_size = 4;
    fail_and_recover(-ECANCELED, "rank 1 could not open");
}

CASE(handles_are_damaged)
{
    set_up();
    handles[2].count = 2;
    fail_and_recover(-EPROTO, "registrations on the board are damaged");
}

CASE(handles_are_too_short)
{
    set_up();
    handles_size = 12;
    fail_and_recover(-ECANCELED, "rank 1 could not connect");
}

CASE(address_card_too_long_for_the_board)
{
    set_up();
    own_size = SV_WIRE_MAX_POST;
    own_big = calloc(1, own_size);
    fail_and_recover(-EMSGSIZE, "posting the address card");
    free(own_big);
}

static void host_notes_and_parks(void)
{
    host_runs_after_park();
    if (is(SV_RANK_FAILED, 2)) {
        strcpy(failure, last.detail);
        want(3, SV_PHASE_RUN_TCP, SV_WANT_QUIET_COMPLETE);
    }
}

/* More live registrations than a post can carry: said, instead of everybody waiting. */
CASE(too_many_registrations_for_the_board)
{
    enum { MANY = SV_WIRE_MAX_POST / sizeof(sv_handle_t) + 1 };
    static char memory[MANY];
    static mca_btl_base_module_t tcp;
    struct mca_btl_base_endpoint_t inner = {0};
    set_up();
    peer.tcp = &inner;
    peer.tcp_module = &tcp;
    peer.via = SV_VIA_TCP; /* keeps its tcp endpoint */
    for (int i = 0; i < MANY; i++) {
        sv_registration_make(&sv_proxy.module, MCA_BTL_ENDPOINT_ANY, &memory[i], 1, 0);
    }
    want(1, SV_PHASE_PARK, 0);
    host = host_notes_and_parks;
    sv_cycle_step();
    CHECK_TEXT(failure, "live registrations");
    CHECK(is(SV_RANK_RUNNING, 3));
    CHECK_EQ(last.route, SV_ROUTE_TCP);
    CHECK(NULL == sv_proxy.openib);
    tear_down();
}

static void host_supersedes_opening(void)
{
    host_runs_after_park();
    if (is(SV_RANK_OPENING, 2)) {
        want(3, SV_PHASE_PARK, SV_WANT_QUIET_COMPLETE);
    }
    if (is(SV_RANK_PARKED, 3)) {
        withheld = "none";
        want(4, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    }
}

static void supersede(const char *key)
{
    set_up();
    withheld = key;
    want(1, SV_PHASE_PARK, 0);
    host = host_supersedes_opening;
    sv_cycle_step();
    CHECK_TEXT(history, "opening/2 draining/3 closing/3 parked/3 opening/4 running/4 ");
    CHECK_EQ(opens, 2);
    CHECK_EQ(closes, 2);
    check_running(4, 3);
    tear_down();
}

CASE(superseded_before_all_have_opened)
{
    supersede("blob");
}

CASE(superseded_before_all_have_connected)
{
    supersede("handles");
}

static void host_parks_twice(void)
{
    if (is(SV_RANK_PARKED, 1)) {
        want(2, SV_PHASE_PARK, SV_WANT_QUIET_COMPLETE);
    }
    if (is(SV_RANK_PARKED, 2)) {
        want(3, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    }
}

CASE(park_while_parked)
{
    set_up();
    want(1, SV_PHASE_PARK, 0);
    host = host_parks_twice;
    sv_cycle_step();
    CHECK_TEXT(posts, "quiet/1 drain.0/2 drain.1/2 quiet/2 blob/3 ");
    CHECK_EQ(closes, 1);
    check_running(3, 2);
    tear_down();
}

static void host_goes(void)
{
    silence = 60001;
}

CASE(lease_over_in_the_drain)
{
    set_up();
    withheld = "drain.0";
    want(1, SV_PHASE_PARK, 0);
    host = host_goes;
    sv_cycle_step();
    CHECK(0 == strcmp(history, "draining/1 running/1 "));
    check_running(1, 1);
    CHECK_EQ(closes, 0);
    tear_down();
}

CASE(lease_over_with_a_send_under_way)
{
    set_up();
    sv_proxy.traffic[SV_VIA_OPENIB].outstanding = 1;
    want(1, SV_PHASE_PARK, 0);
    host = host_goes;
    sv_cycle_step();
    check_running(1, 1);
    tear_down();
}

static void host_goes_while_parked(void)
{
    if (is(SV_RANK_PARKED, 1)) {
        withheld = "drain.";
        want(2, SV_PHASE_PARK, SV_WANT_QUIET_COMPLETE);
    }
    if (is(SV_RANK_DRAINING, 2)) {
        silence = 60001;
    }
    if (is(SV_RANK_PARKED, 2)) { /* comes back, and sees the rank held, not draining for ever */
        silence = 0;
        want(3, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    }
}

CASE(lease_over_while_parked)
{
    set_up();
    want(1, SV_PHASE_PARK, 0);
    host = host_goes_while_parked;
    sv_cycle_step();
    CHECK_EQ(closes, 1);
    check_running(3, 2);
    tear_down();
}

static void host_goes_after_quiet(void)
{
    if (strstr(posts, "quiet/1")) {
        silence = 3600000;
    }
    if (turns == 1000) {
        CHECK(is(SV_RANK_DRAINING, 1)); /* the others may have torn down: no way back alone */
        withheld = "none";
    }
    host_runs_after_park();
}

CASE(no_lease_after_quiet)
{
    set_up();
    withheld = "quiet";
    want(1, SV_PHASE_PARK, 0);
    host = host_goes_after_quiet;
    sv_cycle_step();
    check_running(2, 2);
    tear_down();
}

static void host_sees_open_descriptors(void)
{
    if (is(SV_RANK_FAILED, 1)) {
        CHECK_EQ(last.error, -EBUSY);
        CHECK_EQ(last.open_descriptors, 2);
        CHECK_TEXT(last.detail, "/dev/infiniband/uverbs0");
        left_open = 0;
        want(2, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    }
}

CASE(descriptors_left_open)
{
    set_up();
    left_open = 2;
    want(1, SV_PHASE_PARK, 0);
    host = host_sees_open_descriptors;
    sv_cycle_step();
    CHECK_TEXT(history, "closing/1 failed/1 opening/2 running/2 ");
    CHECK(NULL == strstr(history, "parked"));
    tear_down();
}

static void host_says_nonsense(void)
{
    if (is(SV_RANK_PARKED, 1)) {
        want(2, 99, SV_WANT_QUIET_COMPLETE);
    }
    if (is(SV_RANK_FAILED, 2)) {
        CHECK_EQ(last.error, -EINVAL);
        CHECK_TEXT(last.detail, "phase 99");
        want(3, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    }
}

CASE(unknown_phase)
{
    set_up();
    want(1, SV_PHASE_PARK, 0);
    host = host_says_nonsense;
    sv_cycle_step();
    check_running(3, 2);
    tear_down();
}

/* ---- live: only the routes to some ranks change ---- */

static mca_btl_base_module_t tcp;
static int tcp_adds, tcp_dels;
static int tcp_add_procs(mca_btl_base_module_t *m, size_t n, opal_proc_t **procs, sv_endpoint_t **real,
                         opal_bitmap_t *reachable)
{
    static struct mca_btl_base_endpoint_t inner;
    for (size_t i = 0; i < n; i++) {
        real[i] = &inner;
        tcp_adds++;
    }
    return OPAL_SUCCESS;
}

static int tcp_del_procs(mca_btl_base_module_t *m, size_t n, opal_proc_t **procs, sv_endpoint_t **real)
{
    tcp_dels++;
    return OPAL_SUCCESS;
}

static struct mca_btl_base_endpoint_t second;

/* Ranks 1 and 2 are met and talked to over the card; `who` moves. */
static void set_up_live(uint32_t who)
{
    static opal_proc_t third;
    static struct mca_btl_base_endpoint_t real;
    set_up();
    tcp = (mca_btl_base_module_t){.btl_add_procs = tcp_add_procs, .btl_del_procs = tcp_del_procs};
    sv_proxy.tcp[0] = &tcp;
    sv_proxy.tcp_count = 1;
    second = (struct mca_btl_base_endpoint_t){.peer = 2, .proc = &third, .wants_openib = true, .owner_epoch = 1};
    second.next = &peer;
    sv_proxy.endpoints = &second;
    peer.openib = second.openib = &real;
    sv_endpoint_route_all(SV_VIA_OPENIB);
    moving.bits[0] = (unsigned char)(1u << who);
}

static void steps(void)
{
    for (int i = 0; i < 20; i++) {
        sv_cycle_step();
    }
}

CASE(a_staying_rank_changes_only_its_routes_to_those_that_move)
{
    set_up_live(1);
    want(1, SV_PHASE_RUN_TCP, 0);
    steps();
    CHECK_TEXT(history, "running/1 ");
    CHECK_TEXT(posts, "flip/1 drained/1 quiet/1 dropped/1 ");
    CHECK_EQ(peer.via, SV_VIA_TCP);
    CHECK_EQ(second.via, SV_VIA_OPENIB);
    CHECK(NULL == peer.openib && NULL != second.openib);
    CHECK_EQ(tcp_adds, 1);
    CHECK_EQ(drops, 1);
    CHECK_EQ(closes, 0);
    check_running(1, 1);

    opened[2] = (struct opened_part){0};
    keeps[2] = true;
    want(2, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    steps();
    CHECK_TEXT(posts, "dropped/2 blob/2 handles/2 ready/2 back.flip/2 back.drained/2 ");
    CHECK_TEXT(history, "running/1 running/2 ");
    CHECK_EQ(opens, 0);
    CHECK_EQ(peer.via, SV_VIA_OPENIB);
    CHECK(NULL != peer.openib);
    CHECK_EQ(tcp_dels, 1);
    CHECK_EQ(peer.owner_epoch, 2); /* it has a new card */
    CHECK(0 == strcmp(peer_blobs[1], "rank1") && 0 == strcmp(peer_blobs[2], ""));
    check_running(2, 1);
    tear_down();
    CHECK_EQ(joins_told, 1);
}

CASE(a_moving_rank_waits_until_the_others_have_dropped_it)
{
    set_up_live(0);
    withheld = "dropped";
    want(1, SV_PHASE_RUN_TCP, 0);
    steps();
    CHECK_EQ(closes, 0);
    CHECK(!sv_proxy.polling);
    CHECK_EQ(peer.via, SV_VIA_TCP);
    CHECK_EQ(second.via, SV_VIA_TCP);
    withheld = "none";
    steps();
    CHECK_EQ(closes, 1);
    CHECK(is(SV_RANK_RUNNING, 1));
    CHECK_EQ(last.route, SV_ROUTE_TCP);
    want(2, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    steps();
    CHECK_EQ(opens, 1);
    check_running(2, 2);
    tear_down();
}

/* A return that another rank has failed is undone by the next order, once the others have dropped it. */
CASE(a_failed_return_of_some_waits_for_the_next_order)
{
    set_up_live(0);
    want(1, SV_PHASE_RUN_TCP, 0);
    steps();
    handles[2].error = -EIO;
    want(2, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    steps();
    CHECK(is(SV_RANK_FAILED, 2));
    CHECK_EQ(closes, 1); /* by the leave */
    handles[2].error = 0;
    withheld = "dropped";
    want(3, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    steps();
    CHECK_EQ(closes, 1);
    withheld = "none";
    steps();
    CHECK_EQ(closes, 2);
    check_running(3, 3);
    tear_down();
}

/* They would lose their connections, and cannot be told: the host gives the cycle up. */
CASE(processes_of_another_job_stand_against_it)
{
    static opal_proc_t other;
    static struct mca_btl_base_endpoint_t foreign = {.peer = SV_FOREIGN, .proc = &other};
    set_up_live(0);
    foreign.next = sv_proxy.endpoints;
    sv_proxy.endpoints = &foreign;
    want(1, SV_PHASE_RUN_TCP, 0);
    steps();
    CHECK(is(SV_RANK_FAILED, 1));
    CHECK_TEXT(last.detail, "another job");
    want(2, SV_PHASE_PARK, 0);
    steps();
    CHECK(is(SV_RANK_FAILED, 2));
    CHECK_EQ(closes, 0);
    foreign.proc = NULL; /* it has gone */
    want(3, SV_PHASE_RUN_TCP, 0);
    steps();
    CHECK(is(SV_RANK_RUNNING, 3));
    CHECK_EQ(last.route, SV_ROUTE_TCP);
    sv_proxy.endpoints = foreign.next;
    tear_down();
}

CASE(a_rank_that_stands_still_says_where)
{
    set_up_live(0);
    withheld = "flip";
    want(1, SV_PHASE_RUN_TCP, 0);
    steps();
    CHECK_EQ(logged[0], 0);
    want(2, SV_PHASE_RUN_TCP, 0);
    wanted.arrived_us -= 21000000;
    steps();
    CHECK_TEXT(logged, "cycle 4 step 2: not done after 20 s");
    logged[0] = '\0';
    steps();
    CHECK_EQ(logged[0], 0); /* once an order */
    withheld = "none";
    steps();
    tear_down();
}

CASE(windows_change_all_routes_or_none)
{
    char memory[8];
    set_up_live(1);
    sv_handle_t *window =
        sv_registration_make(&sv_proxy.module, MCA_BTL_ENDPOINT_ANY, memory, 8, MCA_BTL_REG_FLAG_REMOTE_ATOMIC);
    want(1, SV_PHASE_RUN_TCP, 0);
    steps();
    CHECK(is(SV_RANK_FAILED, 1));
    CHECK_TEXT(last.detail, "one-sided windows");
    CHECK_EQ(peer.via, SV_VIA_OPENIB);
    moving = (struct sv_ranks){0};
    want(2, SV_PHASE_RUN_TCP, 0);
    steps();
    CHECK(is(SV_RANK_RUNNING, 2));
    CHECK_EQ(last.route, SV_ROUTE_TCP);
    CHECK(!sv_proxy.hold_atomics);
    sv_registration_release(&sv_proxy.module, window);
    tear_down();
}

CASE(untold_traffic_changes_all_routes_or_none)
{
    set_up_live(1);
    sv_arrivals_blur();
    want(1, SV_PHASE_RUN_TCP, 0);
    steps();
    CHECK(is(SV_RANK_FAILED, 1));
    CHECK_TEXT(last.detail, "apart");
    CHECK_EQ(last.whole_only, 1);
    tear_down();
}

CASE(tcp_alone)
{
    static mca_btl_base_module_t tcp;
    struct mca_btl_base_endpoint_t inner = {0};
    set_up();
    sv_proxy.tcp_only = true;
    sv_proxy.via = SV_VIA_TCP;
    sv_proxy.openib = NULL;
    sv_proxy.polling = false;
    sv_proxy.tcp[0] = &tcp;
    sv_proxy.tcp_count = 1;
    peer.tcp = &inner;
    peer.tcp_module = &tcp;
    peer.via = SV_VIA_TCP;
    peer.wants_openib = false;
    want(1, SV_PHASE_PARK, 0);
    host = host_runs_after_park;
    sv_cycle_step();
    CHECK_TEXT(history, "draining/1 closing/1 parked/1 opening/2 running/2 ");
    CHECK_EQ(opens + closes, 0);
    CHECK_EQ(last.route, SV_ROUTE_TCP);
    CHECK_EQ(last.epoch, 2);
    CHECK(!sv_proxy.polling);
    CHECK(&inner == peer.tcp);
    tear_down();
}

/* A rank that has left its card and runs over tcp, which needs no tear-down to be held. */
static void set_up_on_tcp(void)
{
    static struct mca_btl_base_endpoint_t inner;
    set_up();
    tcp.btl_del_procs = tcp_del_procs;
    sv_proxy.tcp[0] = &tcp;
    sv_proxy.tcp_count = 1;
    peer.tcp = &inner;
    peer.tcp_module = &tcp;
    want(1, SV_PHASE_RUN_TCP, 0);
    for (int i = 0; i < 20 && !is(SV_RANK_RUNNING, 1); i++) {
        sv_cycle_step();
    }
    CHECK(is(SV_RANK_RUNNING, 1));
    CHECK_EQ(last.route, SV_ROUTE_TCP);
    CHECK(NULL == sv_proxy.openib);
    CHECK(!sv_live_active());
    history[0] = posts[0] = '\0';
    turns = 0;
}

static uint32_t next_phase;
static void host_ends_the_hold(void)
{
    CHECK(is(SV_RANK_HELD, 2)); /* the only place where this rank waits */
    if (5 == turns) {
        want(3, next_phase, SV_WANT_QUIET_COMPLETE);
    }
}

CASE(hold_and_release)
{
    set_up_on_tcp();
    const uint32_t torn_down = last.live_cycles, drained = last.timing_us[SV_TIMING_DRAIN];
    next_phase = SV_PHASE_RUN_TCP;
    host = host_ends_the_hold;
    want(2, SV_PHASE_HOLD, SV_WANT_QUIET_COMPLETE);
    sv_cycle_step();
    CHECK(0 == strcmp(history, "held/2 running/3 "));
    CHECK_EQ(turns, 5); /* asleep, not polling */
    CHECK_EQ(strlen(posts), 0);
    CHECK_EQ(last.route, SV_ROUTE_TCP);
    CHECK_EQ(last.error, 0);
    CHECK_EQ(last.live_cycles, torn_down);
    CHECK_EQ(last.timing_us[SV_TIMING_DRAIN], drained); /* of the leave: kept for the report */
    CHECK(NULL != peer.tcp);
    CHECK_EQ(atomic_load(&sv_pending), 0);
    tear_down();
}

/* An abort, or a way back that begins at once. */
CASE(hold_then_back_to_the_card)
{
    set_up_on_tcp();
    next_phase = SV_PHASE_RUN_OPENIB;
    host = host_ends_the_hold;
    want(2, SV_PHASE_HOLD, SV_WANT_QUIET_COMPLETE);
    sv_cycle_step();
    for (int i = 0; i < 20 && !is(SV_RANK_RUNNING, 3); i++) {
        sv_cycle_step();
    }
    CHECK_TEXT(history, "held/2 opening/3 running/3 ");
    check_running(3, 2);
    tear_down();
}

static void host_parks_the_held(void)
{
    if (is(SV_RANK_HELD, 2) && 5 == turns) {
        want(3, SV_PHASE_PARK, SV_WANT_QUIET_COMPLETE);
    }
    if (is(SV_RANK_PARKED, 3)) {
        want(4, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    }
}

CASE(hold_then_park)
{
    set_up_on_tcp();
    host = host_parks_the_held;
    want(2, SV_PHASE_HOLD, SV_WANT_QUIET_COMPLETE);
    sv_cycle_step();
    CHECK_TEXT(history, "held/2 draining/3 closing/3 parked/3 opening/4 running/4 ");
    check_running(4, 2);
    tear_down();
}

static void host_holds_twice(void)
{
    if (is(SV_RANK_HELD, 2)) {
        want(3, SV_PHASE_HOLD, SV_WANT_QUIET_COMPLETE);
    } else if (is(SV_RANK_HELD, 3)) {
        want(4, SV_PHASE_RUN_TCP, SV_WANT_QUIET_COMPLETE);
    }
}

CASE(a_second_hold)
{
    set_up_on_tcp();
    host = host_holds_twice;
    want(2, SV_PHASE_HOLD, SV_WANT_QUIET_COMPLETE);
    sv_cycle_step();
    CHECK(0 == strcmp(history, "held/2 held/3 running/4 "));
    tear_down();
}

CASE(hold_over_the_card_is_refused)
{
    set_up();
    want(1, SV_PHASE_HOLD, 0);
    sv_cycle_step();
    CHECK(0 == strcmp(history, "failed/1 "));
    CHECK_EQ(last.error, -EBUSY);
    CHECK_TEXT(last.detail, "it uses its card");
    CHECK_EQ(last.route, SV_ROUTE_OPENIB);
    CHECK_EQ(turns, 0); /* it never stood still */
    CHECK(sv_proxy.polling);
    want(2, SV_PHASE_RUN_OPENIB, 0);
    for (int i = 0; i < 20 && !is(SV_RANK_RUNNING, 2); i++) {
        sv_cycle_step();
    }
    check_running(2, 1);
    tear_down();
}

CASE(hold_in_a_change_of_route_is_refused)
{
    set_up_on_tcp();
    withheld = "blob";
    want(2, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    sv_cycle_step();
    CHECK(sv_live_active());
    want(3, SV_PHASE_HOLD, SV_WANT_QUIET_COMPLETE);
    sv_cycle_step();
    CHECK(is(SV_RANK_FAILED, 3));
    CHECK_TEXT(last.detail, "in the middle of a change of route");
    tear_down();
}

/* Nobody counts on the hold, and nobody is there to end it. */
CASE(lease_over_while_held)
{
    set_up_on_tcp();
    host = host_goes;
    want(2, SV_PHASE_HOLD, SV_WANT_QUIET_COMPLETE);
    sv_cycle_step();
    CHECK(0 == strcmp(history, "held/2 running/2 "));
    CHECK_EQ(turns, 1);
    CHECK_EQ(last.route, SV_ROUTE_TCP);
    silence = 0;
    host = NULL;
    want(3, SV_PHASE_RUN_TCP, SV_WANT_QUIET_COMPLETE); /* the agent is back, and late */
    sv_cycle_step();
    CHECK(is(SV_RANK_RUNNING, 3));
    CHECK_EQ(last.route, SV_ROUTE_TCP);
    tear_down();
}

static void host_is_away_for_less(void)
{
    silence = turns < 4 ? 59999 : 0;
    if (8 == turns) {
        want(3, SV_PHASE_RUN_TCP, SV_WANT_QUIET_COMPLETE);
    }
}

CASE(held_while_the_agent_restarts)
{
    set_up_on_tcp();
    host = host_is_away_for_less;
    want(2, SV_PHASE_HOLD, SV_WANT_QUIET_COMPLETE);
    sv_cycle_step();
    CHECK(0 == strcmp(history, "held/2 running/3 "));
    CHECK_EQ(turns, 8);
    tear_down();
}

/* It computes while the others are held; when it comes to a safe point the hold is over. */
CASE(hold_is_over_before_the_safe_point)
{
    set_up_on_tcp();
    want(2, SV_PHASE_HOLD, SV_WANT_QUIET_COMPLETE);
    want(3, SV_PHASE_RUN_TCP, SV_WANT_QUIET_COMPLETE);
    sv_cycle_step();
    CHECK(0 == strcmp(history, "running/3 "));
    CHECK_EQ(turns, 0);
    tear_down();
}

CASE(hold_of_tcp_alone)
{
    set_up();
    sv_proxy.tcp_only = true;
    sv_proxy.via = SV_VIA_TCP;
    next_phase = SV_PHASE_RUN_TCP;
    host = host_ends_the_hold;
    want(2, SV_PHASE_HOLD, 0);
    sv_cycle_step();
    CHECK(0 == strcmp(history, "held/2 running/3 "));
    tear_down();
}

static void host_runs_back_to_back(void)
{
    if (SV_RANK_PARKED == last.state && wanted.step == last.h.step) {
        want(wanted.step + 1, SV_PHASE_RUN_OPENIB, SV_WANT_QUIET_COMPLETE);
    }
}

CASE(a_hundred_cycles)
{
    char memory[8];
    set_up();
    sv_handle_t *window = sv_registration_make(&sv_proxy.module, MCA_BTL_ENDPOINT_ANY, memory, 8, 0);
    host = host_runs_back_to_back;
    for (uint32_t i = 0; i < 100; i++) {
        for (uint32_t r = 1; r < WORLD; r++) {
            handles[r].epoch = handles[r].handle[0].epoch = i + 2;
        }
        history[0] = posts[0] = '\0';
        want(2 * i + 1, SV_PHASE_PARK, 0);
        sv_cycle_step();
        check_running(2 * i + 2, i + 2);
        CHECK_EQ(window->epoch, i + 2);
        CHECK_EQ(peer.owner_epoch, i + 2);
    }
    CHECK_EQ(last.live_cycles, 100);
    sv_registration_release(&sv_proxy.module, window);
    tear_down();
}
