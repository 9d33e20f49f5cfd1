/* SPDX-License-Identifier: Apache-2.0 */
/* Who sent what has arrived over openib: the endpoint in its receive descriptors, and the counts. */
#include "arrivals.h"
#include "check.h"

#include <stdlib.h>

enum { WORD = 20, ENDPOINTS = 300 };

static opal_class_t endpoint_class = {.cls_name = "mca_btl_openib_endpoint_t"};
static opal_class_t other_class = {.cls_name = "mca_btl_openib_module_t"};
static opal_object_t endpoint[ENDPOINTS], not_one = {.obj_class = &other_class};
static mca_btl_active_message_callback_t triggers[MCA_BTL_TAG_MAX];

/* A receive descriptor as openib's: what it points to lies at a place nobody tells. */
static union {
    mca_btl_base_descriptor_t base;
    const void *word[64];
} descriptor;

static void from(int number)
{
    descriptor.word[WORD] = &endpoint[number];
    sv_arrivals_note(&descriptor.base);
}

static void set_up(void)
{
    for (int i = 0; i < ENDPOINTS; i++) {
        endpoint[i].obj_class = &endpoint_class;
    }
    descriptor.word[6] = (const void *)0x10; /* no address */
    descriptor.word[7] = &not_one;           /* an object of another class */
    descriptor.word[8] = (const char *)&endpoint[0] + 1;
    sv_opal.trigger = triggers;
}

CASE(the_word_is_found_by_class)
{
    set_up();
    from(3);
    CHECK_EQ(sv_arrivals_word, WORD);
    from(3);
    from(4);
    CHECK_EQ(sv_arrivals_by(&endpoint[3]), 2);
    CHECK_EQ(sv_arrivals_by(&endpoint[4]), 1);
    CHECK_EQ(sv_arrivals_by(&endpoint[5]), 0);
    CHECK_EQ(sv_arrivals_count(), 3);
    CHECK(!sv_arrivals_blurred());
}

CASE(a_descriptor_without_an_endpoint_blurs)
{
    set_up();
    for (int i = 0; i < 100; i++) {
        sv_arrivals_note(&descriptor.base);
    }
    CHECK_EQ(sv_arrivals_word, 0);
    CHECK_EQ(sv_arrivals_count(), 100); /* the sum is right all the same */
    CHECK(sv_arrivals_blurred());
}

CASE(many_endpoints)
{
    uint64_t seed = 5, expected[ENDPOINTS] = {0}, sum = 0;
    set_up();
    for (int i = 0; i < 20000; i++) {
        const uint32_t number = check_below(&seed, ENDPOINTS);
        if (0 == check_below(&seed, 50)) {
            CHECK_EQ(sv_arrivals_forget(&endpoint[number]), expected[number]);
            expected[number] = 0;
        } else {
            from((int)number);
            expected[number]++;
            sum++;
        }
    }
    for (int i = 0; i < ENDPOINTS; i++) {
        CHECK_EQ(sv_arrivals_by(&endpoint[i]), expected[i]);
    }
    CHECK_EQ(sv_arrivals_count(), sum); /* of those that are gone, too */
    CHECK(!sv_arrivals_blurred());
}

CASE(all_go_with_the_component)
{
    set_up();
    from(1);
    from(2);
    CHECK_EQ(sv_arrivals_forget(&endpoint[1]), 1);
    CHECK_EQ(sv_arrivals_present(), 1);
    sv_arrivals_forget_all();
    CHECK_EQ(sv_arrivals_count(), 2);
    CHECK_EQ(sv_arrivals_present(), 0);
    CHECK(sv_arrivals_blurred()); /* nobody has claimed what came from endpoint 2 */
}

static int nested;
/* openib's handler takes a coalesced message apart: descriptors of its own, without the word. */
static void openib_control(mca_btl_base_module_t *module, mca_btl_base_tag_t tag, mca_btl_base_descriptor_t *outer,
                           void *data)
{
    mca_btl_base_descriptor_t inner = {0};
    sv_arrivals_note(&inner);
    sv_arrivals_note(&inner);
    nested++;
}

CASE(coalesced_messages_are_those_of_the_outer_one)
{
    set_up();
    triggers[SV_TAG_OPENIB_CONTROL].cbfunc = openib_control;
    sv_arrivals_attach();
    sv_arrivals_attach(); /* openib did not set its handler anew: not around ourselves */
    descriptor.word[WORD] = &endpoint[9];
    triggers[SV_TAG_OPENIB_CONTROL].cbfunc(NULL, SV_TAG_OPENIB_CONTROL, &descriptor.base, NULL);
    CHECK_EQ(nested, 1);
    CHECK_EQ(sv_arrivals_by(&endpoint[9]), 2);
    CHECK(NULL == sv_arrivals_outer);
}
