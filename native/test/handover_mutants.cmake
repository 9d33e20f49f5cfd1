# The checker of test_handover.c must see what it is there for: each mutant is handover.c with one rule
# taken out, and the case named must fail on it.

# What handover.h asks of the host is needed: a host that does not keep to it is found.
set_tests_properties(handover.host_that_orders_while_tcp_is_closed PROPERTIES PASS_REGULAR_EXPRESSION "does not hold")

if(SV_SANITIZE)
  return() # they show nothing more there
endif()

# handover_mutant(NAME CASE FROM TO)
function(handover_mutant name case from to)
  set(original ${PRELOAD}/src/handover.c)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${original})
  file(READ ${original} text)
  string(REPLACE "${from}" "${to}" mutated "${text}")
  if(mutated STREQUAL text)
    message(FATAL_ERROR "handover mutant ${name}: handover.c has no \"${from}\"")
  endif()
  set(source ${CMAKE_CURRENT_BINARY_DIR}/handover_${name}.c)
  file(WRITE ${source} "${mutated}")
  add_executable(handover_${name} test_handover.c check.c ${source})
  target_include_directories(handover_${name} PRIVATE ${PRELOAD}/src)
  add_test(NAME handover.mutant.${name} COMMAND handover_${name} ${case})
  # By its words, not by its exit code: a crash proves nothing.
  set_tests_properties(handover.mutant.${name} PROPERTIES PASS_REGULAR_EXPRESSION "does not hold" TIMEOUT 60)
endfunction()

handover_mutant(no_quiet_set three_ranks [[!r->complete(r->context, "quiet")]] "!r")
handover_mutant(does_not_drain two_ranks_posts_on_the_way [[|| !r->drained(r->context, false)]] "|| !r")
handover_mutant(counters_not_frozen three_ranks [[r->flip(r->context, true);]] "")
handover_mutant(flips_with_descriptors_in_hand two_ranks_descriptors_held
                [[if (0 == error || !r->none_in_hand(r->context, false)) {]] "if (0 == error) {")
handover_mutant(tears_down_with_descriptors_in_hand two_ranks_descriptors_held
                [[!r->none_in_hand(r->context, false) || !r->drained]] "!r->drained")
handover_mutant(abort_tears_down two_ranks_four_orders "        if (given_up) {" "        if (r) {")
handover_mutant(goes_back_after_quiet two_ranks_four_orders "        if (given_up) {" "        if (!r) {")
handover_mutant(quiet_stays_unpolled two_ranks_four_orders [[poll_openib(h, r, true)]]
                [[poll_openib(h, r, false)]])
handover_mutant(no_dropped_set one_of_three_moves [[r->complete(r->context, "dropped") && let_go]] "let_go")
handover_mutant(dropped_again_is_not_said some_move_and_one_fails
                [[        r->post(r->context, "dropped"); /* it belongs to this step now */]] "")
handover_mutant(steady_rank_does_not_say_dropped one_of_three_moves_three_orders
                [[        r->post(r->context, "dropped"); /* a moving]] [[ /* a moving]])
handover_mutant(takes_back_before_the_others some_move_and_one_fails [[    if (SV_ROLE_WHOLE == h->role) {]] "    if (r) {")
handover_mutant(staying_rank_stops_polling one_of_two_moves [[    if (SV_ROLE_STAYS != h->role) {]] "    if (r) {")
handover_mutant(no_post_in_a_new_step two_ranks_four_orders [[        r->post_sent(r->context, false);
    }]] "    }")
handover_mutant(late_rank_ignores_abort two_ranks_four_orders [[ * others count on its frozen tcp counters. */]]
                [[ */ h->order = SV_ORDER_BACK == order ? SV_ORDER_NONE : order;]])
handover_mutant(no_handles_set three_ranks [[!r->complete(r->context, "handles")]] "!r")
handover_mutant(no_ready_set two_ranks_one_fails [[!r->complete(r->context, "ready")]] "!r")
handover_mutant(takes_back_what_others_use two_ranks_four_orders [[        if (!given_up) {]] "        if (!r) {")
handover_mutant(flips_back_with_descriptors_in_hand two_ranks_descriptors_held
                [[!r->none_in_hand(r->context, true) || !r->complete(r->context, "ready")]]
                [[!r->complete(r->context, "ready")]])
handover_mutant(does_not_drain_tcp two_ranks_posts_on_the_way [[|| !r->drained(r->context, true)]] "|| !r")
handover_mutant(closes_tcp_alone three_ranks [[!r->complete(r->context, "back.drained")]] "!r")
