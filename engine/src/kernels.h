/* The loops in which all the time goes, one set for every kind of processor. */
#ifndef KOULING_KERNELS_H
#define KOULING_KERNELS_H

#include "model.h"

/* Where a row of a product comes from: int8 numbers times a scale, or floats. */
typedef struct {
    const int8_t *bytes;
    const float *scale; /* one for every row, or one for all where `scale_step` is 0 */
    size_t scale_step;
    const float *floats;
    size_t stride; /* from one row to the next, in numbers */
} rows_in;

/* Numbers kept for a key's heads: a power of two of them, for all vectors to be alike, or whole vectors. */
#define ATTENTION_MAX_LOT 64
static inline uint32_t attention_lot(uint32_t heads) {
    uint32_t lot = 1;
    while (lot < heads) lot = lot < 16 ? 2 * lot : lot + 16;
    return lot;
}

typedef struct {
    const char *name;
    /* 25 ms of samples -> one feature frame. */
    void (*log_mel)(const int16_t *samples, const feature_tables *tables, float *features);
    /* x -> round(x / scale) and the scale, which makes the largest number 127. `count` is a multiple of 16. */
    float (*quantize)(const float *x, size_t count, int8_t *q);
    /* y = x W + bias, or y += it. Rows of y are `stride` floats apart. */
    void (*multiply)(const linear *w, const rows_in *x, uint32_t rows, float *y, size_t stride, int add);
    /* y = (x - mean) / deviation */
    void (*normalize)(const float *x, uint32_t width, float *y);
    /* x = silu(x) */
    void (*silu)(float *x, size_t count);
    /* y = first half of x, times the sigmoid of its second half */
    void (*gate)(const float *x, uint32_t width, float *y);
    /* Keys, values and the past are as `stored` says: STATE_FLOAT, STATE_BFLOAT16 or STATE_INT8. */
    /* One query against `window` keys and values, the oldest at row `first` of a ring of `ring` rows. bias: of every
     * distance, the farthest first, and every head. */
    void (*attend)(const float *query, const void *keys, const void *values, const float *bias, uint32_t width,
                   uint32_t heads, uint32_t window, uint32_t first, uint32_t ring, float *scores, float *y, int stored);
    /* One frame of linear attention. query_key_value: [3][width], in which queries and keys are changed. What is remembered,
     * `keys` [width] and `values` [width / heads][width], is first multiplied by what is `kept` of each head. */
    void (*recall)(float *query_key_value, const float *kept, uint32_t width, uint32_t heads, float *keys, float *values, float *y);
    /* y = silu(bias + sum over the ring's rows, the oldest at row `first`, times the taps of their age) */
    void (*depthwise)(const void *past, const numbers *taps, const numbers *bias, uint32_t width, uint32_t kernel,
                      uint32_t first, float *y, int stored);
    /* y = ln of softmax(x). x may be read up to the next multiple of 16. */
    void (*log_softmax)(const float *x, uint32_t count, float *y);
} kernels;

/* The level of that name, or NULL where this processor has not got it; the fastest one it has for NULL. */
const kernels *kernels_named(const char *name);

/* For tests and measurements: let a stream compute at that level -> whether this processor has it. */
struct kouling_stream;
int kouling_use_level(struct kouling_stream *stream, const char *name);

#endif
