/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handover between openib and tcp (native/preload/src/handover.h) with its traffic: each rank
 * sends numbered fragments to the next one, rank 0 also makes a put, whose FIN is a fragment by the
 * route of its moment. A rank reads the board whenever it likes, so a late or computing rank is one
 * that is not scheduled. The host may order the other way at any moment.
 *
 * Checked: the assertions (lost, doubled, FIN before its put, tear-down under somebody's feet, abort
 * and leave both won), and that no run stops before all is done (invalid end states). Every loop is
 * bounded, so that is progress.
 *
 * -DN=3 ranks, -DFRAGS=n fragments each, -DORDERS=n orders of the host, -DNOPUT without the put, -DKEEPTCP tcp stays connected.
 * Rules taken out, which must be found: NOACK, NOQUIET, NODRAIN, NOFREEZE, NOREADY, SPLIT, HASTY.
 */
#ifndef N
#define N 2
#endif
#ifndef FRAGS
#define FRAGS 1
#endif
#ifndef ORDERS
#define ORDERS 3
#endif
#define ALL ((1 << N) - 1)
#define FIN 7 /* number of the put's FIN among the fragments */
#define NEXT ((me + 1) % N)
#define PREV ((me + N - 1) % N)

#define IB 0
#define TCP 1

/* keys of the board */
#define K_FLIP 0 /* also back.flip: a step has one order only */
#define K_DRAINED 1
#define K_QUIET 2
#define K_BLOB 3
#define K_HANDLES 4
#define K_READY 5
#define KEYS 6

#define NONE 0
#define LEAVE 1
#define BACK 2

#define S_IB 0
#define S_FLIPPED 1
#define S_DRAINED 2
#define S_QUIET 3
#define S_TCP 4
#define S_OPENED 5
#define S_CONNECTED 6
#define S_READY 7
#define S_BACK_FLIPPED 8
#define S_BACK_DRAINED 9

mtype = { FRAGMENT, PUT, FENCE, ACK };

/* from a rank to the next; answers go the other way on the same socket */
chan ib[N] = [FRAGS + 1] of { mtype, byte };
chan rdma[N] = [1] of { mtype }; /* the put's own queue pair */
chan tcp[N] = [FRAGS + 3] of { mtype, byte };
chan answer[N] = [1] of { mtype };

byte state[N], route[N], order[N], step[N];
bool loaded[N], polling[N];
byte sent[2 * N], received[2 * N]; /* by route and sender */
byte outstanding[2 * N];
byte next_number[N], seen[N];
byte put_state; /* 0 to do, 1 under way, 2 reported complete, 3 FIN sent */
bool put_data;  /* it is in the owner's memory */

/* the host */
byte host_step, host_order;
bool given_up, host_done;
byte posted[(ORDERS + 1) * KEYS];
byte frozen[(ORDERS + 1) * N];
byte finished; /* ranks whose order is done */

#define COMPLETE(k) (posted[step[me] * KEYS + k] == ALL)

inline post(k)
{
    if
    :: step[me] == host_step ->
        posted[host_step * KEYS + k] = posted[host_step * KEYS + k] | (1 << me);
        if
        :: k == K_QUIET && posted[host_step * KEYS + k] == ALL -> given_up = true
        :: k == K_READY && posted[host_step * KEYS + k] == ALL -> given_up = false
        :: else
        fi
    :: else /* stale */
    fi
}

inline post_sent(via)
{
    if
    :: step[me] == host_step -> frozen[host_step * N + me] = sent[via * N + me]
    :: else
    fi;
    post(K_FLIP)
}

inline unload()
{
    assert(empty(ib[me]) && empty(ib[PREV]) && empty(rdma[me]) && empty(rdma[PREV]));
    assert(outstanding[IB * N + me] == 0);
    for (i : 0 .. N - 1) { assert(route[i] == TCP) }
    loaded[me] = false;
    polling[me] = false
}

inline tear_down()
{
    polling[me] = false;
    for (i : 0 .. N - 1) { assert(!polling[i]) } /* it would send a credit to a destroyed queue pair */
    unload();
    state[me] = S_TCP
}

