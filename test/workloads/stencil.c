/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 2-D heat equation on a torus, explicit scheme, block decomposition with halo exchange by derived
 * datatypes, and a known answer: the same steps done serially on the whole grid give the same
 * field bit for bit, as every point is computed from the same five numbers in the same order.
 *
 * The steps are cut into runs. A run begins with the initial field times a power of two (which is
 * exact, so one serial reference serves all runs) and another sign, so that data left over from an
 * earlier run can never look right. Every full run is compared with the reference, and so is
 * the last, unfinished one, after as many serial steps as it had.
 */
#include "workload.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { run_steps = 200, residual_period = 10, field_count = 2 };
enum { west, east, south, north };

/* One field is small (eager halos), the other long (halos large enough for a rendezvous). */
static const int field_size[field_count][2] = {{64, 64}, {16, 4096}}; /* x, y */

struct field {
    int nx, ny;         /* whole grid */
    int x0, y0, lx, ly; /* this rank's block */
    double *now, *next; /* (ly + 2) rows of (lx + 2), halo included */
    MPI_Datatype column, row;
};

struct reference {
    double *initial, *final;            /* ny rows of nx, without halo */
    double residual[run_steps / residual_period]; /* largest change in a step */
};

static double *cell(double *block, int lx, int x, int y)
{
    return block + (size_t)(y + 1) * (size_t)(lx + 2) + (size_t)(x + 1);
}

/* One step on a block with its halo; returns the largest change (a maximum does not depend on order). */
static double relax(const double *now, double *next, int lx, int ly)
{
    double largest = 0;
    int width = lx + 2;
    for (int y = 1; y <= ly; y++)
        for (int x = 1; x <= lx; x++) {
            size_t i = (size_t)y * (size_t)width + (size_t)x;
            double change =
                0.2 * ((now[i - 1] + now[i + 1]) + (now[i - (size_t)width] + now[i + (size_t)width]) - 4 * now[i]);
            next[i] = now[i] + change;
            if (fabs(change) > largest)
                largest = fabs(change);
        }
    return largest;
}

static void initialise(struct workload *w, double *grid, int nx, int ny)
{
    for (int y = 0; y < ny; y++)
        for (int x = 0; x < nx; x++) {
            uint64_t word;
            wl_fill(&word, sizeof word, w->seed * 7919 + (uint64_t)y * 65536 + (uint64_t)x);
            grid[(size_t)y * (size_t)nx + (size_t)x] = 1 + (double)(word % 1000) / 16;
        }
}

/* Does `steps` steps serially from the initial field into result; fills residual when it is not NULL. */
static void solve_serially(const double *initial, int nx, int ny, int steps, double *result, double *residual)
{
    size_t bytes = sizeof(double) * (size_t)(nx + 2) * (size_t)(ny + 2);
    double *now = wl_alloc(bytes), *next = wl_alloc(bytes);
    for (int y = 0; y < ny; y++)
        memcpy(cell(now, nx, 0, y), initial + (size_t)y * (size_t)nx, sizeof(double) * (size_t)nx);
    for (int step = 0; step < steps; step++) {
        for (int y = 0; y < ny; y++) {
            *cell(now, nx, -1, y) = *cell(now, nx, nx - 1, y);
            *cell(now, nx, nx, y) = *cell(now, nx, 0, y);
        }
        memcpy(cell(now, nx, 0, -1), cell(now, nx, 0, ny - 1), sizeof(double) * (size_t)nx);
        memcpy(cell(now, nx, 0, ny), cell(now, nx, 0, 0), sizeof(double) * (size_t)nx);
        double change = relax(now, next, nx, ny);
        if (residual != NULL && step % residual_period == residual_period - 1)
            residual[step / residual_period] = change;
        double *swap = now;
        now = next;
        next = swap;
    }
    for (int y = 0; y < ny; y++)
        memcpy(result + (size_t)y * (size_t)nx, cell(now, nx, 0, y), sizeof(double) * (size_t)nx);
    free(now);
    free(next);
}

