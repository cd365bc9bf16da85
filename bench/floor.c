/* What one core can do at most: `floor BYTES...` -> JSON: int8 multiply-accumulates a second, and bytes read a second from
 * buffers of these sizes, read again and again as the weights are by a stream of steps. The best of many short trials. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define TRIALS 40
#define LOOPS 20000

static volatile int sink;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Multiply-accumulates a second of `run`, which makes `each` in LOOPS passes. */
static double rate(void (*run)(void), double each) {
    double best = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
        const double start = now_s();
        run();
        const double found = LOOPS * each / (now_s() - start);
        best = found > best ? found : best;
    }
    return best;
}

static void plain(void) {
    static int8_t a[4096], b[4096];
    memset(a, 1 + sink % 2, sizeof a);
    memset(b, 3, sizeof b);
    for (int loop = 0; loop < LOOPS / 64; loop++) {
        int sum = 0;
        for (int i = 0; i < 4096; i++) sum += a[i] * b[i];
        a[loop % 4096] = (int8_t)sum;
        sink = sum;
    }
}

#if defined(__x86_64__)
/* Twelve sums at once hide the latency of one. */
__attribute__((target("avx512f,avx512vnni"))) static void vnni(void) {
    __m512i a = _mm512_set1_epi8((char)(1 + sink % 2)), b = _mm512_set1_epi8(3), sums[12];
    for (int i = 0; i < 12; i++) sums[i] = _mm512_setzero_si512();
    for (int loop = 0; loop < LOOPS; loop++)
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
    for (int i = 1; i < 12; i++) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
    sink = _mm512_reduce_add_epi32(sums[0]);
}

__attribute__((target("avx2"))) static void avx2(void) {
    __m256i a = _mm256_set1_epi8((char)(1 + sink % 2)), b = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1), sums[10];
    for (int i = 0; i < 10; i++) sums[i] = _mm256_setzero_si256();
    for (int loop = 0; loop < LOOPS; loop++) {
#pragma GCC unroll 10
        for (int i = 0; i < 10; i++) {
            __asm__ volatile("" : "+x"(a)); /* as if it were new each time */
            sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        }
    }
    for (int i = 1; i < 10; i++) sums[0] = _mm256_add_epi32(sums[0], sums[i]);
    sink = _mm256_extract_epi32(sums[0], 0);
}

/* Tiles of 16 x 64 by 64 x 16: what a batch could reach, not a single frame. */
__attribute__((target("amx-tile,amx-int8"))) static void amx(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = 16;
    __asm__ volatile("" : : "r"(&shape) : "memory"); /* GCC believes that only its first bytes are read */
    _tile_loadconfig(&shape);
    static int8_t tile[1024] __attribute__((aligned(64)));
    _tile_loadd(4, tile, 64);
    _tile_loadd(5, tile, 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int loop = 0; loop < LOOPS; loop++) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 5);
        _tile_dpbssd(2, 4, 5);
        _tile_dpbssd(3, 4, 5);
    }
    _tile_release();
}

/* The kernel gives the tiles to those who ask. */
static int has_amx(void) {
    unsigned a, b, c, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 25 & 1 && syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) == 0;
}
#endif

typedef uint64_t vector __attribute__((vector_size(64), may_alias));

static double read_rate(size_t bytes) {
    bytes = (bytes + 511) / 512 * 512;
    vector *data = aligned_alloc(64, bytes);
    if (!data) exit(2);
    memset(data, 1, bytes);
    double best = 0;
    const size_t passes = bytes < (1u << 22) ? (1u << 22) / bytes + 1 : 1;
    for (int trial = 0; trial < TRIALS; trial++) {
        vector sums[8] = {{0}};
        const double start = now_s();
        for (size_t pass = 0; pass < passes; pass++) {
            for (size_t i = 0; i < bytes / 64; i += 8)
                for (size_t k = 0; k < 8; k++) sums[k] ^= data[i + k];
            __asm__ volatile("" ::: "memory");
        }
        const double found = (double)(bytes * passes) / (now_s() - start);
        for (int k = 0; k < 8; k++) sink ^= (int)sums[k][0];
        best = found > best ? found : best;
    }
    free(data);
    return best;
}

int main(int argc, char **argv) {
    const char *name = "plain C";
    double peak = 0, tiles = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vnni")) {
        name = "avx512-vnni";
        peak = rate(vnni, 12 * 64.0);
    } else if (__builtin_cpu_supports("avx2")) {
        name = "avx2";
        peak = rate(avx2, 10 * 32.0);
    }
    if (has_amx()) tiles = rate(amx, 4 * 16384.0);
#endif
    if (peak == 0) peak = rate(plain, 4096 / 64.0);
    printf("{\"instructions\": \"%s\", \"macs_per_s\": %.4g, \"amx_macs_per_s\": %.4g, \"bytes_per_s\": {", name, peak, tiles);
    for (int i = 1; i < argc; i++)
        printf("%s\"%s\": %.4g", i > 1 ? ", " : "", argv[i], read_rate((size_t)atol(argv[i])));
    printf("}}\n");
    return 0;
}
