/* SPDX-License-Identifier: Apache-2.0 */
#include "agent_link.h"

#include "board.h"
#include "log.h"
#include "status.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

extern atomic_int sv_pending; /* proxy.h: wakes the main thread at its next safe point */

/* What is still to be sent when the rank leaves gets this long: an agent that hangs must not hold
 * MPI_Finalize up. */
#define STOP_GRACE_US 1000000u

/* A post of the current step, kept to be repeated after a reconnect. */
struct post {
    struct post *next;
    uint32_t cycle, step;
    char key[SV_WIRE_KEY];
    unsigned char *bytes;
    uint32_t size;
    uint32_t sent; /* on this connection */
    bool done;     /* all of it is out, also for an empty one */
};

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    int wake; /* eventfd: the main thread has something to send */
    bool started, stopping, state_dirty, hello_done;
    bool peers_asked; /* PEERS is on its way out, from entry peers_first on */
    uint32_t peers_first;
    bool welcomed; /* on this connection, and not refused since */
    uint64_t arrivals; /* what sv_link_wait waits for */
    uint64_t stop_by_us;
    struct sv_msg_hello hello;
    struct sv_msg_state state;
    struct sv_msg_log log;
    bool log_dirty;
    struct sv_want want;
    struct post *posts;
    struct sv_board_set *sets;
    uint64_t disconnected_since_us; /* 0 while connected */
} link_ = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = -1};

static int inert_fd = -1;

static const char *socket_path(void)
{
    const char *path = secure_getenv("SYMVIRT_SOCKET");
    return path && *path ? path : "/run/symvirt/ranks.sock";
}

static bool newer(uint32_t cycle, uint32_t step, uint32_t than_cycle, uint32_t than_step)
{
    return cycle > than_cycle || (cycle == than_cycle && step > than_step);
}

bool sv_link_available(void)
{
    return 0 == access(socket_path(), W_OK);
}

