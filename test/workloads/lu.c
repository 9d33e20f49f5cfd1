/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wavefront sweeps, in the manner of the NAS benchmark LU: a cube of points (--size is its edge) is cut into
 * columns over a grid of ranks. An iteration solves L (U w) = b: the lower sweep goes from corner to
 * opposite corner, plane by plane, each rank waiting for the edges of its western and southern
 * neighbours and passing its own on; the upper sweep comes back. Many small messages, one after the other.
 *
 * The answer is known: w is chosen first (other numbers in each iteration), and b made from it. All numbers are
 * small integers in doubles, so nothing is rounded, and every point and every edge received is compared
 * bit for bit. Small cubes are also solved serially, once, so that the way b is made is not its own witness.
 */
#include "workload.h"

#include <stdlib.h>
#include <string.h>

enum { default_edge = 32, least_edge = 8, largest_edge = 512, serial_edge = 32 };

/* Off-diagonal entries of L (towards smaller x, y, z) and U (towards larger). */
static const double lower[3] = {-1, 2, 1}, upper[3] = {2, 1, -1};

struct block {
    int n;              /* edge of the cube */
    int x0, y0, lx, ly; /* own columns */
    /* Planes of (ly + 2) rows of (lx + 2), a plane and a point more on every side. */
    double *solution;   /* w as chosen */
    double *middle;     /* U w */
    double *b, *found;
    int west, east, south, north;
};

static double *at(const struct block *k, double *field, int x, int y, int z)
{
    return field + (((size_t)(z + 1) * (size_t)(k->ly + 2) + (size_t)(y + 1)) * (size_t)(k->lx + 2) + (size_t)(x + 1));
}

static size_t points(const struct block *k)
{
    return (size_t)(k->lx + 2) * (size_t)(k->ly + 2) * (size_t)(k->n + 2);
}

/* The chosen w: whole numbers below 2^16 inside the cube, 0 outside. */
static double chosen(const struct block *k, uint64_t key, int x, int y, int z)
{
    if (x < 0 || y < 0 || z < 0 || x >= k->n || y >= k->n || z >= k->n)
        return 0;
    uint64_t h = (key + ((uint64_t)z << 32 | (uint64_t)y << 16 | (uint64_t)x)) * 0x9e3779b97f4a7c15u;
    return (double)(h >> 48);
}

/* The right side b = L (U w); U w outside the cube is 0. */
static void make_problem(struct block *k, uint64_t key)
{
    for (int z = -1; z <= k->n; z++)
        for (int y = -1; y <= k->ly; y++)
            for (int x = -1; x <= k->lx; x++)
                *at(k, k->solution, x, y, z) = chosen(k, key, k->x0 + x, k->y0 + y, z);
    memset(k->middle, 0, points(k) * sizeof *k->middle);
    for (int z = 0; z < k->n; z++)
        for (int y = -1; y < k->ly; y++)
            for (int x = -1; x < k->lx; x++)
                if (k->x0 + x >= 0 && k->y0 + y >= 0)
                    *at(k, k->middle, x, y, z) =
                        *at(k, k->solution, x, y, z) + upper[0] * *at(k, k->solution, x + 1, y, z)
                        + upper[1] * *at(k, k->solution, x, y + 1, z) + upper[2] * *at(k, k->solution, x, y, z + 1);
    for (int z = 0; z < k->n; z++)
        for (int y = 0; y < k->ly; y++)
            for (int x = 0; x < k->lx; x++)
                *at(k, k->b, x, y, z) =
                    *at(k, k->middle, x, y, z) + lower[0] * *at(k, k->middle, x - 1, y, z)
                    + lower[1] * *at(k, k->middle, x, y - 1, z) + lower[2] * *at(k, k->middle, x, y, z - 1);
}

/* One plane of L v = b; v is written into found, whose edges to the west and south are there. */
static void lower_plane(struct block *k, int z)
{
    for (int y = 0; y < k->ly; y++)
        for (int x = 0; x < k->lx; x++)
            *at(k, k->found, x, y, z) =
                *at(k, k->b, x, y, z) - lower[0] * *at(k, k->found, x - 1, y, z)
                - lower[1] * *at(k, k->found, x, y - 1, z) - lower[2] * *at(k, k->found, x, y, z - 1);
}

/* One plane of U w = v, from v in found, over it; its edges to the east and north are there. */
static void upper_plane(struct block *k, int z)
{
    for (int y = k->ly - 1; y >= 0; y--)
        for (int x = k->lx - 1; x >= 0; x--)
            *at(k, k->found, x, y, z) -= upper[0] * *at(k, k->found, x + 1, y, z)
                                         + upper[1] * *at(k, k->found, x, y + 1, z)
                                         + upper[2] * *at(k, k->found, x, y, z + 1);
}

/* The plane's column x or row y to or from a buffer. */
static void copy_column(const struct block *k, double *field, int x, int z, double *edge, bool out)
{
    for (int y = 0; y < k->ly; y++) {
        double *p = at(k, field, x, y, z);
        if (out)
            edge[y] = *p;
        else
            *p = edge[y];
    }
}

