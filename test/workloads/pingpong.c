/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ranks and nothing but messages, for measurements (src/bench).
 *
 * --mode time: ping-pong and windows of one-way messages for each size of --bytes (a list), --messages
 * rounds each (0: as many as fit in --seconds). The result has the medians of the rounds.
 *
 * --mode count: --rounds bursts of --messages messages of --bytes bytes, for an instruction counter that
 * collects inside the functions burst_* only. A burst is received in one go, when all of it has arrived:
 * the ranks tell each other so through a page of shared memory, outside those functions, and while they
 * wait nobody calls MPI. So no polling for messages not there yet is counted. --settle MS is for a network
 * that delivers on its own: both ranks wait that long after a burst was sent, then one takes the messages
 * and the other the completions (in burst_reap), in turns of progress whose number does not depend on time;
 * a few messages there and back, not counted, give credits back before the next burst.
 *
 * Prints one line of JSON. Both check what they receive.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <mpi.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { max_sizes = 32, max_burst = 256, max_bytes = 1 << 26, samples_most = 20000, window = 16, tag = 7, reap_turns = 8 };
enum { exit_usage = 2, exit_wrong = 3 };

static int rank;

struct options {
    bool count;
    int sizes[max_sizes], size_count;
    long messages, rounds;
    double seconds; /* a size and measurement */
    long settle_ms;
};

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

