#include "kernels.h"

#include <math.h>

#include "lanes.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

/* Where a program has several levels, those that most processors run lie where linkers gather what is often called, at the
 * front. Of the others little is read into memory where they are not run, most so if this file is linked last. */
#if defined(__ELF__) && (defined(__x86_64__) || defined(__aarch64__))
#define USUAL(level) __attribute__((section(".text.hot.kouling_" #level)))
#define SELDOM(level) __attribute__((section(".text.kouling_" #level)))
#else
#define USUAL(level)
#define SELDOM(level)
#endif

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

/* Of a product of integers: weights, bytes from one block of them to the next, how many fours of inputs they are for, and
 * which ones (NULL: all there are), rows of inputs `stride` apart; how many rows and blocks; where the sums go. */
#define TILES_ARGUMENTS                                                                                                 \
    const uint8_t *w, size_t block, uint32_t fours, const uint16_t *kept, const int8_t *x, size_t stride, uint32_t rows, \
        uint32_t blocks, int32_t sums[TILE_ROWS][TILE_BLOCKS][LANES]
#define FOUR(k) (4 * (size_t)(kept ? kept[k] : (k))) /* where the inputs of weights k begin */

KL_INLINE float float_of_half(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Portable: any C11 compiler, any processor. */

#define LEVEL(name) JOIN(name, portable)
#define LEVEL_NAME "portable"
#define TARGET SELDOM(portable)
#define WIDE 0
#define TILE_ROWS 4
#define TILE_BLOCKS 1
#define SIDE 1

/* What a byte holds: a weight, or two of which `shift` chooses one. */
KL_INLINE int weight(uint8_t byte, int shift, const int half) { return half ? ((byte >> shift) & 15) - 8 : (int8_t)byte; }

KL_INLINE void any_tiles_portable(TILES_ARGUMENTS, const int half) {
    for (uint32_t b = 0; b < blocks; b++)
        for (uint32_t r = 0; r < rows; r++) {
            int32_t sum[LANES] = {0};
            for (uint32_t k = 0; k < fours; k++) {
                const uint8_t *weights = w + b * block + (size_t)(half ? k / 2 : k) * 64;
                const int8_t *in = x + r * stride + FOUR(k);
                const int shift = half ? 4 * (k & 1) : 0;
                for (int i = 0; i < LANES; i++, weights += 4) /* written out: microcontrollers need half as long */
                    sum[i] += weight(weights[0], shift, half) * in[0] + weight(weights[1], shift, half) * in[1] +
                              weight(weights[2], shift, half) * in[2] + weight(weights[3], shift, half) * in[3];
            }
            memcpy(sums[r][b], sum, sizeof sum);
        }
}

#include "kernels.inc"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

/* AVX2: products of unsigned and signed bytes, summed by pairs in int16. Inputs become unsigned by giving their sign to the
 * weights; of numbers from -127 to 127 no sum of two products leaves int16. */

#define LEVEL(name) JOIN(name, avx2)
#define LEVEL_NAME "avx2"
#define TARGET SELDOM(avx2) __attribute__((target("avx2")))
#define WIDE 0
#define TILE_ROWS 4
#define TILE_BLOCKS 1
#define SIDE 4

static TARGET KL_ALWAYS void tile_avx2(TILES_ARGUMENTS, const int half) {
    (void)block, (void)blocks;
    __m256i sum[TILE_ROWS][2]; /* of eight outputs each */
    for (uint32_t r = 0; r < rows; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    for (uint32_t k = 0; k < fours; k++) {
        __m256i weights[2];
        for (int i = 0; i < 2; i++) {
            weights[i] = _mm256_loadu_si256((const __m256i *)(const void *)(w + 64 * (size_t)(half ? k / 2 : k) + 32 * i));
            if (!half) continue;
            weights[i] = _mm256_and_si256(k & 1 ? _mm256_srli_epi16(weights[i], 4) : weights[i], _mm256_set1_epi8(15));
            weights[i] = _mm256_sub_epi8(weights[i], _mm256_set1_epi8(8));
        }
        for (uint32_t r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x + r * stride + FOUR(k), 4);
            const __m256i in = _mm256_set1_epi32(four);
            for (int i = 0; i < 2; i++) {
                const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(in), _mm256_sign_epi8(weights[i], in));
                sum[r][i] = _mm256_add_epi32(sum[r][i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            }
        }
    }
    for (uint32_t r = 0; r < rows; r++)
        for (int i = 0; i < 2; i++) _mm256_storeu_si256((__m256i *)(void *)(sums[r][0] + 8 * i), sum[r][i]);
}

static TARGET KL_ALWAYS void any_tiles_avx2(TILES_ARGUMENTS, const int half) {
    if (rows == TILE_ROWS)
        tile_avx2(w, block, fours, kept, x, stride, TILE_ROWS, blocks, sums, half);
    else
        for (uint32_t r = 0; r < rows; r++) tile_avx2(w, block, fours, kept, x + r * stride, stride, 1, blocks, sums + r, half);
}

#include "kernels.inc"

/* AVX-512 with VNNI: four products of unsigned and signed bytes and their sum in one instruction. Inputs are made
 * unsigned by adding 128, and what that adds is taken off beforehand; half bytes are unsigned as they are, and what
 * their 8 adds is summed up beside them. */

#define LEVEL(name) JOIN(name, vnni)
#define LEVEL_NAME "avx512-vnni"
#if defined(__clang__) /* does not know the preference, and needs none */
#define AVX512_TARGET "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"
#else
#define AVX512_TARGET "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,prefer-vector-width=512"
#endif
#define TARGET USUAL(vnni) __attribute__((target(AVX512_TARGET)))
#define WIDE VECTORS
#define TILE_ROWS 4
#define TILE_BLOCKS 4
#define SIDE 4
#define OWN_DENSE
#define OWN_SPARSE

#include "kernels.inc"

#if defined(__linux__)

#include "amx.inc"

#endif

#elif defined(__ARM_NEON)

#include <arm_neon.h>

/* NEON: products of bytes in int16, added up by pairs in int32. */

#define LEVEL(name) JOIN(name, neon)
#define LEVEL_NAME "neon"
#define TARGET SELDOM(neon)
#define WIDE 0
#define TILE_ROWS 1
#define TILE_BLOCKS 1
#define SIDE 4

/* Sixteen weights of four k, from byte 16 * i of theirs. */
KL_INLINE int8x16_t weights_neon(const uint8_t *w, size_t k, int i, const int half) {
    const uint8x16_t stored = vld1q_u8(w + 64 * (half ? k / 2 : k) + 16 * i);
    if (!half) return vreinterpretq_s8_u8(stored);
    return vsubq_s8(vreinterpretq_s8_u8(vandq_u8(k & 1 ? vshrq_n_u8(stored, 4) : stored, vdupq_n_u8(15))), vdupq_n_s8(8));
}

KL_INLINE void any_tiles_neon(TILES_ARGUMENTS, const int half) {
    (void)block, (void)stride, (void)rows, (void)blocks;
    int32x4_t low[4], high[4]; /* of two outputs each: products of inputs 0 and 1, of 2 and 3 */
    for (int i = 0; i < 4; i++) low[i] = high[i] = vdupq_n_s32(0);
    for (uint32_t k = 0; k < fours; k++) {
        int32_t four;
        memcpy(&four, x + FOUR(k), 4);
        const int8x8_t in = vreinterpret_s8_s32(vdup_n_s32(four));
        for (int i = 0; i < 4; i++) {
            const int8x16_t weights = weights_neon(w, k, i, half);
            low[i] = vpadalq_s16(low[i], vmull_s8(vget_low_s8(weights), in));
            high[i] = vpadalq_s16(high[i], vmull_s8(vget_high_s8(weights), in));
        }
    }
    for (int i = 0; i < 4; i++)
        vst1q_s32(sums[0][0] + 4 * i, vcombine_s32(vpadd_s32(vget_low_s32(low[i]), vget_high_s32(low[i])),
                                                   vpadd_s32(vget_low_s32(high[i]), vget_high_s32(high[i]))));
}

#include "kernels.inc"

#if defined(__aarch64__)

/* NEON with dot products: sixteen products of bytes and their sums by four in one instruction. */

#define LEVEL(name) JOIN(name, dot)
#define LEVEL_NAME "neon-dotprod"
#define TARGET USUAL(dot) __attribute__((target("arch=armv8.2-a+dotprod")))
#define WIDE 0
#define TILE_ROWS 4
#define TILE_BLOCKS 1
#define SIDE 4

static TARGET KL_ALWAYS void any_tiles_dot(TILES_ARGUMENTS, const int half) {
    (void)block, (void)blocks;
    int32x4_t sum[TILE_ROWS][4];
    for (int r = 0; r < TILE_ROWS; r++)
        for (int i = 0; i < 4; i++) sum[r][i] = vdupq_n_s32(0);
    for (uint32_t k = 0; k < fours; k++) {
        int8x16_t weights[4];
        for (int i = 0; i < 4; i++) weights[i] = weights_neon(w, k, i, half);
        for (uint32_t r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x + r * stride + FOUR(k), 4);
            const int8x16_t in = vreinterpretq_s8_s32(vdupq_n_s32(four));
            for (int i = 0; i < 4; i++) sum[r][i] = vdotq_s32(sum[r][i], weights[i], in);
        }
    }
    for (uint32_t r = 0; r < rows; r++)
        for (int i = 0; i < 4; i++) vst1q_s32(sums[r][0] + 4 * i, sum[r][i]);
}

#include "kernels.inc"

#endif

#elif defined(__wasm_simd128__)

#include <wasm_simd128.h>

/* WebAssembly SIMD: bytes widened to int16, whose products of pairs are exact in int32. */

#define LEVEL(name) JOIN(name, wasm)
#define LEVEL_NAME "wasm-simd"
#define TARGET
#define WIDE 0
#define TILE_ROWS 1
#define TILE_BLOCKS 1
#define SIDE 4

KL_INLINE void any_tiles_wasm(TILES_ARGUMENTS, const int half) {
    (void)block, (void)stride, (void)rows, (void)blocks;
    v128_t low[4], high[4]; /* of two outputs each: products of inputs 0 and 1, of 2 and 3 */
    for (int i = 0; i < 4; i++) low[i] = high[i] = wasm_i32x4_splat(0);
    for (uint32_t k = 0; k < fours; k++) {
        int32_t four;
        memcpy(&four, x + FOUR(k), 4);
        const v128_t in = wasm_i16x8_extend_low_i8x16(wasm_i32x4_splat(four));
        for (int i = 0; i < 4; i++) {
            v128_t weights = wasm_v128_load(w + 64 * (size_t)(half ? k / 2 : k) + 16 * i);
            if (half) {
                weights = wasm_v128_and(k & 1 ? wasm_u8x16_shr(weights, 4) : weights, wasm_i8x16_splat(15));
                weights = wasm_i8x16_sub(weights, wasm_i8x16_splat(8));
            }
            low[i] = wasm_i32x4_add(low[i], wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(weights), in));
            high[i] = wasm_i32x4_add(high[i], wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(weights), in));
        }
    }
    for (int i = 0; i < 4; i++)
        wasm_v128_store(sums[0][0] + 4 * i, wasm_i32x4_add(wasm_i32x4_shuffle(low[i], high[i], 0, 2, 4, 6),
                                                           wasm_i32x4_shuffle(low[i], high[i], 1, 3, 5, 7)));
}

