/* How floats are computed: before any code, in every file, for one in which some is and some is not is no program. */
#ifndef KOULING_FLOATS_H
#define KOULING_FLOATS_H

/* Cortex-M55 and its like compute floats one at a time here, bytes in vectors: vectors of floats lose denormals (MVE,
 * whatever FPSCR says), and GCC 12 reads some of them from the stack before it has written them there. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__ARM_FEATURE_MVE) && __ARM_FEATURE_MVE & 2
#pragma GCC target("arch=armv8.1-m.main+mve+fp.dp")
#endif

#endif
