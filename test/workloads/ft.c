/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transform with transposes, in the manner of the NAS benchmark FT: a square matrix (--size is its edge,
 * a power of two) is distributed by rows; each iteration transforms the rows, transposes by MPI_Alltoall,
 * transforms the columns, multiplies by factors, and goes all the way back.
 *
 * The transform is that of integers modulo a prime instead of complex numbers: same passes, same
 * transposes, and nothing is rounded. The factors are powers of the root of unity, which shift the
 * matrix cyclically, by another distance in each iteration: so the inverse must give back the input, shifted,
 * bit for bit. On the way the element (0, 0) of the spectrum must be the sum of the input.
 */
#include "workload.h"

#include <stdlib.h>

enum { prime = 998244353, primitive_root = 3, default_edge = 128, least_edge = 16, largest_edge = 8192 };

struct matrix {
    uint32_t n;        /* edge */
    uint32_t rows;     /* of a block: every rank has room for as many, the last has fewer in use */
    uint32_t y0, used; /* own rows in use */
    uint32_t width;    /* of a stored row: rows * ranks, at least n */
    uint32_t *now, *blocks, *arrived;
    uint32_t *power, *inverse; /* power[i] = root^i, inverse[i] = root^-i, i < n */
    uint32_t one_over_n;
};

static inline uint32_t times(uint32_t a, uint32_t b)
{
    return (uint32_t)((uint64_t)a * b % prime);
}

static uint32_t to_the(uint32_t base, uint32_t exponent)
{
    uint32_t result = 1;
    for (; exponent > 0; exponent >>= 1, base = times(base, base))
        if (exponent & 1)
            result = times(result, base);
    return result;
}

/* One row in place; powers of the root of unity (or of its inverse) decide the direction. Not scaled. */
static void transform(uint32_t *a, uint32_t n, const uint32_t *powers)
{
    for (uint32_t i = 1, j = 0; i < n; i++) {
        uint32_t bit = n >> 1;
        for (; j & bit; bit >>= 1)
            j ^= bit;
        j ^= bit;
        if (i < j) {
            const uint32_t swap = a[i];
            a[i] = a[j];
            a[j] = swap;
        }
    }
    for (uint32_t length = 2; length <= n; length <<= 1)
        for (uint32_t i = 0; i < n; i += length)
            for (uint32_t j = 0; j < length / 2; j++) {
                const uint32_t u = a[i + j], v = times(a[i + j + length / 2], powers[n / length * j]);
                a[i + j] = u + v >= prime ? u + v - prime : u + v;
                a[i + j + length / 2] = u >= v ? u - v : u + prime - v;
            }
}

static void transform_rows(struct matrix *m, const uint32_t *powers)
{
    for (uint32_t y = 0; y < m->used; y++)
        transform(m->now + (size_t)y * m->width, m->n, powers);
}

/* Blocks of rows * rows elements, turned round by the sender; those outside the matrix are carried along. */
static void transpose(struct workload *w, struct matrix *m)
{
    const size_t block = (size_t)m->rows * m->rows;
    for (int r = 0; r < w->ranks; r++)
        for (uint32_t x = 0; x < m->rows; x++)
            for (uint32_t y = 0; y < m->rows; y++)
                m->blocks[block * (size_t)r + (size_t)x * m->rows + y] =
                    m->now[(size_t)y * m->width + (size_t)r * m->rows + x];
    MPI_Alltoall(m->blocks, (int)block, MPI_UINT32_T, m->arrived, (int)block, MPI_UINT32_T, MPI_COMM_WORLD);
    wl_corrupt(w, m->arrived, sizeof *m->arrived * block * (size_t)w->ranks);
    for (int r = 0; r < w->ranks; r++)
        for (uint32_t y = 0; y < m->rows; y++)
            for (uint32_t x = 0; x < m->rows; x++)
                m->now[(size_t)y * m->width + (size_t)r * m->rows + x] =
                    m->arrived[block * (size_t)r + (size_t)y * m->rows + x] % prime;
}

static uint32_t input(uint64_t key, uint32_t n, uint32_t x, uint32_t y)
{
    uint64_t h = (key + (uint64_t)y * n + x) * 0x9e3779b97f4a7c15u;
    return (uint32_t)((h ^ h >> 32) % prime);
}

/* Distance of the shift in this iteration. */
static uint32_t shift_of(const struct workload *w, uint32_t n, int odd)
{
    return (uint32_t)((uint64_t)(w->iteration + 1) * (uint64_t)odd) & (n - 1);
}

