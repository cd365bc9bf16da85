#include "kernels.h"

#include <math.h>

#include "lanes.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

/* Portable: any C11 compiler, any processor. */

#define LEVEL(name) JOIN(name, portable)
#define LEVEL_NAME "portable"
#define TARGET
#define TILE_ROWS 4
#define TILE_BLOCKS 1

static void tiles_portable(const int8_t *w, size_t block, uint32_t fours, const int32_t *ignored, const int8_t *x,
                           size_t stride, uint32_t rows, uint32_t blocks, int32_t sums[TILE_ROWS][TILE_BLOCKS][LANES]) {
    (void)ignored;
    for (uint32_t b = 0; b < blocks; b++)
        for (uint32_t r = 0; r < rows; r++) {
            int32_t sum[LANES] = {0};
            const int8_t *weights = w + b * block, *in = x + r * stride;
            for (uint32_t k = 0; k < fours; k++, weights += 64, in += 4)
                for (int i = 0; i < LANES; i++)
                    sum[i] += weights[4 * i] * in[0] + weights[4 * i + 1] * in[1] + weights[4 * i + 2] * in[2] +
                              weights[4 * i + 3] * in[3];
            memcpy(sums[r][b], sum, sizeof sum);
        }
}

#include "kernels.inc"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

/* AVX2: int8 widened to int16, whose products of pairs are exact in int32. */

#define LEVEL(name) JOIN(name, avx2)
#define LEVEL_NAME "avx2"
#define TARGET __attribute__((target("avx2")))
#define TILE_ROWS 2
#define TILE_BLOCKS 1

static TARGET void tiles_avx2(const int8_t *w, size_t block, uint32_t fours, const int32_t *ignored, const int8_t *x,
                              size_t stride, uint32_t rows, uint32_t blocks, int32_t sums[TILE_ROWS][TILE_BLOCKS][LANES]) {
    (void)ignored, (void)block, (void)blocks;
    __m256i sum[TILE_ROWS][4]; /* of four outputs each: products of inputs 0 and 1, of 2 and 3 */
    const int8_t *second = rows > 1 ? x + stride : x;
    for (int i = 0; i < 4; i++) sum[0][i] = sum[1][i] = _mm256_setzero_si256();
    for (uint32_t k = 0; k < fours; k++, w += 64) {
        int32_t four[2];
        memcpy(&four[0], x + 4 * k, 4);
        memcpy(&four[1], second + 4 * k, 4);
        const __m256i in0 = _mm256_cvtepi8_epi16(_mm_set1_epi32(four[0])), in1 = _mm256_cvtepi8_epi16(_mm_set1_epi32(four[1]));
        for (int i = 0; i < 4; i++) {
            const __m256i weights = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(w + 16 * i)));
            sum[0][i] = _mm256_add_epi32(sum[0][i], _mm256_madd_epi16(weights, in0));
            sum[1][i] = _mm256_add_epi32(sum[1][i], _mm256_madd_epi16(weights, in1));
        }
    }
    for (uint32_t r = 0; r < rows; r++)
        for (int i = 0; i < 4; i += 2) { /* hadd works in halves: outputs 0 1 4 5 | 2 3 6 7 */
            const __m256i pairs = _mm256_hadd_epi32(sum[r][i], sum[r][i + 1]);
            _mm256_storeu_si256((__m256i *)(void *)(sums[r][0] + 4 * i), _mm256_permute4x64_epi64(pairs, 0xd8));
        }
}

#include "kernels.inc"

/* AVX-512 with VNNI: four products of unsigned and signed bytes and their sum in one instruction. Inputs are made
 * unsigned by adding 128; what that adds is taken off beforehand. */

#define LEVEL(name) JOIN(name, vnni)
#define LEVEL_NAME "avx512-vnni"
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,prefer-vector-width=512")))
#define TILE_ROWS 4
#define TILE_BLOCKS 4

static inline TARGET __attribute__((always_inline)) void tile_vnni(
    const int8_t *w, size_t block, uint32_t fours, const int32_t *column_sums, const int8_t *x, size_t stride,
    const uint32_t rows, const uint32_t blocks, int32_t sums[TILE_ROWS][TILE_BLOCKS][LANES]) {
    __m512i sum[TILE_ROWS][TILE_BLOCKS];
    for (uint32_t b = 0; b < blocks; b++) {
        const __m512i surplus = _mm512_slli_epi32(_mm512_loadu_si512(column_sums + b * LANES), 7);
        for (uint32_t r = 0; r < rows; r++) sum[r][b] = _mm512_sub_epi32(_mm512_setzero_si512(), surplus);
    }
    for (uint32_t k = 0; k < fours; k++) {
        __m512i weights[TILE_BLOCKS];
        for (uint32_t b = 0; b < blocks; b++) weights[b] = _mm512_loadu_si512(w + b * block + 64 * (size_t)k);
        for (uint32_t r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x + r * stride + 4 * (size_t)k, 4);
            const __m512i in = _mm512_set1_epi32(four ^ (int32_t)0x80808080);
            for (uint32_t b = 0; b < blocks; b++) sum[r][b] = _mm512_dpbusd_epi32(sum[r][b], in, weights[b]);
        }
    }
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t b = 0; b < blocks; b++) _mm512_storeu_si512(sums[r][b], sum[r][b]);
}