#include "kernels.inc"

#endif

/* The fastest first. */
static const kernels *const levels[] = {
#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__linux__)
    &kernels_amx,
#endif
    &kernels_vnni, &kernels_avx2,
#elif defined(__ARM_NEON)
#if defined(__aarch64__)
    &kernels_dot,
#endif
    &kernels_neon,
#elif defined(__wasm_simd128__)
    &kernels_wasm,
#endif
    &kernels_portable,
};

static int runs_here(const kernels *level) {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    const int vnni = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#if defined(__linux__)
    if (level == &kernels_amx) return vnni && amx_is_given();
#endif
    if (level == &kernels_vnni) return vnni;
    if (level == &kernels_avx2) return __builtin_cpu_supports("avx2");
#elif defined(__aarch64__) && defined(__linux__)
    if (level == &kernels_dot) return (getauxval(AT_HWCAP) >> 20 & 1) != 0; /* HWCAP_ASIMDDP */
#elif defined(__aarch64__) && !defined(__ARM_FEATURE_DOTPROD)
    if (level == &kernels_dot) return 0;
#endif
    (void)level;
    return 1;
}

const kernels *kernels_named(const char *name) {
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (runs_here(levels[i]) && (!name || !strcmp(name, levels[i]->name))) return levels[i];
    return NULL;
}