static int connect_agent(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(socket_path()) >= sizeof(address.sun_path)) {
        return -ENAMETOOLONG;
    }
    strcpy(address.sun_path, socket_path());
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    if (0 != connect(fd, (const struct sockaddr *)&address, sizeof(address))) {
        const int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

static void fill_header(struct sv_msg_header *h, uint16_t type, uint32_t cycle, uint32_t step, size_t whole)
{
    h->magic = SV_WIRE_MAGIC;
    h->version = SV_WIRE_VERSION;
    h->type = type;
    h->cycle = cycle;
    h->step = step;
    h->length = (uint32_t)(whole - sizeof(*h));
    h->reserved = 0;
}

/* 1 sent, 0 the socket is full, negative errno: the connection is over. */
static int send_datagram(int fd, const void *bytes, size_t size)
{
    for (;;) {
        if (send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
            return 1;
        }
        if (EINTR == errno) {
            continue;
        }
        return EAGAIN == errno || EWOULDBLOCK == errno || ENOBUFS == errno ? 0 : -errno;
    }
}

/* Sends the next chunk of a post. As send_datagram. Called with the lock held. */
static int send_chunk(int fd, struct post *post)
{
    unsigned char datagram[sizeof(struct sv_msg_board) + SV_WIRE_MAX_CHUNK];
    struct sv_msg_board *m = (struct sv_msg_board *)datagram;
    uint32_t size = post->size - post->sent;
    if (size > SV_WIRE_MAX_CHUNK) {
        size = SV_WIRE_MAX_CHUNK;
    }
    fill_header(&m->h, SV_MSG_POST, post->cycle, post->step, sizeof(*m) + size);
    memcpy(m->key, post->key, SV_WIRE_KEY);
    m->rank = link_.hello.rank;
    m->offset = post->sent;
    m->total = post->size;
    m->reserved = 0;
    if (size) {
        memcpy(m + 1, post->bytes + post->sent, size);
    }
    const int rc = send_datagram(fd, datagram, sizeof(*m) + size);
    if (1 == rc) {
        post->sent += size;
        post->done = post->sent == post->size;
    }
    return rc;
}

/* Sends the next part of the peers. As send_datagram. Called with the lock held. */
static int send_peers(int fd)
{
    enum { MOST = SV_WIRE_MAX_CHUNK / sizeof(struct sv_wire_peer) };
    static struct {
        struct sv_msg_peers m;
        struct sv_wire_peer peer[MOST];
    } out; /* one thread only */
    const uint32_t count = sv_state_peers(link_.peers_first, out.peer, MOST, &out.m.total);
    const size_t size = sizeof(out.m) + count * sizeof(out.peer[0]);
    fill_header(&out.m.h, SV_MSG_PEERS, 0, 0, size);
    out.m.first = link_.peers_first;
    const int rc = send_datagram(fd, &out, size);
    if (1 == rc) {
        link_.peers_first += count;
        link_.peers_asked = count && link_.peers_first < out.m.total;
    }
    return rc;
}

/* Sends what there is to send: HELLO first, then STATE, then posts. As send_datagram, 1 = all out. */
static int flush(int fd)
{
    int rc = 1;
    pthread_mutex_lock(&link_.lock);
    if (!link_.hello_done) {
        fill_header(&link_.hello.h, SV_MSG_HELLO, 0, 0, sizeof(link_.hello));
        rc = send_datagram(fd, &link_.hello, sizeof(link_.hello));
        link_.hello_done = 1 == rc;
    }
    if (1 == rc && link_.state_dirty) {
        rc = send_datagram(fd, &link_.state, sizeof(link_.state));
        link_.state_dirty = 1 != rc;
    }
    for (struct post *post = link_.posts; 1 == rc && post; post = post->next) {
        while (1 == rc && !post->done) {
            rc = send_chunk(fd, post);
        }
    }
    if (1 == rc && link_.log_dirty) {
        rc = send_datagram(fd, &link_.log, sizeof(link_.log));
        link_.log_dirty = 1 != rc;
    }
    while (1 == rc && link_.peers_asked) {
        rc = send_peers(fd);
    }
    pthread_mutex_unlock(&link_.lock);
    return rc;
}


static int handle(const void *datagram, size_t size)
{
    const struct sv_msg_header *h = datagram;
    int rc = 0;
    if (size < sizeof(*h) || SV_WIRE_MAGIC != h->magic || SV_WIRE_VERSION != h->version ||
        h->length != size - sizeof(*h)) {
        return -EPROTO;
    }
    pthread_mutex_lock(&link_.lock);
    switch (h->type) {
    case SV_MSG_WELCOME:
        link_.welcomed = true;
        break;
    case SV_MSG_WANT: {
        const struct sv_msg_want *m = datagram;
        if (size != sizeof(*m)) {
            rc = -EPROTO;
        } else if (newer(h->cycle, h->step, link_.want.cycle, link_.want.step)) {
            link_.want = (struct sv_want){.cycle = h->cycle,
                                          .step = h->step,
                                          .phase = m->phase,
                                          .flags = m->flags,
                                          .arrived_us = sv_now_us()};
            memcpy(link_.want.moving.bits, m->moving, sizeof(m->moving));
            atomic_store_explicit(&sv_pending, 1, memory_order_release);
        }
        break;
    }
    case SV_MSG_BOARD: {
        const struct sv_msg_board *m = datagram;
        if (size < sizeof(*m)) {
            rc = -EPROTO;
        } else {
            rc = sv_board_take(&link_.sets, link_.hello.world_size, m, m + 1, size - sizeof(*m));
            /* Whoever waits for it looks at every safe point anyway; told again by the host, it wakes one that does not. */
            atomic_store_explicit(&sv_pending, 1, memory_order_release);
        }
        break;
    }
    case SV_MSG_QUERY:
        sv_state_counters(&link_.state);
        link_.state_dirty = true;
        break;
    case SV_MSG_QUERY_PEERS:
        link_.peers_asked = true;
        link_.peers_first = 0;
        break;
    case SV_MSG_REJECT: {
        const struct sv_msg_log *m = datagram;
        sv_warn("the agent refuses this rank: %.200s",
                size == sizeof(*m) && memchr(m->text, '\0', sizeof(m->text)) ? m->text : "(no reason)");
        link_.welcomed = false;
        rc = -ECONNREFUSED;
        break;
    }
    default:
        rc = -EPROTO;
    }
    link_.arrivals++;
    pthread_cond_broadcast(&link_.arrived);
    pthread_mutex_unlock(&link_.lock);
    return rc;
}

/* Serves one connection until it ends. Returns when it is over or the link is stopping. */
static void serve(int fd)
{
    static unsigned char datagram[SV_WIRE_MAX_DATAGRAM]; /* one thread only */
    pthread_mutex_lock(&link_.lock);
    link_.hello_done = false;
    link_.welcomed = false;
    link_.state_dirty = true;
    link_.peers_asked = false;
    for (struct post *post = link_.posts; post; post = post->next) {
        post->sent = 0;
        post->done = false;
    }
    pthread_mutex_unlock(&link_.lock);
    for (;;) {
        const int flushed = flush(fd);
        pthread_mutex_lock(&link_.lock);
        const bool stopping = link_.stopping;
        const bool out_of_time = stopping && sv_now_us() >= link_.stop_by_us;
        if (flushed > 0) {
            link_.disconnected_since_us = 0;
        }
        pthread_mutex_unlock(&link_.lock);
        if (flushed < 0) {
            return;
        }
        if (stopping && (flushed || out_of_time)) {
            struct sv_msg_header bye;
            fill_header(&bye, SV_MSG_BYE, 0, 0, sizeof(bye));
            send_datagram(fd, &bye, sizeof(bye));
            return;
        }
        struct pollfd fds[2] = {{.fd = fd, .events = (short)(POLLIN | (flushed ? 0 : POLLOUT))},
                                {.fd = link_.wake, .events = POLLIN}};
        if (poll(fds, 2, stopping ? 50 : -1) < 0 && EINTR != errno) {
            return;
        }
        if (fds[1].revents & POLLIN) {
            uint64_t count;
            if (read(link_.wake, &count, sizeof(count)) < 0) {
                /* EAGAIN: another wake-up was merged */
            }
        }
        while (fds[0].revents & (POLLIN | POLLHUP | POLLERR)) {
            const ssize_t n = recv(fd, datagram, sizeof(datagram), MSG_DONTWAIT);
            if (n < 0 && EINTR == errno) {
                continue;
            }
            if (n < 0 && (EAGAIN == errno || EWOULDBLOCK == errno)) {
                break;
            }
            if (n <= 0) {
                return;
            }
            const int rc = handle(datagram, (size_t)n);
            if (rc < 0) {
                sv_warn("datagram from the agent: %s", strerror(-rc));
                return;
            }
        }
    }
}

static void *run(void *unused)
{
    unsigned wait_ms = 20;
    for (;;) {
        const int fd = connect_agent();
        if (fd >= 0) {
            serve(fd);
            close(fd);
        }
        pthread_mutex_lock(&link_.lock);
        if (fd >= 0 && link_.welcomed) {
            wait_ms = 20; /* else the agent refuses this rank: it is not asked ever faster */
        }
        const bool stopping = link_.stopping;
        if (0 == link_.disconnected_since_us) {
            link_.disconnected_since_us = sv_now_us();
        }
        link_.arrivals++;
        pthread_cond_broadcast(&link_.arrived);
        pthread_mutex_unlock(&link_.lock);
        if (stopping) {
            return NULL;
        }
        struct pollfd wake = {.fd = link_.wake, .events = POLLIN};
        poll(&wake, 1, (int)wait_ms);
        if (wake.revents & POLLIN) {
            uint64_t count;
            if (read(link_.wake, &count, sizeof(count)) < 0) {
                /* merged */
            }
        }
        wait_ms = wait_ms < 1000 ? wait_ms * 2 : 1000;
    }
}

int sv_link_start(const struct sv_msg_hello *hello)
{
    sigset_t all, before;
    pthread_condattr_t monotonic;
    link_.hello = *hello;
    link_.disconnected_since_us = sv_now_us();
    link_.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (link_.wake < 0) {
        return -errno;
    }
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&link_.arrived, &monotonic);
    pthread_condattr_destroy(&monotonic);
    /* the application's signals are for its own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int rc = pthread_create(&link_.thread, NULL, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        close(link_.wake);
        link_.wake = -1;
        return -rc;
    }
    pthread_setname_np(link_.thread, "symvirt-link");
    link_.started = true;
    return 0;
}

static void wake_up(void)
{
    const uint64_t one = 1;
    if (write(link_.wake, &one, sizeof(one)) < 0) {
        /* EAGAIN: the counter is full, so the thread is being woken anyway */
    }
}

