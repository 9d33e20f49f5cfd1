/* SPDX-License-Identifier: Apache-2.0 */
/* The link against an agent played by the test's own thread over a real SEQPACKET socket. */
#include "agent_link.h"
#include "board.h"
#include "check.h"
#include "log.h"
#include "status.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* What the rest of the library would define. */
extern atomic_int sv_pending;
atomic_int sv_pending;
static atomic_uint counted = 41;
void sv_state_counters(struct sv_msg_state *state);
uint32_t sv_state_peers(uint32_t first, struct sv_wire_peer *room, uint32_t most, uint32_t *total)
{
    enum { PEERS = 1200 }; /* more than a datagram holds */
    uint32_t count = 0;
    for (*total = PEERS; first + count < PEERS && count < most; count++) {
        room[count] = (struct sv_wire_peer){.rank = first + count, .openib_bytes = 7 * (first + count)};
    }
    return count;
}

void sv_state_counters(struct sv_msg_state *state)
{
    state->tcp.sent_fragments = ++counted;
}

/* ---- the agent ---- */

static char folder[] = "/tmp/symvirt-link-XXXXXX", path[64];
static int listener = -1;
static union {
    struct sv_msg_header h;
    struct sv_msg_hello hello;
    struct sv_msg_state state;
    struct sv_msg_board board;
    struct sv_msg_log log;
    unsigned char bytes[SV_WIRE_MAX_DATAGRAM];
} got;

static void remove_socket(void)
{
    unlink(path);
    rmdir(folder);
}

static void agent_listen(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK_EQ(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    CHECK_EQ(listen(listener, 8), 0);
}

static void agent_gone(void)
{
    close(listener);
    unlink(path);
}

static void set_up(void)
{
    CHECK(NULL != mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/s", folder);
    atexit(remove_socket);
    setenv("SYMVIRT_SOCKET", path, 1);
}

static bool readable(int fd, int milliseconds)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, milliseconds) > 0;
}

