/* SPDX-License-Identifier: Apache-2.0 */
#include "board.h"
#include "check.h"

#include <errno.h>
#include <string.h>

static struct sv_board_set *sets;

/* One datagram's worth for (cycle 1, step 1, key "k") unless the test changes it. */
static struct sv_msg_board header(uint32_t rank, uint32_t offset, uint32_t total)
{
    struct sv_msg_board h = {.h = {.cycle = 1, .step = 1}, .key = "k", .rank = rank, .offset = offset, .total = total};
    return h;
}

static int take(uint32_t world, uint32_t rank, uint32_t offset, uint32_t total, const char *bytes, size_t size)
{
    const struct sv_msg_board h = header(rank, offset, total);
    return sv_board_take(&sets, world, &h, bytes, size);
}

static const struct sv_board_set *found(void)
{
    return sv_board_find(sets, 1, 1, "k");
}

static void forget_all(void)
{
    sv_board_forget(&sets, UINT32_MAX, UINT32_MAX);
    CHECK(NULL == sets);
}

CASE(complete_set)
{
    CHECK_EQ(take(3, 2, 0, 3, "two", 3), 0);
    CHECK_EQ(take(3, 0, 0, 4, "zero", 4), 0);
    CHECK(NULL == found());
    CHECK_EQ(take(3, 1, 0, 3, "one", 3), 0);
    const struct sv_board_set *set = found();
    CHECK(NULL != set);
    CHECK_EQ(set->world_size, 3);
    CHECK_EQ(set->part[0].size, 4);
    CHECK(0 == memcmp(set->part[0].bytes, "zero", 4));
    CHECK(0 == memcmp(set->part[1].bytes, "one", 3));
    CHECK(0 == memcmp(set->part[2].bytes, "two", 3));
    CHECK(NULL == sv_board_find(sets, 1, 2, "k"));
    CHECK(NULL == sv_board_find(sets, 2, 1, "k"));
    CHECK(NULL == sv_board_find(sets, 1, 1, "other"));
    forget_all();
}

CASE(chunks_and_repeats)
{
    CHECK_EQ(take(1, 0, 0, 9, "abc", 3), 0);
    CHECK_EQ(take(1, 0, 3, 9, "def", 3), 0);
    CHECK(NULL == found());
    /* the agent came back and starts over */
    CHECK_EQ(take(1, 0, 0, 9, "abc", 3), 0);
    CHECK_EQ(take(1, 0, 3, 9, "def", 3), 0);
    CHECK(NULL == found());
    CHECK_EQ(take(1, 0, 6, 9, "ghi", 3), 0);
    CHECK(0 == memcmp(found()->part[0].bytes, "abcdefghi", 9));
    /* a complete part never changes again: the main thread may be reading it */
    CHECK_EQ(take(1, 0, 0, 9, "XXX", 3), 0);
    CHECK_EQ(take(1, 0, 0, 3, "XXX", 3), 0);
    CHECK(0 == memcmp(found()->part[0].bytes, "abcdefghi", 9));
    CHECK_EQ(found()->complete_parts, 1);
    forget_all();
}

CASE(gap_is_refused_and_can_be_filled)
{
    CHECK_EQ(take(1, 0, 0, 9, "abc", 3), 0);
    CHECK_EQ(take(1, 0, 6, 9, "ghi", 3), -EPROTO);
    CHECK(NULL == found());
    CHECK_EQ(take(1, 0, 3, 9, "def", 3), 0);
    CHECK_EQ(take(1, 0, 6, 9, "ghi", 3), 0);
    CHECK(0 == memcmp(found()->part[0].bytes, "abcdefghi", 9));
    forget_all();
}

CASE(first_datagram_in_the_middle)
{
    CHECK_EQ(take(1, 0, 3, 9, "def", 3), -EPROTO);
    CHECK(NULL == found());
    forget_all();
}

CASE(empty_parts)
{
    CHECK_EQ(take(2, 0, 0, 0, NULL, 0), 0);
    CHECK_EQ(take(2, 0, 0, 0, NULL, 0), 0);
    CHECK(NULL == found());
    CHECK_EQ(take(2, 1, 0, 0, NULL, 0), 0);
    CHECK_EQ(found()->part[1].size, 0);
    forget_all();
}

CASE(empty_chunk_completes_nothing)
{
    CHECK_EQ(take(1, 0, 0, 4, NULL, 0), 0);
    CHECK(NULL == found());
    CHECK_EQ(take(1, 0, 0, 4, "full", 4), 0);
    CHECK(NULL != found());
    forget_all();
}