/* Own rows of the input; returns their sum. */
static uint64_t make_input(struct matrix *m, uint64_t key)
{
    uint64_t sum = 0;
    for (uint32_t y = 0; y < m->used; y++)
        for (uint32_t x = 0; x < m->n; x++) {
            const uint32_t value = input(key, m->n, x, m->y0 + y);
            m->now[(size_t)y * m->width + x] = value;
            sum = (sum + value) % prime;
        }
    return sum;
}

/* The spectrum is transposed: row k of it is that of column frequency k. */
static void multiply(struct matrix *m, uint32_t dx, uint32_t dy)
{
    for (uint32_t k = 0; k < m->used; k++)
        for (uint32_t l = 0; l < m->n; l++) {
            uint32_t *value = &m->now[(size_t)k * m->width + l];
            const uint32_t e = (uint32_t)(((uint64_t)(m->y0 + k) * dx + (uint64_t)l * dy) & (m->n - 1));
            *value = times(*value, m->power[e]);
        }
}

static void verify(struct workload *w, struct matrix *m, uint64_t key, uint32_t dx, uint32_t dy)
{
    const uint32_t scale = times(m->one_over_n, m->one_over_n), mask = m->n - 1;
    for (uint32_t y = 0; y < m->used; y++) {
        uint32_t *row = m->now + (size_t)y * m->width;
        for (uint32_t x = 0; x < m->n; x++) {
            const uint32_t want = input(key, m->n, (x - dx) & mask, (m->y0 + y - dy) & mask);
            row[x] = times(row[x], scale);
            if (row[x] != want)
                wl_wrong(w, "element (%u, %u) is %u, should be %u", x, m->y0 + y, row[x], want);
        }
        wl_add_checksum(w, row, sizeof *row * m->n, m->y0 + y);
    }
}

static void iterate(struct workload *w, struct matrix *m)
{
    const uint64_t key = wl_key(w, 0, 0);
    const uint32_t dx = shift_of(w, m->n, 7), dy = shift_of(w, m->n, 3);
    uint64_t sums[2] = {make_input(m, key), 0};
    transform_rows(m, m->power);
    transpose(w, m);
    transform_rows(m, m->power);
    if (m->y0 == 0)
        sums[1] = m->now[0];
    MPI_Allreduce(MPI_IN_PLACE, sums, 2, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
    wl_expect(w, (int64_t)sums[1], (int64_t)(sums[0] % prime), "element (0, 0) of the spectrum");
    multiply(m, dx, dy);
    transform_rows(m, m->inverse);
    transpose(w, m);
    transform_rows(m, m->inverse);
    verify(w, m, key, dx, dy);
}

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "ft", &argc, &argv, MPI_THREAD_SINGLE);
    struct matrix m = {.n = (uint32_t)wl_size(&w, default_edge, least_edge, largest_edge, true)};
    const uint32_t ranks = (uint32_t)w.ranks, rank = (uint32_t)w.rank;
    m.rows = (m.n + ranks - 1) / ranks;
    m.width = m.rows * ranks;
    m.y0 = rank * m.rows;
    m.used = m.y0 >= m.n ? 0 : m.n - m.y0 < m.rows ? m.n - m.y0 : m.rows;
    const size_t cells = (size_t)m.rows * m.width;
    m.now = calloc(cells, sizeof *m.now);
    m.power = wl_alloc(sizeof *m.power * m.n);
    m.inverse = wl_alloc(sizeof *m.inverse * m.n);
    m.blocks = wl_alloc(sizeof *m.blocks * cells);
    m.arrived = wl_alloc(sizeof *m.arrived * cells);
    if (m.now == NULL)
        wl_wrong(&w, "no memory for %zu elements", cells);
    const uint32_t root = to_the(primitive_root, (prime - 1) / m.n), back = to_the(root, prime - 2);
    m.power[0] = m.inverse[0] = 1;
    for (uint32_t i = 1; i < m.n; i++) {
        m.power[i] = times(m.power[i - 1], root);
        m.inverse[i] = times(m.inverse[i - 1], back);
    }
    m.one_over_n = to_the(m.n, prime - 2);
    wl_start_clock(&w);
    do
        iterate(&w, &m);
    while (wl_next(&w, MPI_COMM_WORLD));
    free(m.now);
    free(m.power);
    free(m.inverse);
    free(m.blocks);
    free(m.arrived);
    return wl_finish(&w);
}