inline finish(s)
{
    state[me] = s;
    order[me] = NONE;
    if
    :: step[me] == host_step -> finished++
    :: else
    fi
}

#define DRAINED(via) (received[via * N + PREV] == frozen[step[me] * N + PREV] && outstanding[via * N + me] == 0)

inline begin()
{
    step[me] = host_step;
    order[me] = host_order;
    if
    :: state[me] >= S_FLIPPED && state[me] <= S_QUIET ->
        if
#ifdef SPLIT
        :: state[me] == S_QUIET ->
#else
        :: given_up ->
#endif
            tear_down();
            if
            :: order[me] == LEAVE -> finish(S_TCP)
            :: else
            fi
        :: else -> stay_flipped()
        fi
    :: state[me] == S_READY && !given_up -> stay_flipped()
    :: state[me] == S_TCP || (state[me] >= S_OPENED && state[me] <= S_READY && !(state[me] == S_READY && !given_up)) ->
        if
        :: loaded[me] -> unload()
        :: else
        fi;
        state[me] = S_TCP;
        if
        :: order[me] == LEAVE -> finish(S_TCP)
        :: else
        fi
    :: state[me] >= S_BACK_FLIPPED -> state[me] = S_IB
    :: else
    fi
}

inline stay_flipped()
{
    polling[me] = true;
    if
    :: order[me] == LEAVE -> post_sent(IB)
    :: else
    fi;
    state[me] = S_FLIPPED
}

inline send_fragment(number)
{
    if
    :: route[me] == IB -> assert(loaded[me] && loaded[NEXT]); ib[me]!FRAGMENT(number)
    :: else -> tcp[me]!FRAGMENT(number)
    fi;
    sent[route[me] * N + me]++
}

inline take_fragment(via)
{
    assert((seen[me] & (1 << number)) == 0);
    assert(number != FIN || put_data); /* the receive would be reported before its data is there */
    seen[me] = seen[me] | (1 << number);
    received[via * N + PREV]++;
    number = 0
}

#ifdef NODRAIN
#define CARD_DRAINED true
#else
#define CARD_DRAINED (route[me] == TCP && DRAINED(IB))
#endif
#ifdef NOQUIET
#define ALL_QUIET true
#else
#define ALL_QUIET COMPLETE(K_QUIET)
#endif
#ifdef NOREADY
#define ALL_READY true
#else
#define ALL_READY COMPLETE(K_READY)
#endif

#ifdef NOPUT
#define SEEN ((1 << FRAGS) - 1)
#define PUT_OVER true
#else
#define SEEN ((1 << FRAGS) - 1 + (me == 1 -> 1 << FIN : 0))
#define PUT_OVER (put_state == 3)
#endif