/* What the data of a run are multiplied by: exact, and different from the runs before. */
static double scale_of(long run)
{
    return (run % 2 == 0 ? 1 : -1) * ldexp(1, (int)(run % 61) - 30);
}

static void begin_run(struct field *f, const struct reference *ref, long run)
{
    double scale = scale_of(run);
    for (int y = 0; y < f->ly; y++)
        for (int x = 0; x < f->lx; x++)
            *cell(f->now, f->lx, x, y) =
                scale * ref->initial[(size_t)(f->y0 + y) * (size_t)f->nx + (size_t)(f->x0 + x)];
}

static void exchange_halos(struct field *f, MPI_Comm comm, const int neighbour[4], int tag)
{
    MPI_Request q[8];
    int n = 0, lx = f->lx, ly = f->ly;
    MPI_Irecv(cell(f->now, lx, -1, 0), 1, f->column, neighbour[west], tag + east, comm, &q[n++]);
    MPI_Irecv(cell(f->now, lx, lx, 0), 1, f->column, neighbour[east], tag + west, comm, &q[n++]);
    MPI_Irecv(cell(f->now, lx, 0, -1), 1, f->row, neighbour[south], tag + north, comm, &q[n++]);
    MPI_Irecv(cell(f->now, lx, 0, ly), 1, f->row, neighbour[north], tag + south, comm, &q[n++]);
    MPI_Isend(cell(f->now, lx, 0, 0), 1, f->column, neighbour[west], tag + west, comm, &q[n++]);
    MPI_Isend(cell(f->now, lx, lx - 1, 0), 1, f->column, neighbour[east], tag + east, comm, &q[n++]);
    MPI_Isend(cell(f->now, lx, 0, 0), 1, f->row, neighbour[south], tag + south, comm, &q[n++]);
    MPI_Isend(cell(f->now, lx, 0, ly - 1), 1, f->row, neighbour[north], tag + north, comm, &q[n++]);
    MPI_Waitall(n, q, MPI_STATUSES_IGNORE);
}

static void compare(struct workload *w, struct field *f, const double *expected, long run, const char *what)
{
    double scale = scale_of(run);
    wl_corrupt(w, cell(f->now, f->lx, 0, f->ly / 2), sizeof(double) * (size_t)f->lx);
    for (int y = 0; y < f->ly; y++) {
        for (int x = 0; x < f->lx; x++) {
            double got = *cell(f->now, f->lx, x, y);
            double want = scale * expected[(size_t)(f->y0 + y) * (size_t)f->nx + (size_t)(f->x0 + x)];
            if (memcmp(&got, &want, sizeof got) != 0)
                wl_wrong(w, "%s, field %dx%d: point (%d, %d) is %a, should be %a", what, f->nx, f->ny, f->x0 + x,
                         f->y0 + y, got, want);
        }
        wl_add_checksum(w, cell(f->now, f->lx, 0, y), sizeof(double) * (size_t)f->lx,
                        (uint64_t)(f->y0 + y) * 65536 + (uint64_t)f->x0);
    }
}

static void check_residual(struct workload *w, MPI_Comm comm, double *change, const struct reference *refs, int step,
                           long run)
{
    MPI_Allreduce(MPI_IN_PLACE, change, field_count, MPI_DOUBLE, MPI_MAX, comm);
    for (int k = 0; k < field_count; k++) {
        double want = fabs(scale_of(run)) * refs[k].residual[step / residual_period];
        if (memcmp(&change[k], &want, sizeof want) != 0)
            wl_wrong(w, "residual of field %d is %a, should be %a", k, change[k], want);
    }
    wl_add_checksum(w, change, sizeof *change * field_count, (uint64_t)step);
}

