/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conjugate gradients, in the manner of the NAS benchmark CG: a sparse symmetric matrix (--size rows, entries
 * at irregular distances from the diagonal, diagonally dominant and so positive definite) is distributed by
 * rows; each iteration gathers the search direction (MPI_Allgatherv), multiplies, and makes two dot products.
 *
 * The solution is chosen first and the right side made from it. A solve has `steps` iterations, after which
 * the solution must be the chosen one to ten digits. Dot products are summed in chunks of rows, in one order
 * whatever the number of ranks, so a serial solve at the start gives every iteration's answer bit for
 * bit: the residual, and a hash of the search direction as it was gathered. Each solve multiplies the right side by
 * another power of two (which is exact), so data left over from an earlier one never look right.
 */
#include "workload.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { steps = 25, chunk = 256, pairs = 8, row_entries = 2 * pairs + 1 };
enum { default_rows = 4096, least_rows = 1024, largest_rows = 1 << 22 };
static const double tolerance = 1e-10;

struct matrix {
    int n, row0, rows;   /* all rows, first own row, own rows */
    int distance[pairs]; /* of the entries from the diagonal, both ways, round the end */
    uint64_t seed;
    int *column;   /* row_entries a row */
    double *value;
};

struct answers {
    double rho[steps];    /* square of the residual after each step */
    uint64_t hash[steps]; /* of the search direction each step begins with */
};

struct solve {
    double *x, *r, *q; /* own rows */
    double *p;         /* all rows */
    double *sums;      /* one a chunk, of all rows */
    int *count, *first, *sum_count, *sum_first; /* by rank */
};

static uint64_t hashed(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15u;
    x ^= x >> 31;
    x *= 0xbf58476d1ce4e5b9u;
    return x ^ x >> 29;
}

/* Entry between rows i and i + d: the same from both ends. Eighths, so that sums of a row are exact. */
static double entry(const struct matrix *a, int i, int d)
{
    return -(double)(hashed(a->seed ^ (uint64_t)i << 24 ^ (uint64_t)d) % 8 + 1) / 8;
}

static double chosen(const struct matrix *a, int i)
{
    return 1 + (double)(hashed(a->seed + (uint64_t)i) >> 40) / (1 << 24);
}

static void choose_distances(struct matrix *a)
{
    uint64_t h = a->seed;
    for (int k = 0; k < pairs;) {
        h = hashed(h + 1);
        const int d = 1 + (int)(h % (uint64_t)(a->n / 2 - 1));
        bool taken = false;
        for (int j = 0; j < k; j++)
            taken = taken || a->distance[j] == d;
        if (!taken)
            a->distance[k++] = d;
    }
}

static void make_matrix(struct matrix *a, int n, int row0, int rows, uint64_t seed)
{
    *a = (struct matrix){.n = n, .row0 = row0, .rows = rows, .seed = seed};
    choose_distances(a);
    a->column = wl_alloc(sizeof *a->column * row_entries * (size_t)rows);
    a->value = wl_alloc(sizeof *a->value * row_entries * (size_t)rows);
    for (int i = 0; i < rows; i++) {
        int *column = a->column + (size_t)i * row_entries, row = row0 + i;
        double *value = a->value + (size_t)i * row_entries, diagonal = 0;
        for (int k = 0; k < pairs; k++) {
            const int d = a->distance[k], before = (row + n - d) % n;
            column[2 * k] = (row + d) % n;
            value[2 * k] = entry(a, row, d);
            column[2 * k + 1] = before;
            value[2 * k + 1] = entry(a, before, d);
            diagonal -= value[2 * k] + value[2 * k + 1];
        }
        /* Twice the sum of the others: condition 3 at most, so `steps` are enough. */
        column[row_entries - 1] = row;
        value[row_entries - 1] = 2 * diagonal;
    }
}

static void free_matrix(struct matrix *a)
{
    free(a->column);
    free(a->value);
}

static void multiply(const struct matrix *a, const double *p, double *q)
{
    for (int i = 0; i < a->rows; i++) {
        const int *column = a->column + (size_t)i * row_entries;
        const double *value = a->value + (size_t)i * row_entries;
        double sum = 0;
        for (int k = 0; k < row_entries; k++)
            sum += value[k] * p[column[k]];
        q[i] = sum;
    }
}

/* Sums of own chunks, the others', and all of them in order. A communicator of one rank: serially. */
static double dot(const struct matrix *a, const struct solve *s, MPI_Comm comm, const double *u, const double *v)
{
    int rank;
    MPI_Comm_rank(comm, &rank);
    double *own = s->sums + s->sum_first[rank], total = 0;
    for (int i = 0; i < a->rows; i += chunk) {
        double sum = 0;
        for (int j = i; j < i + chunk; j++)
            sum += u[j] * v[j];
        own[i / chunk] = sum;
    }
    MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, s->sums, s->sum_count, s->sum_first, MPI_DOUBLE, comm);
    for (int i = 0; i < a->n / chunk; i++)
        total += s->sums[i];
    return total;
}

/* What the right side of a solve is multiplied by. */
static double scale_of(long solve)
{
    return (solve % 2 == 0 ? 1 : -1) * ldexp(1, (int)(solve % 61) - 30);
}