void sv_link_announce_inert(const struct sv_msg_hello *hello)
{
    struct sv_msg_hello m = *hello;
    inert_fd = connect_agent();
    if (inert_fd >= 0) {
        fill_header(&m.h, SV_MSG_HELLO, 0, 0, sizeof(m));
        send_datagram(inert_fd, &m, sizeof(m));
    }
}

void sv_link_stop(void)
{
    if (!link_.started) {
        return;
    }
    pthread_mutex_lock(&link_.lock);
    link_.stopping = true;
    link_.stop_by_us = sv_now_us() + STOP_GRACE_US;
    pthread_mutex_unlock(&link_.lock);
    wake_up();
    pthread_join(link_.thread, NULL);
    close(link_.wake);
    link_.wake = -1;
    link_.started = false;
    sv_board_forget(&link_.sets, UINT32_MAX, UINT32_MAX);
    while (link_.posts) {
        struct post *post = link_.posts;
        link_.posts = post->next;
        free(post->bytes);
        free(post);
    }
}

bool sv_link_want(uint32_t cycle, uint32_t step, struct sv_want *want)
{
    pthread_mutex_lock(&link_.lock);
    const bool found = newer(link_.want.cycle, link_.want.step, cycle, step);
    if (found) {
        *want = link_.want;
    }
    pthread_mutex_unlock(&link_.lock);
    return found;
}

