/* Sixteen floats at a time, written once for every processor.
 *
 * GCC and Clang turn these into whatever vectors the target has; other compilers get plain loops. Sums are made in one
 * order, lane by lane and then by halves, and products are never fused with sums (build with -ffp-contract=off), so
 * every processor computes the same bits. */
#ifndef KOULING_LANES_H
#define KOULING_LANES_H

#include <stdint.h>
#include <string.h>

#include "floats.h"

#define LANES 16
#if defined(__GNUC__)
#define KL_ALWAYS inline __attribute__((always_inline, unused))
#else
#define KL_ALWAYS inline
#endif

#define KL_INLINE static KL_ALWAYS

/* Not Clang's on x86-64: it hands no vectors of 64 bytes to functions that may not use AVX-512, inlined or not. */
#if defined(__clang__) ? !defined(__x86_64__) : defined(__GNUC__) && __GNUC__ >= 9

#define VECTORS 1

typedef float lanes __attribute__((vector_size(64)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef int16_t shorts __attribute__((vector_size(32)));
typedef int8_t bytes __attribute__((vector_size(16)));
typedef float lanes_at __attribute__((vector_size(64), aligned(4), may_alias)); /* in memory, at any float */
typedef int32_t ints_at __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t halves_at __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint32_t wholes __attribute__((vector_size(64))); /* also bits of floats that may be no numbers: sums may overflow */
typedef int8_t bytes_at __attribute__((vector_size(16), aligned(1), may_alias));

KL_INLINE lanes lanes_load(const float *p) { return *(const lanes_at *)p; }
KL_INLINE void lanes_store(float *p, lanes x) { *(lanes_at *)p = x; }
/* Macros: in a function for any processor, as those below are, they would be put together from sixteen pieces. */
#define lanes_all(x) ((lanes){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x})
KL_INLINE lanes lanes_add(lanes a, lanes b) { return a + b; }
KL_INLINE lanes lanes_sub(lanes a, lanes b) { return a - b; }
KL_INLINE lanes lanes_mul(lanes a, lanes b) { return a * b; }
KL_INLINE lanes lanes_div(lanes a, lanes b) { return a / b; }
/* Vectors narrower than these GCC compares number by number, so there the sign of a difference decides, which comes to
 * the same. */
KL_INLINE lanes lanes_max(lanes a, lanes b) {
    const ints other = (ints)(a - b) >> 31;
    return (lanes)(((ints)b & other) | ((ints)a & ~other));
}
KL_INLINE lanes lanes_min(lanes a, lanes b) {
    const ints other = (ints)(b - a) >> 31;
    return (lanes)(((ints)b & other) | ((ints)a & ~other));
}
KL_INLINE lanes lanes_abs(lanes a) { return (lanes)((ints)a & 0x7fffffff); }
#define lanes_of_ints(p) __builtin_convertvector(*(const ints_at *)(const void *)(p), lanes)
/* int8 -> floats */
#define lanes_of_bytes_by_halves(p) \
    __builtin_convertvector(__builtin_convertvector(__builtin_convertvector(*(const bytes_at *)(const void *)(p), shorts), ints), lanes)
/* bfloat16 -> floats */
#define lanes_of_halves(p) ((lanes)(__builtin_convertvector(*(const halves_at *)(const void *)(p), wholes) << 16))
/* The bits of `x` plus `n` * 2^23: x * 2^n where neither leaves the range of floats. */
KL_INLINE lanes lanes_scale(lanes x, lanes magic_n) { return (lanes)((wholes)x + ((wholes)magic_n << 23)); }
/* x = 2^exponent * fraction, the fraction from sqrt(1/2) to sqrt(2). */
KL_INLINE void lanes_split(lanes x, lanes *exponent, lanes *fraction) {
    const ints n = (ints)((wholes)x - 0x3f3504f3) >> 23;
    *exponent = __builtin_convertvector(n, lanes);
    *fraction = (lanes)((wholes)x - ((wholes)n << 23));
}
/* The lowest byte of each float's bits. */
#define lanes_store_bytes_by_halves(p, x) \
    (*(bytes_at *)(p) = __builtin_convertvector(__builtin_convertvector((ints)(x), shorts), bytes))
KL_INLINE float lanes_sum(lanes x) {
    typedef float half __attribute__((vector_size(32)));
    typedef float quarter __attribute__((vector_size(16)));
    half h[2], a;
    quarter q[2], b;
    memcpy(h, &x, sizeof x);
    a = h[0] + h[1];
    memcpy(q, &a, sizeof a);
    b = q[0] + q[1];
    return (b[0] + b[2]) + (b[1] + b[3]);
}
KL_INLINE float lanes_largest(lanes x) {
    typedef float half __attribute__((vector_size(32)));
    typedef int32_t half_ints __attribute__((vector_size(32)));
    half h[2], a;
    memcpy(h, &x, sizeof x);
    const half_ints other = (half_ints)(h[0] - h[1]) >> 31;
    a = (half)(((half_ints)h[1] & other) | ((half_ints)h[0] & ~other));
    const float m0 = a[0] > a[4] ? a[0] : a[4], m1 = a[1] > a[5] ? a[1] : a[5];
    const float m2 = a[2] > a[6] ? a[2] : a[6], m3 = a[3] > a[7] ? a[3] : a[7];
    const float n0 = m0 > m2 ? m0 : m2, n1 = m1 > m3 ? m1 : m3;
    return n0 > n1 ? n0 : n1;
}

/* Which of two vectors' numbers a vector is made of. For sums by halves: the lower half of every `g` * 2 numbers, the upper
 * half of them. Macros for the same reason, and only for vectors as wide as the processor's. */
#define PICK_LOW(g) (const ints){PICK_EACH(g, 0)}
#define PICK_HIGH(g) (const ints){PICK_EACH(g, g)}
#define PICK_EACH(g, up) \
    PICK(0, g) + up, PICK(1, g) + up, PICK(2, g) + up, PICK(3, g) + up, PICK(4, g) + up, PICK(5, g) + up, PICK(6, g) + up, PICK(7, g) + up, \
    PICK(8, g) + up, PICK(9, g) + up, PICK(10, g) + up, PICK(11, g) + up, PICK(12, g) + up, PICK(13, g) + up, PICK(14, g) + up, PICK(15, g) + up
#define PICK(i, g) ((i) / (g) * 2 * (g) + (i) % (g))
#define lanes_pick(a, b, which) __builtin_shuffle(a, b, which)
/* Four vectors -> their four sums, each as lanes_sum makes it. */
KL_INLINE void lanes_sum_four(const lanes *x, float *sums) {
    typedef float half __attribute__((vector_size(32)));
    typedef float quarter __attribute__((vector_size(16)));
    quarter by_two[4];
    for (int i = 0; i < 4; i++) {
        half h[2], a;
        quarter q[2];
        memcpy(h, &x[i], sizeof x[i]);
        a = h[0] + h[1];
        memcpy(q, &a, sizeof a);
        by_two[i] = q[0] + q[1];
    }
    for (int i = 0; i < 4; i++) sums[i] = (by_two[i][0] + by_two[i][2]) + (by_two[i][1] + by_two[i][3]);
}

#else

#define VECTORS 0

typedef struct { float v[LANES]; } lanes;
#define KL_EACH(expression) do { lanes r_; for (int i = 0; i < LANES; i++) r_.v[i] = (expression); return r_; } while (0)
KL_INLINE int32_t float_bits(float x) { int32_t n; memcpy(&n, &x, 4); return n; }
KL_INLINE float bits_float(int32_t n) { float x; memcpy(&x, &n, 4); return x; }
KL_INLINE lanes lanes_load(const float *p) { KL_EACH(p[i]); }
KL_INLINE void lanes_store(float *p, lanes x) { for (int i = 0; i < LANES; i++) p[i] = x.v[i]; }
KL_INLINE lanes lanes_all(float x) { KL_EACH(x); }
KL_INLINE lanes lanes_add(lanes a, lanes b) { KL_EACH(a.v[i] + b.v[i]); }
KL_INLINE lanes lanes_sub(lanes a, lanes b) { KL_EACH(a.v[i] - b.v[i]); }
KL_INLINE lanes lanes_mul(lanes a, lanes b) { KL_EACH(a.v[i] * b.v[i]); }
KL_INLINE lanes lanes_div(lanes a, lanes b) { KL_EACH(a.v[i] / b.v[i]); }
KL_INLINE lanes lanes_max(lanes a, lanes b) { KL_EACH(a.v[i] < b.v[i] ? b.v[i] : a.v[i]); }
KL_INLINE lanes lanes_min(lanes a, lanes b) { KL_EACH(b.v[i] < a.v[i] ? b.v[i] : a.v[i]); }
KL_INLINE lanes lanes_abs(lanes a) { KL_EACH(a.v[i] < 0 ? -a.v[i] : a.v[i]); }
KL_INLINE lanes lanes_of_ints(const int32_t *p) { KL_EACH((float)p[i]); }
KL_INLINE lanes lanes_of_bytes_by_halves(const int8_t *p) { KL_EACH((float)p[i]); }
KL_INLINE lanes lanes_of_halves(const uint16_t *p) { KL_EACH(bits_float((int32_t)((uint32_t)p[i] << 16))); }
KL_INLINE lanes lanes_scale(lanes x, lanes n) {
    KL_EACH(bits_float((int32_t)((uint32_t)float_bits(x.v[i]) + ((uint32_t)float_bits(n.v[i]) << 23))));
}
KL_INLINE void lanes_split(lanes x, lanes *exponent, lanes *fraction) {
    for (int i = 0; i < LANES; i++) {
        const uint32_t bits = (uint32_t)float_bits(x.v[i]);
        const int32_t low = (int32_t)(bits - 0x3f3504f3u), n = low >= 0 ? low / (1 << 23) : -1 - (-1 - low) / (1 << 23);
        exponent->v[i] = (float)n;
        fraction->v[i] = bits_float((int32_t)(bits - ((uint32_t)n << 23)));
    }
}
KL_INLINE void lanes_store_bytes_by_halves(int8_t *p, lanes x) {
    for (int i = 0; i < LANES; i++) p[i] = (int8_t)(float_bits(x.v[i]) & 0xff);
}
KL_INLINE float lanes_sum(lanes x) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x.v[i] += x.v[i + half];
    return x.v[0];
}
KL_INLINE void lanes_sum_four(const lanes *x, float *sums) {
    for (int i = 0; i < 4; i++) sums[i] = lanes_sum(x[i]);
}
KL_INLINE float lanes_largest(lanes x) {
    float most = x.v[0];
    for (int i = 1; i < LANES; i++) most = x.v[i] > most ? x.v[i] : most;
    return most;
}

#endif

/* Adding and subtracting 1.5 * 2^23 rounds to a whole number, half to even; between the two, the lowest bits are it. */
#define ROUND 12582912.0f

#endif