static void make_field(struct workload *w, struct field *f, struct reference *ref, const int size[2],
                       const int dims[2], const int coords[2])
{
    f->nx = size[0];
    f->ny = size[1];
    if (dims[0] > f->nx || dims[1] > f->ny)
        wl_wrong(w, "%d ranks are too many for a grid of %dx%d", w->ranks, f->nx, f->ny);
    f->x0 = coords[0] * f->nx / dims[0];
    f->lx = (coords[0] + 1) * f->nx / dims[0] - f->x0;
    f->y0 = coords[1] * f->ny / dims[1];
    f->ly = (coords[1] + 1) * f->ny / dims[1] - f->y0;
    size_t cells = (size_t)(f->lx + 2) * (size_t)(f->ly + 2), whole = (size_t)f->nx * (size_t)f->ny;
    f->now = calloc(cells, sizeof(double));
    f->next = calloc(cells, sizeof(double));
    if (f->now == NULL || f->next == NULL)
        wl_wrong(w, "no memory for %zu cells", cells);
    MPI_Type_vector(f->ly, 1, f->lx + 2, MPI_DOUBLE, &f->column);
    MPI_Type_contiguous(f->lx, MPI_DOUBLE, &f->row);
    MPI_Type_commit(&f->column);
    MPI_Type_commit(&f->row);
    ref->initial = wl_alloc(sizeof(double) * whole);
    ref->final = wl_alloc(sizeof(double) * whole);
    initialise(w, ref->initial, f->nx, f->ny);
    solve_serially(ref->initial, f->nx, f->ny, run_steps, ref->final, ref->residual);
}

static void free_field(struct field *f, struct reference *ref)
{
    MPI_Type_free(&f->column);
    MPI_Type_free(&f->row);
    free(f->now);
    free(f->next);
    free(ref->initial);
    free(ref->final);
}

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "stencil", &argc, &argv, MPI_THREAD_SINGLE);
    int dims[2] = {0, 0}, periods[2] = {1, 1}, coords[2], neighbour[4];
    MPI_Comm torus;
    MPI_Dims_create(w.ranks, 2, dims);
    MPI_Cart_create(MPI_COMM_WORLD, 2, dims, periods, 0, &torus);
    MPI_Cart_coords(torus, w.rank, 2, coords);
    MPI_Cart_shift(torus, 0, 1, &neighbour[west], &neighbour[east]);
    MPI_Cart_shift(torus, 1, 1, &neighbour[south], &neighbour[north]);

    struct field fields[field_count];
    struct reference refs[field_count];
    for (int k = 0; k < field_count; k++)
        make_field(&w, &fields[k], &refs[k], field_size[k], dims, coords);
    /* The serial reference is no part of the job's time. */
    MPI_Barrier(torus);
    w.started = w.last = w.printed = wl_now();

    int step = 0;
    long run = 0;
    bool more = true;
    while (more) {
        double change[field_count];
        if (step == 0)
            for (int k = 0; k < field_count; k++)
                begin_run(&fields[k], &refs[k], run);
        for (int k = 0; k < field_count; k++) {
            struct field *f = &fields[k];
            exchange_halos(f, torus, neighbour, 10 * k);
            change[k] = relax(f->now, f->next, f->lx, f->ly);
            double *swap = f->now;
            f->now = f->next;
            f->next = swap;
        }
        if (step % residual_period == residual_period - 1)
            check_residual(&w, torus, change, refs, step, run);
        step++;
        if (step == run_steps) {
            for (int k = 0; k < field_count; k++)
                compare(&w, &fields[k], refs[k].final, run, "end of a run");
            run++;
            step = 0;
        }
        more = wl_next(&w, torus);
    }
    for (int k = 0; k < field_count && step > 0; k++) {
        struct field *f = &fields[k];
        double *expected = wl_alloc(sizeof(double) * (size_t)f->nx * (size_t)f->ny);
        solve_serially(refs[k].initial, f->nx, f->ny, step, expected, NULL);
        compare(&w, f, expected, run, "end of the job");
        free(expected);
    }
    for (int k = 0; k < field_count; k++)
        free_field(&fields[k], &refs[k]);
    MPI_Comm_free(&torus);
    return wl_finish(&w);
}