void sv_link_state(const struct sv_msg_state *state)
{
    pthread_mutex_lock(&link_.lock);
    link_.state = *state;
    fill_header(&link_.state.h, SV_MSG_STATE, state->h.cycle, state->h.step, sizeof(*state));
    link_.state_dirty = true;
    pthread_mutex_unlock(&link_.lock);
    if (link_.started) {
        wake_up();
    }
}

void sv_link_log(int level, const char *text)
{
    pthread_mutex_lock(&link_.lock);
    fill_header(&link_.log.h, SV_MSG_LOG, 0, 0, sizeof(link_.log));
    link_.log.level = (uint32_t)level;
    snprintf(link_.log.text, sizeof(link_.log.text), "%s", text);
    link_.log_dirty = true;
    pthread_mutex_unlock(&link_.lock);
    if (link_.started) {
        wake_up();
    }
}

int sv_link_post(uint32_t cycle, uint32_t step, const char *key, const void *bytes, size_t size)
{
    if (size > SV_WIRE_MAX_POST || strlen(key) >= SV_WIRE_KEY) {
        return -EMSGSIZE;
    }
    struct post *post = calloc(1, sizeof(*post));
    if (post) {
        post->bytes = malloc(size ? size : 1);
    }
    if (NULL == post || NULL == post->bytes) {
        free(post);
        return -ENOMEM;
    }
    post->cycle = cycle;
    post->step = step;
    strcpy(post->key, key);
    memcpy(post->bytes, bytes, size);
    post->size = (uint32_t)size;
    pthread_mutex_lock(&link_.lock);
    struct post **end = &link_.posts;
    while (*end) {
        struct post *old = *end;
        if (newer(cycle, step, old->cycle, old->step)) {
            *end = old->next; /* of an earlier step: nobody waits for it */
            free(old->bytes);
            free(old);
        } else {
            end = &old->next;
        }
    }
    *end = post;
    pthread_mutex_unlock(&link_.lock);
    wake_up();
    return 0;
}

void sv_link_wait(uint32_t microseconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(microseconds % 1000000u) * 1000;
    until.tv_sec += microseconds / 1000000u + (uint32_t)(until.tv_nsec / 1000000000);
    until.tv_nsec %= 1000000000;
    static uint64_t seen; /* one caller: the rank's main thread */
    pthread_mutex_lock(&link_.lock);
    while (seen == link_.arrivals && 0 == pthread_cond_timedwait(&link_.arrived, &link_.lock, &until)) {
    }
    seen = link_.arrivals;
    pthread_mutex_unlock(&link_.lock);
}

uint64_t sv_link_silence_ms(void)
{
    pthread_mutex_lock(&link_.lock);
    const uint64_t since = link_.disconnected_since_us;
    pthread_mutex_unlock(&link_.lock);
    return since ? (sv_now_us() - since) / 1000 : 0;
}

const struct sv_board_set *sv_board_ready(uint32_t cycle, uint32_t step, const char *key)
{
    pthread_mutex_lock(&link_.lock);
    const struct sv_board_set *set = sv_board_find(link_.sets, cycle, step, key);
    pthread_mutex_unlock(&link_.lock);
    return set;
}

void sv_board_release_before(uint32_t cycle, uint32_t step)
{
    pthread_mutex_lock(&link_.lock);
    sv_board_forget(&link_.sets, cycle, step);
    pthread_mutex_unlock(&link_.lock);
}