_Noreturn static void die(int code, const char *what)
{
    fprintf(stderr, "pingpong: %s\n", what);
    fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, code);
    abort();
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, long n)
{
    qsort(values, (size_t)n, sizeof(*values), by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* ---- mode time ---- */

static unsigned char mark_of(long round, int from)
{
    return (unsigned char)(round * 31 + from * 7 + 1);
}

static void check(const unsigned char *buffer, int bytes, unsigned char mark)
{
    if (buffer[0] != mark || buffer[bytes - 1] != mark) {
        die(exit_wrong, "a message has not the content it was sent with");
    }
}

/* One round: there and back. The mark at both ends tells one message from another. */
static void ping(unsigned char *out, unsigned char *in, int bytes, long round)
{
    out[0] = out[bytes - 1] = mark_of(round, rank);
    if (rank == 0) {
        MPI_Send(out, bytes, MPI_BYTE, 1, tag, MPI_COMM_WORLD);
        MPI_Recv(in, bytes, MPI_BYTE, 1, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    } else {
        MPI_Recv(in, bytes, MPI_BYTE, 0, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        MPI_Send(out, bytes, MPI_BYTE, 0, tag, MPI_COMM_WORLD);
    }
    check(in, bytes, mark_of(round, 1 - rank));
}

/* One round: a window of messages from 0 to 1, and one byte back when all are there. */
static void stream(unsigned char *out, unsigned char *in, int bytes, long round)
{
    MPI_Request requests[window];
    unsigned char back = 0;
    out[0] = out[bytes - 1] = mark_of(round, 0);
    for (int i = 0; i < window; i++) {
        if (rank == 0) {
            MPI_Isend(out, bytes, MPI_BYTE, 1, tag, MPI_COMM_WORLD, &requests[i]);
        } else {
            MPI_Irecv(in, bytes, MPI_BYTE, 0, tag, MPI_COMM_WORLD, &requests[i]);
        }
    }
    MPI_Waitall(window, requests, MPI_STATUSES_IGNORE);
    if (rank == 0) {
        MPI_Recv(&back, 1, MPI_BYTE, 1, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    } else {
        check(in, bytes, mark_of(round, 0));
        MPI_Send(&back, 1, MPI_BYTE, 0, tag, MPI_COMM_WORLD);
    }
}

typedef void (*round_fn)(unsigned char *, unsigned char *, int, long);

/* The median time of a round, in microseconds. A tenth of the rounds (3 at least) warms up. */
static double measure(round_fn one, unsigned char *out, unsigned char *in, int bytes, const struct options *o,
                      double *samples)
{
    long warm = 3, rounds = o->messages;
    if (rounds == 0) {
        double began = now_us();
        for (long i = 0; i < warm; i++) {
            one(out, in, bytes, i);
        }
        began = now_us();
        for (long i = 0; i < warm; i++) {
            one(out, in, bytes, i);
        }
        rounds = (long)(o->seconds * 1e6 / ((now_us() - began) / (double)warm));
        rounds = rounds < 10 ? 10 : rounds > samples_most ? samples_most : rounds;
        MPI_Bcast(&rounds, 1, MPI_LONG, 0, MPI_COMM_WORLD);
    }
    warm = rounds / 10 < 3 ? 3 : rounds / 10;
    for (long i = 0; i < warm; i++) {
        one(out, in, bytes, i);
    }
    for (long i = 0; i < rounds; i++) {
        double began = now_us();
        one(out, in, bytes, i);
        samples[i] = now_us() - began;
    }
    return median(samples, rounds);
}

static void run_timed(const struct options *o)
{
    int largest = 1;
    for (int i = 0; i < o->size_count; i++) {
        largest = o->sizes[i] > largest ? o->sizes[i] : largest;
    }
    unsigned char *out = calloc(1, (size_t)largest), *in = calloc(1, (size_t)largest);
    double *samples = calloc(samples_most, sizeof(*samples));
    if (!out || !in || !samples) {
        die(exit_usage, "no memory");
    }
    if (rank == 0) {
        printf("{\"mode\":\"time\",\"sizes\":[");
    }
    for (int i = 0; i < o->size_count; i++) {
        const int bytes = o->sizes[i];
        const double there_and_back = measure(ping, out, in, bytes, o, samples);
        const double one_window = measure(stream, out, in, bytes, o, samples);
        if (rank == 0) {
            printf("%s{\"bytes\":%d,\"latencyUs\":%.4f,\"bytesPerSecond\":%.0f}", i ? "," : "", bytes,
                   there_and_back / 2, (double)bytes * window / one_window * 1e6);
        }
    }
    if (rank == 0) {
        printf("]}\n");
    }
    free(out);
    free(in);
    free(samples);
}

/* ---- mode count ---- */

struct shared {
    atomic_long posted, sent, done; /* number of the last burst that got so far */
};

static struct shared *share(void)
{
    char name[64];
    snprintf(name, sizeof(name), "/symvirt-pingpong-%ld", (long)getppid());
    int fd = -1;
    if (rank == 0) {
        fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd < 0 || ftruncate(fd, sizeof(struct shared))) {
            die(exit_usage, "cannot make the page both ranks share");
        }
    }
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 1) {
        fd = shm_open(name, O_RDWR, 0);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    struct shared *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (rank == 0) {
        shm_unlink(name);
    }
    if (MAP_FAILED == page) {
        die(exit_usage, "cannot open the page both ranks share: are they on one machine, under one mpirun?");
    }
    close(fd);
    return page;
}

static void await(atomic_long *counter, long value)
{
    const double deadline = now_us() + 60e6;
    while (atomic_load(counter) < value) {
        if (now_us() > deadline) {
            die(exit_wrong, "the other rank does not go on");
        }
        usleep(100);
    }
}

static void settle(const struct options *o)
{
    const struct timespec t = {.tv_sec = o->settle_ms / 1000, .tv_nsec = o->settle_ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

void burst_send(const uint64_t *data, int bytes, int n);
void burst_post(uint64_t *data, int bytes, int n, MPI_Request *requests);
void burst_wait(int n, MPI_Request *requests);
void burst_reap(void);

__attribute__((noinline)) void burst_send(const uint64_t *data, int bytes, int n)
{
    for (int i = 0; i < n; i++) {
        MPI_Send((const char *)data + (size_t)i * (size_t)bytes, bytes, MPI_BYTE, 1, tag, MPI_COMM_WORLD);
    }
}

__attribute__((noinline)) void burst_post(uint64_t *data, int bytes, int n, MPI_Request *requests)
{
    for (int i = 0; i < n; i++) {
        MPI_Irecv((char *)data + (size_t)i * (size_t)bytes, bytes, MPI_BYTE, 0, tag, MPI_COMM_WORLD, &requests[i]);
    }
}

__attribute__((noinline)) void burst_wait(int n, MPI_Request *requests)
{
    MPI_Waitall(n, requests, MPI_STATUSES_IGNORE);
}

/* The completions of a burst that are there, in a fixed number of turns of progress. */
__attribute__((noinline)) void burst_reap(void)
{
    int found;
    for (int i = 0; i < reap_turns; i++) {
        MPI_Iprobe(1, tag, MPI_COMM_WORLD, &found, MPI_STATUS_IGNORE);
    }
}

/* Credits of openib travel with messages the other way. */
static void give_back(long round)
{
    unsigned char out[8] = {0}, in[8];
    for (int i = 0; i < 4; i++) {
        ping(out, in, sizeof(out), round + i);
    }
}

static void run_counted(const struct options *o)
{
    const int n = (int)o->messages, bytes = o->sizes[0];
    MPI_Request requests[max_burst];
    uint64_t *data = calloc((size_t)n, (size_t)bytes);
    struct shared *page = share();
    if (NULL == data) {
        die(exit_usage, "no memory");
    }
    for (long round = 1; round <= o->rounds; round++) {
        const size_t words = (size_t)n * (size_t)bytes / sizeof(*data);
        if (rank == 0) {
            for (size_t i = 0; i < words; i++) {
                data[i] = (uint64_t)round << 32 | i;
            }
            await(&page->posted, round);
            burst_send(data, bytes, n);
            atomic_store(&page->sent, round);
            if (o->settle_ms > 0) {
                settle(o);
                burst_reap();
            }
            await(&page->done, round);
        } else {
            burst_post(data, bytes, n, requests);
            atomic_store(&page->posted, round);
            await(&page->sent, round);
            settle(o);
            burst_wait(n, requests);
            for (size_t i = 0; i < words; i++) {
                if (data[i] != ((uint64_t)round << 32 | i)) {
                    die(exit_wrong, "a message has not the content it was sent with");
                }
            }
            atomic_store(&page->done, round);
        }
        if (o->settle_ms > 0) {
            give_back(round);
        }
    }
    if (rank == 0) {
        printf("{\"mode\":\"count\",\"bytes\":%d,\"rounds\":%ld,\"messages\":%d}\n", bytes, o->rounds, n);
    }
    munmap(page, sizeof(*page));
    free(data);
}

/* ---- options ---- */

static bool read_long(const char *text, long least, long most, long *value)
{
    char *end;
    errno = 0;
    *value = strtol(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && *value >= least && *value <= most;
}

static bool read_sizes(char *text, struct options *o)
{
    for (char *rest = NULL, *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        long value;
        if (o->size_count == max_sizes || !read_long(word, 1, max_bytes, &value)) {
            return false;
        }
        o->sizes[o->size_count++] = (int)value;
    }
    return o->size_count > 0;
}

static bool read_options(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {
        {"mode", required_argument, NULL, 'm'},    {"bytes", required_argument, NULL, 'b'},
        {"messages", required_argument, NULL, 'n'}, {"rounds", required_argument, NULL, 'r'},
        {"seconds", required_argument, NULL, 's'}, {"settle", required_argument, NULL, 'w'},
        {NULL, 0, NULL, 0},
    };
    int c;
    bool ok = true;
    opterr = rank == 0;
    while (ok && (c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (c) {
        case 'm':
            o->count = 0 == strcmp(optarg, "count");
            ok = o->count || 0 == strcmp(optarg, "time");
            break;
        case 'b': ok = read_sizes(optarg, o); break;
        case 'n': ok = read_long(optarg, 0, samples_most, &o->messages); break;
        case 'r': ok = read_long(optarg, 1, 1000000, &o->rounds); break;
        case 'w': ok = read_long(optarg, 0, 10000, &o->settle_ms); break;
        case 's':
            o->seconds = strtod(optarg, NULL);
            ok = o->seconds > 0 && o->seconds <= 600;
            break;
        default: ok = false;
        }
    }
    if (o->size_count == 0) {
        o->sizes[o->size_count++] = 8;
    }
    /* 8 bytes are a word; more than a few kilobytes in a burst would not fit in a socket's buffer. */
    const bool countable = o->size_count == 1 && o->sizes[0] % 8 == 0 && o->sizes[0] <= 512 && o->messages >= 1 &&
                           o->messages <= max_burst;
    return ok && optind == argc && (!o->count || countable);
}

int main(int argc, char **argv)
{
    struct options o = {.rounds = 20, .seconds = 0.1};
    int ranks;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (!read_options(argc, argv, &o) || ranks != 2) {
        if (rank == 0) {
            fprintf(stderr, "usage: mpirun -np 2 pingpong [--mode time] [--bytes N,N,...] [--messages N] [--seconds S]\n"
                            "       mpirun -np 2 pingpong --mode count [--bytes N] --messages N [--rounds N]\n"
                            "                          [--settle MS]\n");
        }
        MPI_Finalize();
        return exit_usage;
    }
    /* Connections and first-use work of the library are done before anything is measured. */
    unsigned char out[8] = {0}, in[8];
    for (long i = 0; i < 50; i++) {
        ping(out, in, sizeof(out), i);
    }
    if (o.count) {
        run_counted(&o);
    } else {
        run_timed(&o);
    }
    fflush(stdout);
    MPI_Finalize();
    return 0;
}