CASE(bad_datagrams)
{
    struct sv_msg_board h = header(0, 0, 1);
    CHECK_EQ(take(2, 2, 0, 1, "x", 1), -EPROTO);
    CHECK_EQ(take(2, UINT32_MAX, 0, 1, "x", 1), -EPROTO);
    CHECK_EQ(take(2, 0, 0, SV_WIRE_MAX_POST + 1, "x", 1), -EPROTO);
    CHECK_EQ(take(2, 0, 0, 1, "xy", 2), -EPROTO);
    CHECK_EQ(take(2, 0, 1, 1, "x", 1), -EPROTO);
    CHECK_EQ(take(2, 0, UINT32_MAX, 4, "x", 1), -EPROTO);
    memset(h.key, 'k', sizeof(h.key));
    CHECK_EQ(sv_board_take(&sets, 2, &h, "x", 1), -EPROTO);
    CHECK(NULL == sets);
}

CASE(another_total_starts_over)
{
    CHECK_EQ(take(1, 0, 0, 6, "abc", 3), 0);
    CHECK_EQ(take(1, 0, 3, 7, "def", 3), -EPROTO);
    CHECK_EQ(take(1, 0, 0, 4, "wxyz", 4), 0);
    CHECK_EQ(found()->part[0].size, 4);
    CHECK(0 == memcmp(found()->part[0].bytes, "wxyz", 4));
    forget_all();
}

CASE(forget_only_older)
{
    static const uint32_t at[][2] = {{2, 2}, {1, 9}, {2, 1}, {3, 0}, {2, 3}};
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        struct sv_msg_board h = header(0, 0, 0);
        h.h.cycle = at[i][0];
        h.h.step = at[i][1];
        CHECK_EQ(sv_board_take(&sets, 1, &h, NULL, 0), 0);
    }
    sv_board_forget(&sets, 2, 2);
    CHECK(NULL != sv_board_find(sets, 2, 2, "k"));
    CHECK(NULL == sv_board_find(sets, 1, 9, "k"));
    CHECK(NULL == sv_board_find(sets, 2, 1, "k"));
    CHECK(NULL != sv_board_find(sets, 3, 0, "k"));
    CHECK(NULL != sv_board_find(sets, 2, 3, "k"));
    forget_all();
}

/* Parts of several sets cut at random, interleaved at random, with repeats, restarts and rubbish between. */
CASE(any_order)
{
    enum { ROUNDS = 300, MOST_WORLD = 5, KEYS = 2, MOST = 200 };
    static const char *const keys[KEYS] = {"drain.0", "drain.1"};
    uint64_t seed = 20240607;
    for (int round = 0; round < ROUNDS; round++) {
        const uint32_t world = 1 + check_below(&seed, MOST_WORLD);
        static unsigned char bytes[KEYS][MOST_WORLD][MOST];
        uint32_t total[KEYS][MOST_WORLD], at[KEYS][MOST_WORLD];
        bool done[KEYS][MOST_WORLD] = {{false}};
        uint32_t left = KEYS * world;
        for (int k = 0; k < KEYS; k++) {
            for (uint32_t r = 0; r < world; r++) {
                total[k][r] = check_below(&seed, 4) ? check_below(&seed, MOST) : 0;
                at[k][r] = 0;
                for (uint32_t i = 0; i < MOST; i++) {
                    bytes[k][r][i] = (unsigned char)check_random(&seed);
                }
            }
        }
        while (left) {
            const uint32_t k = check_below(&seed, KEYS), r = check_below(&seed, world), kind = check_below(&seed, 10);
            struct sv_msg_board h = header(r, at[k][r], total[k][r]);
            strcpy(h.key, keys[k]);
            if (0 == kind) { /* rubbish must change nothing */
                h.offset = total[k][r] + 1;
                CHECK_EQ(sv_board_take(&sets, world, &h, "rubbish", 7), -EPROTO);
                continue;
            }
            if (1 == kind && total[k][r]) { /* the sender starts over */
                at[k][r] = h.offset = 0;
            }
            uint32_t size = total[k][r] - h.offset;
            if (size > 1 && kind < 8) {
                size = 1 + check_below(&seed, size);
            }
            CHECK_EQ(sv_board_take(&sets, world, &h, bytes[k][r] + h.offset, size), 0);
            at[k][r] = h.offset + size;
            if (at[k][r] == total[k][r] && !done[k][r]) {
                done[k][r] = true;
                left--;
            }
            if (at[k][r] == total[k][r]) {
                at[k][r] = 0;
            }
        }
        for (int k = 0; k < KEYS; k++) {
            const struct sv_board_set *set = sv_board_find(sets, 1, 1, keys[k]);
            CHECK(NULL != set);
            for (uint32_t r = 0; r < world; r++) {
                CHECK_EQ(set->part[r].size, total[k][r]);
                CHECK(0 == total[k][r] || 0 == memcmp(set->part[r].bytes, bytes[k][r], total[k][r]));
            }
        }
        forget_all();
    }
}