static void compare(struct workload *w, const struct block *k, const double *got, const double *want, size_t count,
                    const char *what, int z)
{
    for (size_t i = 0; i < count; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
            wl_wrong(w, "%s, plane %d of a cube of %d: number %zu is %a, should be %a", what, z, k->n, i, got[i],
                     want[i]);
}

/* Takes the edges of a plane from two neighbours; expected has what they must be. */
static void take_edges(struct workload *w, struct block *k, double *expected, int from_x, int from_y, bool low, int z,
                       double *edge)
{
    const int x = low ? -1 : k->lx, y = low ? -1 : k->ly;
    if (from_x != MPI_PROC_NULL) {
        double *want = edge + k->ly;
        MPI_Recv(edge, k->ly, MPI_DOUBLE, from_x, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        wl_corrupt(w, edge, sizeof *edge * (size_t)k->ly);
        copy_column(k, expected, x, z, want, true);
        compare(w, k, edge, want, (size_t)k->ly, "edge of columns", z);
        copy_column(k, k->found, x, z, edge, false);
    }
    if (from_y != MPI_PROC_NULL) {
        double *row = at(k, k->found, 0, y, z);
        MPI_Recv(row, k->lx, MPI_DOUBLE, from_y, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        wl_corrupt(w, row, sizeof *row * (size_t)k->lx);
        compare(w, k, row, at(k, expected, 0, y, z), (size_t)k->lx, "edge of rows", z);
    }
}

static void pass_edges(struct block *k, int to_x, int to_y, bool low, int z, double *edge)
{
    const int x = low ? k->lx - 1 : 0, y = low ? k->ly - 1 : 0;
    copy_column(k, k->found, x, z, edge, true);
    MPI_Send(edge, k->ly, MPI_DOUBLE, to_x, 0, MPI_COMM_WORLD);
    MPI_Send(at(k, k->found, 0, y, z), k->lx, MPI_DOUBLE, to_y, 1, MPI_COMM_WORLD);
}

/* Compares the points of the block with the known ones. */
static void verify(struct workload *w, struct block *k, double *known, const char *what)
{
    for (int z = 0; z < k->n; z++)
        for (int y = 0; y < k->ly; y++) {
            compare(w, k, at(k, k->found, 0, y, z), at(k, known, 0, y, z), (size_t)k->lx, what, z);
            wl_add_checksum(w, at(k, k->found, 0, y, z), sizeof(double) * (size_t)k->lx,
                            ((uint64_t)z << 32 | (uint64_t)(k->y0 + y) << 16) + (uint64_t)k->x0);
        }
}

static void iterate(struct workload *w, struct block *k, double *edge)
{
    make_problem(k, wl_key(w, 0, 0));
    memset(k->found, 0, points(k) * sizeof *k->found);
    for (int z = 0; z < k->n; z++) {
        take_edges(w, k, k->middle, k->west, k->south, true, z, edge);
        lower_plane(k, z);
        pass_edges(k, k->east, k->north, true, z, edge);
    }
    for (int z = k->n - 1; z >= 0; z--) {
        take_edges(w, k, k->solution, k->east, k->north, false, z, edge);
        upper_plane(k, z);
        pass_edges(k, k->west, k->south, false, z, edge);
    }
    verify(w, k, k->solution, "solution");
}

static void allocate(struct workload *w, struct block *k)
{
    const size_t count = points(k);
    k->solution = calloc(4 * count, sizeof(double));
    if (k->solution == NULL)
        wl_wrong(w, "no memory for %zu points", 4 * count);
    k->middle = k->solution + count;
    k->b = k->solution + 2 * count;
    k->found = k->solution + 3 * count;
}

/* The whole cube on this rank alone, by the same sweeps. */
static void solve_serially(struct workload *w, int n)
{
    struct block k = {.n = n, .lx = n, .ly = n};
    allocate(w, &k);
    make_problem(&k, wl_key(w, 0, 0));
    for (int z = 0; z < n; z++)
        lower_plane(&k, z);
    for (int z = n - 1; z >= 0; z--)
        upper_plane(&k, z);
    verify(w, &k, k.solution, "serial solution");
    free(k.solution);
}

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "lu", &argc, &argv, MPI_THREAD_SINGLE);
    struct block k = {.n = (int)wl_size(&w, default_edge, least_edge, largest_edge, false)};
    int dims[2] = {0, 0}, periods[2] = {0, 0}, coords[2];
    MPI_Comm grid;
    MPI_Dims_create(w.ranks, 2, dims);
    MPI_Cart_create(MPI_COMM_WORLD, 2, dims, periods, 0, &grid);
    MPI_Cart_coords(grid, w.rank, 2, coords);
    MPI_Cart_shift(grid, 0, 1, &k.west, &k.east);
    MPI_Cart_shift(grid, 1, 1, &k.south, &k.north);
    if (dims[0] > k.n || dims[1] > k.n)
        wl_usage(&w, "there are more ranks than columns of the cube");
    k.x0 = coords[0] * k.n / dims[0];
    k.lx = (coords[0] + 1) * k.n / dims[0] - k.x0;
    k.y0 = coords[1] * k.n / dims[1];
    k.ly = (coords[1] + 1) * k.n / dims[1] - k.y0;
    allocate(&w, &k);
    double *edge = wl_alloc(sizeof *edge * 2 * (size_t)k.ly);
    if (k.n <= serial_edge)
        solve_serially(&w, k.n);
    wl_start_clock(&w);
    do
        iterate(&w, &k, edge);
    while (wl_next(&w, MPI_COMM_WORLD));
    MPI_Comm_free(&grid);
    free(edge);
    free(k.solution);
    return wl_finish(&w);
}