static int agent_accept(void)
{
    CHECK(readable(listener, 5000));
    const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

/* The next datagram, in `got`; 0 when the rank has closed. Checks what every datagram must have. */
static size_t agent_receive(int fd)
{
    CHECK(readable(fd, 5000));
    const ssize_t n = recv(fd, got.bytes, sizeof(got.bytes), 0);
    CHECK(n >= 0 || ECONNRESET == errno);
    if (n > 0) {
        CHECK((size_t)n >= sizeof(got.h));
        CHECK_EQ(got.h.magic, SV_WIRE_MAGIC);
        CHECK_EQ(got.h.version, SV_WIRE_VERSION);
        CHECK_EQ(got.h.length, (size_t)n - sizeof(got.h));
    }
    return n > 0 ? (size_t)n : 0;
}

static void agent_expect(int fd, uint16_t type)
{
    CHECK(agent_receive(fd) > 0);
    CHECK_EQ(got.h.type, type);
}

static void agent_send(int fd, void *message, uint16_t type, uint32_t cycle, uint32_t step, size_t size)
{
    struct sv_msg_header *h = message;
    *h = (struct sv_msg_header){SV_WIRE_MAGIC, SV_WIRE_VERSION, type, cycle, step, (uint32_t)(size - sizeof(*h)), 0};
    CHECK_EQ(send(fd, message, size, MSG_NOSIGNAL), (ssize_t)size);
}

static void agent_welcome(int fd)
{
    struct sv_msg_header h;
    agent_send(fd, &h, SV_MSG_WELCOME, 0, 0, sizeof(h));
}

static void agent_want(int fd, uint32_t cycle, uint32_t step, uint32_t phase)
{
    struct sv_msg_want m = {.phase = phase, .flags = SV_WANT_QUIET_COMPLETE};
    agent_send(fd, &m, SV_MSG_WANT, cycle, step, sizeof(m));
}

static void agent_board(int fd, uint32_t rank, uint32_t offset, uint32_t total, const void *bytes, size_t size)
{
    static unsigned char datagram[SV_WIRE_MAX_DATAGRAM];
    struct sv_msg_board *m = (struct sv_msg_board *)datagram;
    memset(m, 0, sizeof(*m));
    strcpy(m->key, "blob");
    m->rank = rank;
    m->offset = offset;
    m->total = total;
    memcpy(m + 1, bytes, size);
    agent_send(fd, m, SV_MSG_BOARD, 1, 1, sizeof(*m) + size);
}

/* ---- the rank ---- */

static void rank_state(uint32_t what)
{
    struct sv_msg_state state = {.h = {.cycle = 1, .step = 2}, .state = what, .detail = "detail"};
    sv_link_state(&state);
}

static void rank_start(void)
{
    struct sv_msg_hello hello = {.rank = 1, .world_size = 2, .pid = 77, .job = "job"};
    rank_state(SV_RANK_RUNNING);
    CHECK_EQ(sv_link_start(&hello), 0);
}

/* Connected, HELLO and the first STATE read, welcomed. */
static int rank_connected(void)
{
    set_up();
    agent_listen();
    rank_start();
    const int fd = agent_accept();
    agent_expect(fd, SV_MSG_HELLO);
    agent_expect(fd, SV_MSG_STATE);
    agent_welcome(fd);
    return fd;
}

/* A new connection after the present one was ended by either side. */
static int rank_again(void)
{
    const int fd = agent_accept();
    agent_expect(fd, SV_MSG_HELLO);
    agent_expect(fd, SV_MSG_STATE);
    agent_welcome(fd);
    return fd;
}

/* Until the link's thread has handled what was sent: it answers a QUERY after it. */
static void settle(int fd)
{
    struct sv_msg_header h;
    agent_send(fd, &h, SV_MSG_QUERY, 0, 0, sizeof(h));
    agent_expect(fd, SV_MSG_STATE);
}

static int entries(const char *name)
{
    int n = 0;
    DIR *d = opendir(name);
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n;
}

/* Posts of a kept connection, put together. */
static void expect_post(int fd, uint32_t step, const char *key, const unsigned char *bytes, uint32_t size)
{
    for (uint32_t at = 0; 0 == at || at < size;) {
        agent_expect(fd, SV_MSG_POST);
        const uint32_t n = got.h.length - (uint32_t)(sizeof(got.board) - sizeof(got.h));
        CHECK(0 == strcmp(got.board.key, key));
        CHECK_EQ(got.h.cycle, 1);
        CHECK_EQ(got.h.step, step);
        CHECK_EQ(got.board.rank, 1);
        CHECK_EQ(got.board.offset, at);
        CHECK_EQ(got.board.total, size);
        CHECK(n <= SV_WIRE_MAX_CHUNK && at + n <= size);
        CHECK(0 == n || 0 == memcmp(got.bytes + sizeof(got.board), bytes + at, n));
        if (0 == size) {
            return;
        }
        CHECK(n > 0);
        at += n;
    }
}

/* ---- cases ---- */

CASE(available)
{
    set_up();
    CHECK(!sv_link_available());
    agent_listen();
    CHECK(sv_link_available());
}

CASE(hello_then_state)
{
    set_up();
    agent_listen();
    rank_start();
    const int fd = agent_accept();
    CHECK_EQ(agent_receive(fd), sizeof(struct sv_msg_hello));
    CHECK_EQ(got.h.type, SV_MSG_HELLO);
    CHECK_EQ(got.hello.rank, 1);
    CHECK_EQ(got.hello.pid, 77);
    CHECK(0 == strcmp(got.hello.job, "job"));
    CHECK_EQ(agent_receive(fd), sizeof(struct sv_msg_state));
    CHECK_EQ(got.h.type, SV_MSG_STATE);
    CHECK_EQ(got.h.cycle, 1);
    CHECK_EQ(got.h.step, 2);
    CHECK_EQ(got.state.state, SV_RANK_RUNNING);
    rank_state(SV_RANK_PARKED);
    agent_expect(fd, SV_MSG_STATE);
    CHECK_EQ(got.state.state, SV_RANK_PARKED);
    CHECK_EQ(sv_link_silence_ms(), 0);
    sv_link_stop();
    agent_expect(fd, SV_MSG_BYE);
    CHECK_EQ(agent_receive(fd), 0);
    close(fd);
}

CASE(query_brings_fresh_counters)
{
    const int fd = rank_connected();
    settle(fd);
    CHECK_EQ(got.state.tcp.sent_fragments, 42);
    settle(fd);
    CHECK_EQ(got.state.tcp.sent_fragments, 43);
    CHECK_EQ(got.state.state, SV_RANK_RUNNING);
    sv_link_stop();
    close(fd);
}

CASE(posts_in_chunks)
{
    const int fd = rank_connected();
    unsigned char *big = malloc(SV_WIRE_MAX_POST + 1);
    uint64_t seed = 7;
    for (uint32_t i = 0; i < SV_WIRE_MAX_POST; i++) {
        big[i] = (unsigned char)check_random(&seed);
    }
    CHECK_EQ(sv_link_post(1, 1, "blob", big, SV_WIRE_MAX_POST), 0);
    CHECK_EQ(sv_link_post(1, 1, "quiet", "", 0), 0);
    CHECK_EQ(sv_link_post(1, 1, "edge", big, SV_WIRE_MAX_CHUNK), 0);
    expect_post(fd, 1, "blob", big, SV_WIRE_MAX_POST);
    expect_post(fd, 1, "quiet", big, 0);
    expect_post(fd, 1, "edge", big, SV_WIRE_MAX_CHUNK);
    CHECK_EQ(sv_link_post(1, 1, "big", big, SV_WIRE_MAX_POST + 1), -EMSGSIZE);
    CHECK_EQ(sv_link_post(1, 1, "a-key-of-24-bytes-abcdef", big, 1), -EMSGSIZE);
    CHECK_EQ(sv_link_post(1, 1, "a-key-of-23-bytes-abcde", big, 1), 0);
    expect_post(fd, 1, "a-key-of-23-bytes-abcde", big, 1);
    CHECK(!readable(fd, 50));
    sv_link_stop();
    free(big);
    close(fd);
}

CASE(reconnect_repeats_everything)
{
    int fd = rank_connected();
    CHECK_EQ(sv_link_post(1, 1, "old", "o", 1), 0);
    expect_post(fd, 1, "old", (const unsigned char *)"o", 1);
    CHECK_EQ(sv_link_post(1, 2, "drain.0", "abc", 3), 0);
    CHECK_EQ(sv_link_post(1, 2, "quiet", "", 0), 0);
    expect_post(fd, 2, "drain.0", (const unsigned char *)"abc", 3);
    expect_post(fd, 2, "quiet", NULL, 0);
    rank_state(SV_RANK_DRAINING);
    agent_expect(fd, SV_MSG_STATE);
    close(fd);
    fd = rank_again();
    CHECK_EQ(got.state.state, SV_RANK_DRAINING);
    expect_post(fd, 2, "drain.0", (const unsigned char *)"abc", 3);
    expect_post(fd, 2, "quiet", NULL, 0);
    settle(fd); /* "old" does not come: nobody waits for it */
    sv_link_stop();
    close(fd);
}

CASE(reconnect_in_the_middle_of_a_post)
{
    static unsigned char big[SV_WIRE_MAX_POST];
    int fd = rank_connected();
    memset(big, 'b', sizeof(big));
    CHECK_EQ(sv_link_post(1, 1, "blob", big, sizeof(big)), 0);
    agent_expect(fd, SV_MSG_POST);
    agent_expect(fd, SV_MSG_POST);
    close(fd);
    fd = rank_again();
    expect_post(fd, 1, "blob", big, sizeof(big));
    settle(fd);
    sv_link_stop();
    close(fd);
}

CASE(agent_comes_late_and_goes)
{
    set_up();
    rank_start();
    while (0 == sv_link_silence_ms()) {
        sv_link_wait(1000);
    }
    CHECK_EQ(sv_link_post(1, 2, "quiet", "", 0), 0);
    agent_listen();
    int fd = agent_accept();
    agent_expect(fd, SV_MSG_HELLO);
    agent_expect(fd, SV_MSG_STATE);
    expect_post(fd, 2, "quiet", NULL, 0);
    settle(fd);
    CHECK_EQ(sv_link_silence_ms(), 0);
    agent_gone();
    close(fd);
    while (0 == sv_link_silence_ms()) {
        sv_link_wait(1000);
    }
    agent_listen();
    fd = rank_again();
    sv_link_stop();
    close(fd);
}

CASE(board_is_put_together)
{
    static unsigned char big[60000];
    int fd = rank_connected();
    memset(big, 'q', sizeof(big));
    agent_board(fd, 0, 0, sizeof(big), big, 24576);
    agent_board(fd, 1, 0, 2, "me", 2);
    settle(fd);
    CHECK(NULL == sv_board_ready(1, 1, "blob"));
    close(fd); /* the rest comes over another connection, from its start */
    fd = rank_again();
    agent_board(fd, 1, 0, 2, "me", 2);
    for (uint32_t at = 0; at < sizeof(big); at += 20000) {
        agent_board(fd, 0, at, sizeof(big), big + at, 20000);
    }
    settle(fd);
    const struct sv_board_set *set = sv_board_ready(1, 1, "blob");
    CHECK(NULL != set);
    CHECK_EQ(set->part[0].size, sizeof(big));
    CHECK(0 == memcmp(set->part[0].bytes, big, sizeof(big)));
    CHECK(0 == memcmp(set->part[1].bytes, "me", 2));
    sv_board_release_before(1, 2);
    CHECK(NULL == sv_board_ready(1, 1, "blob"));
    sv_link_stop();
    close(fd);
}

CASE(wants_only_grow)
{
    struct sv_want want;
    const int fd = rank_connected();
    CHECK(!sv_link_want(0, 0, &want));
    agent_want(fd, 2, 1, SV_PHASE_PARK);
    settle(fd);
    CHECK_EQ(atomic_exchange(&sv_pending, 0), 1);
    CHECK(sv_link_want(0, 0, &want));
    CHECK_EQ(want.cycle, 2);
    CHECK_EQ(want.phase, SV_PHASE_PARK);
    CHECK_EQ(want.flags, SV_WANT_QUIET_COMPLETE);
    CHECK(want.arrived_us <= sv_now_us());
    CHECK(!sv_link_want(2, 1, &want));
    agent_want(fd, 2, 1, SV_PHASE_RUN_TCP); /* a repetition, and two that are older */
    agent_want(fd, 2, 0, SV_PHASE_RUN_TCP);
    agent_want(fd, 1, 9, SV_PHASE_RUN_TCP);
    settle(fd);
    CHECK_EQ(atomic_load(&sv_pending), 0);
    CHECK(sv_link_want(2, 0, &want));
    CHECK_EQ(want.phase, SV_PHASE_PARK);
    agent_want(fd, 2, 2, SV_PHASE_RUN_OPENIB);
    agent_want(fd, 3, 1, SV_PHASE_RUN_TCP);
    settle(fd);
    CHECK(sv_link_want(2, 1, &want));
    CHECK_EQ(want.cycle, 3);
    sv_link_stop();
    close(fd);
}

/* What arrives between a look and the wait must not be slept over. */
CASE(wait_does_not_miss_an_arrival)
{
    struct sv_want want;
    const int fd = rank_connected();
    settle(fd);
    sv_link_wait(0);
    sv_link_wait(0);
    CHECK(!sv_link_want(0, 0, &want));
    agent_want(fd, 1, 1, SV_PHASE_PARK);
    settle(fd);
    const uint64_t before = sv_now_us();
    sv_link_wait(3000000);
    CHECK(sv_now_us() - before < 2000000);
    CHECK(sv_link_want(0, 0, &want));
    sv_link_stop();
    close(fd);
}

CASE(wait_ends_in_time)
{
    const int fd = rank_connected();
    settle(fd);
    sv_link_wait(0);
    const uint64_t before = sv_now_us();
    sv_link_wait(1100000);
    CHECK(sv_now_us() - before >= 1000000);
    sv_link_stop();
    close(fd);
}

static void expect_hang_up(int fd)
{
    while (agent_receive(fd) > 0) {
    }
    close(fd);
}

CASE(garbage_ends_the_connection)
{
    struct sv_want want;
    unsigned char rubbish[256];
    int fd = rank_connected();
    for (int kind = 0; kind < 7; kind++) {
        struct sv_msg_want m = {.phase = SV_PHASE_PARK};
        m.h = (struct sv_msg_header){SV_WIRE_MAGIC, SV_WIRE_VERSION, SV_MSG_WANT, 9, 9, 8, 0};
        size_t size = sizeof(m);
        m.h.magic ^= 0 == kind;
        m.h.version += 1 == kind;
        m.h.length += 2 == kind;
        m.h.type = 3 == kind ? 999 : 4 == kind ? SV_MSG_BOARD : 5 == kind ? SV_MSG_HELLO : SV_MSG_WANT;
        if (6 == kind) {
            size -= 4;
            m.h.length -= 4;
        }
        CHECK_EQ(send(fd, &m, size, MSG_NOSIGNAL), (ssize_t)size);
        expect_hang_up(fd);
        fd = rank_again();
    }
    memset(rubbish, 0xa5, sizeof(rubbish));
    CHECK_EQ(send(fd, rubbish, 3, MSG_NOSIGNAL), 3);
    expect_hang_up(fd);
    fd = rank_again();
    CHECK(!sv_link_want(0, 0, &want));
    sv_link_stop();
    close(fd);
}

/* A rank the agent refuses tries again, but not fifty times a second for the life of the job. */
CASE(reject_is_retried_with_patience)
{
    struct sv_msg_log m = {.level = 0, .text = "no room"};
    set_up();
    agent_listen();
    rank_start();
    const uint64_t until = sv_now_us() + 1500000;
    int tries = 0;
    while (sv_now_us() < until) {
        if (!readable(listener, 100)) {
            continue;
        }
        const int fd = agent_accept();
        agent_expect(fd, SV_MSG_HELLO);
        agent_send(fd, &m, SV_MSG_REJECT, 0, 0, sizeof(m));
        expect_hang_up(fd);
        tries++;
    }
    CHECK(tries >= 2);
    CHECK(tries <= 10);
    sv_link_stop();
}

/* What an operator should see goes to the agent, once, and a newer line takes the place of an older one. */
CASE(a_line_for_the_log_goes_to_the_agent)
{
    set_up();
    agent_listen();
    sv_link_log(SV_LOG_INFO, "too early");
    sv_link_log(SV_LOG_WARN, "not done after 20 s");
    rank_start();
    const int fd = agent_accept();
    agent_expect(fd, SV_MSG_HELLO);
    agent_expect(fd, SV_MSG_STATE);
    agent_expect(fd, SV_MSG_LOG);
    CHECK_EQ(got.log.level, SV_LOG_WARN);
    CHECK(0 == strcmp(got.log.text, "not done after 20 s"));
    sv_link_log(SV_LOG_ERROR, "again");
    agent_expect(fd, SV_MSG_LOG);
    CHECK(0 == strcmp(got.log.text, "again"));
    CHECK(!readable(fd, 50));
    sv_link_stop();
    close(fd);
}

/* A part that was told again must wake a rank that no longer looks. */
CASE(a_board_part_wakes_the_main_thread)
{
    struct sv_msg_board m = {.key = "flip", .rank = 0};
    set_up();
    agent_listen();
    rank_start();
    const int fd = agent_accept();
    atomic_store(&sv_pending, 0);
    agent_send(fd, &m, SV_MSG_BOARD, 1, 1, sizeof(m));
    const uint64_t until = sv_now_us() + 5000000;
    while (0 == atomic_load(&sv_pending) && sv_now_us() < until) {
        sched_yield();
    }
    CHECK_EQ(atomic_load(&sv_pending), 1);
    sv_link_stop();
    close(fd);
}

CASE(stop_leaves_nothing)
{
    set_up();
    agent_listen();
    const int descriptors = entries("/proc/self/fd"), threads = entries("/proc/self/task");
    rank_start();
    CHECK_EQ(entries("/proc/self/task"), threads + 1);
    const int fd = agent_accept();
    agent_expect(fd, SV_MSG_HELLO);
    agent_expect(fd, SV_MSG_STATE);
    agent_board(fd, 0, 0, 5, "board", 5);
    CHECK_EQ(sv_link_post(1, 1, "k", "post", 4), 0);
    agent_expect(fd, SV_MSG_POST);
    settle(fd);
    sv_link_stop();
    agent_expect(fd, SV_MSG_BYE);
    close(fd);
    /* pthread_join returns a little before the kernel takes the thread out of /proc */
    const uint64_t deadline = sv_now_us() + 5000000;
    while (entries("/proc/self/task") > threads && sv_now_us() < deadline) {
        sched_yield();
    }
    CHECK_EQ(entries("/proc/self/task"), threads);
    CHECK_EQ(entries("/proc/self/fd"), descriptors);
    sv_link_stop(); /* a second time changes nothing */
}

CASE(stop_without_an_agent)
{
    set_up();
    rank_start();
    const uint64_t before = sv_now_us();
    sv_link_stop();
    CHECK(sv_now_us() - before < 1000000);
}

/* An agent that is stopped must not hold MPI_Finalize up. */
CASE(stop_with_a_stuck_agent)
{
    static unsigned char big[SV_WIRE_MAX_POST];
    const int fd = rank_connected();
    CHECK_EQ(sv_link_post(1, 1, "one", big, sizeof(big)), 0);
    CHECK_EQ(sv_link_post(1, 1, "two", big, sizeof(big)), 0);
    const uint64_t before = sv_now_us();
    sv_link_stop();
    CHECK(sv_now_us() - before < 5000000);
    close(fd);
}

CASE(inert_says_why_once)
{
    struct sv_msg_hello hello = {.rank = 1, .world_size = 2, .flags = SV_HELLO_INERT, .job = "job", .reason = "why"};
    set_up();
    agent_listen();
    const int threads = entries("/proc/self/task");
    sv_link_announce_inert(&hello);
    const int fd = agent_accept();
    agent_expect(fd, SV_MSG_HELLO);
    CHECK_EQ(got.hello.flags, SV_HELLO_INERT);
    CHECK(0 == strcmp(got.hello.reason, "why"));
    CHECK(!readable(fd, 50)); /* stays connected, says no more */
    CHECK_EQ(entries("/proc/self/task"), threads);
    close(fd);
}