static TARGET void tiles_vnni(const int8_t *w, size_t block, uint32_t fours, const int32_t *column_sums, const int8_t *x,
                              size_t stride, uint32_t rows, uint32_t blocks, int32_t sums[TILE_ROWS][TILE_BLOCKS][LANES]) {
    if (rows == 1 && blocks == 4)
        tile_vnni(w, block, fours, column_sums, x, stride, 1, 4, sums);
    else if (rows == 4 && blocks == 4)
        tile_vnni(w, block, fours, column_sums, x, stride, 4, 4, sums);
    else if (rows == 4 && blocks == 2)
        tile_vnni(w, block, fours, column_sums, x, stride, 4, 2, sums);
    else
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t b = 0; b < blocks; b++) {
                int32_t one[TILE_ROWS][TILE_BLOCKS][LANES];
                tile_vnni(w + b * block, block, fours, column_sums + b * LANES, x + r * stride, stride, 1, 1, one);
                memcpy(sums[r][b], one[0][0], sizeof one[0][0]);
            }
}

#include "kernels.inc"

#elif defined(__ARM_NEON)

#include <arm_neon.h>

/* NEON: products of bytes in int16, added up by pairs in int32. */

#define LEVEL(name) JOIN(name, neon)
#define LEVEL_NAME "neon"
#define TARGET
#define TILE_ROWS 1
#define TILE_BLOCKS 1

static void tiles_neon(const int8_t *w, size_t block, uint32_t fours, const int32_t *ignored, const int8_t *x,
                       size_t stride, uint32_t rows, uint32_t blocks, int32_t sums[TILE_ROWS][TILE_BLOCKS][LANES]) {
    (void)ignored, (void)block, (void)stride, (void)rows, (void)blocks;
    int32x4_t low[4], high[4]; /* of two outputs each: products of inputs 0 and 1, of 2 and 3 */
    for (int i = 0; i < 4; i++) low[i] = high[i] = vdupq_n_s32(0);
    for (uint32_t k = 0; k < fours; k++, w += 64) {
        int32_t four;
        memcpy(&four, x + 4 * (size_t)k, 4);
        const int8x8_t in = vreinterpret_s8_s32(vdup_n_s32(four));
        for (int i = 0; i < 4; i++) {
            const int8x16_t weights = vld1q_s8(w + 16 * i);
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
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define TILE_ROWS 4
#define TILE_BLOCKS 1

static TARGET void tiles_dot(const int8_t *w, size_t block, uint32_t fours, const int32_t *ignored, const int8_t *x,
                             size_t stride, uint32_t rows, uint32_t blocks, int32_t sums[TILE_ROWS][TILE_BLOCKS][LANES]) {
    (void)ignored, (void)block, (void)blocks;
    int32x4_t sum[TILE_ROWS][4];
    for (int r = 0; r < TILE_ROWS; r++)
        for (int i = 0; i < 4; i++) sum[r][i] = vdupq_n_s32(0);
    for (uint32_t k = 0; k < fours; k++, w += 64)
        for (uint32_t r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x + r * stride + 4 * (size_t)k, 4);
            const int8x16_t in = vreinterpretq_s8_s32(vdupq_n_s32(four));
            for (int i = 0; i < 4; i++) sum[r][i] = vdotq_s32(sum[r][i], vld1q_s8(w + 16 * i), in);
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
#define TILE_ROWS 1
#define TILE_BLOCKS 1

static void tiles_wasm(const int8_t *w, size_t block, uint32_t fours, const int32_t *ignored, const int8_t *x,
                       size_t stride, uint32_t rows, uint32_t blocks, int32_t sums[TILE_ROWS][TILE_BLOCKS][LANES]) {
    (void)ignored, (void)block, (void)stride, (void)rows, (void)blocks;
    v128_t low[4], high[4]; /* of two outputs each: products of inputs 0 and 1, of 2 and 3 */
    for (int i = 0; i < 4; i++) low[i] = high[i] = wasm_i32x4_splat(0);
    for (uint32_t k = 0; k < fours; k++, w += 64) {
        int32_t four;
        memcpy(&four, x + 4 * (size_t)k, 4);
        const v128_t in = wasm_i16x8_extend_low_i8x16(wasm_i32x4_splat(four));
        for (int i = 0; i < 4; i++) {
            const v128_t weights = wasm_v128_load(w + 16 * i);
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
    if (level == &kernels_vnni)
        return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
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