proctype rank(byte me)
{
    byte number, i;
    do
    /* a newer order, at a safe point */
    :: d_step { host_step > step[me] -> begin(); i = 0 }

    /* leave */
    :: d_step { order[me] == LEAVE && state[me] == S_IB ->
#ifndef NOFREEZE
           route[me] = TCP;
#endif
           post_sent(IB); state[me] = S_FLIPPED }
#ifdef NOFREEZE
    :: d_step { route[me] == IB && order[me] == LEAVE && state[me] == S_FLIPPED -> route[me] = TCP }
#endif
    :: d_step { order[me] == LEAVE && state[me] == S_FLIPPED && COMPLETE(K_FLIP) && CARD_DRAINED -> post(K_DRAINED); state[me] = S_DRAINED }
    :: d_step { order[me] == LEAVE && state[me] == S_DRAINED && COMPLETE(K_DRAINED) ->
           polling[me] = false; post(K_QUIET); state[me] = S_QUIET }
    :: d_step { order[me] == LEAVE && state[me] == S_QUIET && ALL_QUIET -> tear_down(); finish(S_TCP); i = 0 }

    /* back */
    :: d_step { order[me] == BACK && state[me] == S_TCP -> loaded[me] = true; post(K_BLOB); state[me] = S_OPENED }
    :: d_step { order[me] == BACK && state[me] == S_OPENED && COMPLETE(K_BLOB) ->
           polling[me] = true; post(K_HANDLES); state[me] = S_CONNECTED }
    :: d_step { order[me] == BACK && state[me] == S_CONNECTED && COMPLETE(K_HANDLES) ->
           post(K_READY); state[me] = S_READY }
    :: d_step { order[me] == BACK && state[me] == S_READY && ALL_READY ->
           route[me] = IB; post_sent(TCP); state[me] = S_BACK_FLIPPED }
    :: d_step { order[me] == BACK && state[me] <= S_QUIET -> /* an abort */
           route[me] = IB; post_sent(TCP); state[me] = S_BACK_FLIPPED }
    :: d_step { order[me] == BACK && state[me] == S_BACK_FLIPPED && COMPLETE(K_FLIP) && DRAINED(TCP) ->
           post(K_DRAINED); state[me] = S_BACK_DRAINED }
    :: d_step { order[me] == BACK && state[me] == S_BACK_DRAINED && COMPLETE(K_DRAINED) ->
           for (i : 0 .. N - 1) { assert(route[i] == IB) } /* it would use a connection half closed */
#ifndef KEEPTCP
           assert(empty(tcp[me]) && empty(tcp[PREV]) && empty(answer[me]) && empty(answer[PREV]));
#endif
           finish(S_IB); i = 0 }

    /* traffic */
    :: d_step { next_number[me] < FRAGS -> send_fragment(next_number[me]); next_number[me]++ }
    :: d_step { polling[me] && ib[PREV]?[FRAGMENT, _] ->
           assert(loaded[me]); ib[PREV]?FRAGMENT(number); take_fragment(IB) }
    :: d_step { tcp[PREV]?[FRAGMENT, _] -> tcp[PREV]?FRAGMENT(number); take_fragment(TCP) }
#ifndef NOPUT
    :: d_step { me == 0 && put_state == 0 ->
           put_state = 1;
           if
           :: route[me] == IB ->
               assert(loaded[me] && loaded[NEXT]); rdma[me]!PUT; outstanding[IB * N + me]++
           :: else ->
               tcp[me]!PUT(0);
#ifdef NOACK
               put_state = 2
#else
               tcp[me]!FENCE(0); outstanding[TCP * N + me]++
#endif
           fi }
    /* the cards do this by themselves; the completion waits for the poll */
    :: d_step { rdma[me]?[PUT] && polling[me] ->
           rdma[me]?PUT; put_data = true; outstanding[IB * N + me]--; put_state = 2 }
    :: d_step { tcp[PREV]?[PUT, _] -> tcp[PREV]?PUT(_); put_data = true }
    :: d_step { tcp[PREV]?[FENCE, _] -> tcp[PREV]?FENCE(_); answer[PREV]!ACK }
    :: d_step { answer[me]?[ACK] -> answer[me]?ACK; outstanding[TCP * N + me]--; put_state = 2 }
    :: d_step { me == 0 && put_state == 2 -> send_fragment(FIN); put_state = 3 }
#endif
    :: d_step { host_done && step[me] == host_step && order[me] == NONE && finished == N && next_number[me] == FRAGS && PUT_OVER && seen[me] == SEEN -> skip };
       break
    od;
    /* abort and leave cannot both win */
    assert(state[me] == (given_up -> S_TCP : S_IB));
    assert(route[me] == (given_up -> TCP : IB));
    assert(loaded[me] == !given_up && polling[me] == !given_up)
}

/* Nobody orders while ranks close tcp, from the complete back.drained set to the last report. */
#ifdef HASTY
#define CLOSING false
#else
#define CLOSING (host_order == BACK && posted[host_step * KEYS + K_DRAINED] == ALL && finished < N)
#endif

proctype host()
{
    do
    :: d_step { host_step < ORDERS && host_order != LEAVE && !CLOSING -> host_step++; host_order = LEAVE;
           finished = 0 }
    :: d_step { host_step > 0 && host_step < ORDERS && !CLOSING -> host_step++; host_order = BACK; finished = 0 }
    :: host_step > 0 -> break
    od;
    host_done = true
}

init
{
    byte i;
    d_step {
        for (i : 0 .. N - 1) { loaded[i] = true; polling[i] = true }
        i = 0
    }
    atomic {
        for (i : 0 .. N - 1) { run rank(i) }
        run host()
    }
}