/* Of the numbers as they would be without the scale. */
static uint64_t hash_of(const double *p, int n, double scale)
{
    uint64_t h = 0;
    for (int i = 0; i < n; i++) {
        const double plain = p[i] / scale;
        uint64_t bits;
        memcpy(&bits, &plain, sizeof bits);
        h = (h ^ bits) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    return h;
}

/* x = 0, r = p = b; returns the square of the residual. */
static double begin(const struct matrix *a, struct solve *s, MPI_Comm comm, double scale)
{
    for (int i = 0; i < a->n; i++)
        s->p[i] = scale * chosen(a, i);
    multiply(a, s->p, s->r);
    memset(s->x, 0, sizeof *s->x * (size_t)a->rows);
    memcpy(s->p + a->row0, s->r, sizeof *s->p * (size_t)a->rows);
    return dot(a, s, comm, s->r, s->r);
}

static void gather_direction(struct solve *s, MPI_Comm comm)
{
    MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, s->p, s->count, s->first, MPI_DOUBLE, comm);
}

/* A step, once the search direction is gathered; returns the new square of the residual. */
static double step(const struct matrix *a, struct solve *s, MPI_Comm comm, double rho)
{
    double *own = s->p + a->row0;
    multiply(a, s->p, s->q);
    const double alpha = rho / dot(a, s, comm, own, s->q);
    for (int i = 0; i < a->rows; i++) {
        s->x[i] += alpha * own[i];
        s->r[i] -= alpha * s->q[i];
    }
    const double next = dot(a, s, comm, s->r, s->r), beta = next / rho;
    for (int i = 0; i < a->rows; i++)
        own[i] = s->r[i] + beta * own[i];
    return next;
}

static void check_solution(struct workload *w, const struct matrix *a, struct solve *s, double scale)
{
    for (int i = 0; i < a->rows; i++) {
        const double want = scale * chosen(a, a->row0 + i);
        if (!(fabs(s->x[i] - want) <= tolerance * fabs(want)))
            wl_wrong(w, "element %d of the solution is %a, should be %a", a->row0 + i, s->x[i], want);
        s->q[i] = s->x[i] / scale;
    }
    wl_add_checksum(w, s->q, sizeof *s->q * (size_t)a->rows, (uint64_t)a->row0);
}

/* Whole chunks a rank: chunks first to last of the rank. */
static int first_chunk(int n, int rank, int ranks)
{
    return (int)((int64_t)(n / chunk) * rank / ranks);
}

static void make_solve(struct solve *s, int n, int rank, int ranks)
{
    s->count = wl_alloc(sizeof *s->count * 4 * (size_t)ranks);
    s->first = s->count + ranks;
    s->sum_count = s->count + 2 * ranks;
    s->sum_first = s->count + 3 * ranks;
    for (int r = 0; r < ranks; r++) {
        s->sum_first[r] = first_chunk(n, r, ranks);
        s->sum_count[r] = first_chunk(n, r + 1, ranks) - s->sum_first[r];
        s->first[r] = s->sum_first[r] * chunk;
        s->count[r] = s->sum_count[r] * chunk;
    }
    const size_t rows = (size_t)s->count[rank];
    s->x = wl_alloc(sizeof *s->x * rows);
    s->r = wl_alloc(sizeof *s->r * rows);
    s->q = wl_alloc(sizeof *s->q * rows);
    s->p = wl_alloc(sizeof *s->p * (size_t)n);
    s->sums = wl_alloc(sizeof *s->sums * (size_t)(n / chunk));
}

static void free_solve(struct solve *s)
{
    free(s->count);
    free(s->x);
    free(s->r);
    free(s->q);
    free(s->p);
    free(s->sums);
}

static void solve_serially(struct workload *w, int n, struct answers *answers)
{
    struct matrix a;
    struct solve s;
    make_matrix(&a, n, 0, n, w->seed);
    make_solve(&s, n, 0, 1);
    double rho = begin(&a, &s, MPI_COMM_SELF, 1);
    for (int k = 0; k < steps; k++) {
        answers->hash[k] = hash_of(s.p, n, 1);
        rho = answers->rho[k] = step(&a, &s, MPI_COMM_SELF, rho);
    }
    check_solution(w, &a, &s, 1);
    free_solve(&s);
    free_matrix(&a);
}

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "cg", &argc, &argv, MPI_THREAD_SINGLE);
    const int n = (int)wl_size(&w, default_rows, least_rows, largest_rows, true);
    if (w.ranks > n / chunk)
        wl_usage(&w, "there are more ranks than chunks of rows");
    struct answers answers;
    struct matrix a;
    struct solve s;
    solve_serially(&w, n, &answers);
    make_solve(&s, n, w.rank, w.ranks);
    make_matrix(&a, n, s.first[w.rank], s.count[w.rank], w.seed);
    wl_start_clock(&w);
    double rho = 0;
    do {
        const int k = (int)(w.iteration % steps);
        const double scale = scale_of(w.iteration / steps);
        if (k == 0)
            rho = begin(&a, &s, MPI_COMM_WORLD, scale);
        gather_direction(&s, MPI_COMM_WORLD);
        wl_corrupt(&w, s.p, sizeof *s.p * (size_t)n);
        const uint64_t hash = hash_of(s.p, n, scale);
        if (hash != answers.hash[k])
            wl_wrong(&w, "search direction of step %d has hash %016" PRIx64 ", should have %016" PRIx64, k, hash,
                     answers.hash[k]);
        rho = step(&a, &s, MPI_COMM_WORLD, rho);
        const double want = scale * scale * answers.rho[k];
        if (memcmp(&rho, &want, sizeof rho) != 0)
            wl_wrong(&w, "square of the residual after step %d is %a, should be %a", k, rho, want);
        wl_add_checksum(&w, &rho, sizeof rho, (uint64_t)k);
        if (k == steps - 1)
            check_solution(&w, &a, &s, scale);
    } while (wl_next(&w, MPI_COMM_WORLD));
    free_solve(&s);
    free_matrix(&a);
    return wl_finish(&w);
}
