/* The model file: a header, the shapes of the layers, and behind them everything in the order in which a step reads it. Used in place. */
#ifndef KOULING_MODEL_H
#define KOULING_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "floats.h"

#define MODEL_OLDEST 2
#define MODEL_VERSION 3 /* the first with batch normalisation */
#define MODEL_ALIGN 64
#define MODEL_MAX_WINDOW 64 /* feature frames that the stem may hear at once */
#define MOST_BYTES ((size_t)PTRDIFF_MAX) /* nothing in memory is larger: a length above went wrong, as -1 does */

enum { WEIGHTS_FLOAT = 0, WEIGHTS_INT8 = 1, WEIGHTS_INT4 = 2, WEIGHTS_SPARSE = 3, WEIGHTS_BFLOAT16 = 4 }; /* of each linear layer, in a table before them all */
enum { ATTENTION_WINDOWED = 0, ATTENTION_LINEAR = 1 }; /* over the last frames; over sums of all, which fade */
enum { STATE_FLOAT = 0, STATE_BFLOAT16 = 1, STATE_INT8 = 2 }; /* the upper half of a float's bits; whole numbers, whose
                                                                * scales are in the weights before and behind */
enum { NORM_LAYER = 0, NORM_BATCH = 1 }; /* of each frame; of each channel, a gain and a bias that training found */
enum { TAPS_FLOAT = 0, TAPS_BFLOAT16 = 1 };
#define GROUP 32 /* inputs of an int4 layer that share a multiplier */
#define INT4_MOST_GROUPS 512 /* what int32 can add up */
#define SPARSE_MOST_INPUTS 4096 /* of a sparse layer: kernels may turn rows of them into something else beforehand */

/* All fields little-endian, four bytes each. `docs/model-file.md` says what they mean. */
typedef struct {
    char magic[8]; /* "KOULING", a zero */
    uint32_t version, file_bytes, checksum;
    uint32_t linears; /* how many linear layers there are */
    uint32_t mels, layers, head_size, width, kernel, attention, stem_channels, stem_layers;
    uint32_t subsampling, lookahead, step_frames, left_context, units;
    float log_floor, log_scale;
    uint32_t tables_at, weights_at, commands_at, commands_bytes, text_at, text_bytes;
    uint32_t priming_frames; /* encoder frames with which a stream begins */
    uint32_t state; /* how a stream stores what attention and convolution remember */
    uint32_t taps; /* how those of the depthwise convolutions and their biases are stored */
    float priming_level; /* the features of those */
    uint32_t norm;
} model_header;

/* What is left of a layer where some of it was pruned away; of the whole one, all. Behind the header, one for each. */
typedef struct {
    uint32_t heads, ffn_in, ffn_out, channels; /* attention, the two feed-forward modules, convolution */
} layer_shape;

static inline const layer_shape *model_layers(const model_header *model) { return (const layer_shape *)(const void *)(model + 1); }
/* Numbers of a query, a key or a value. */
static inline uint32_t attention_width(const model_header *model, uint32_t layer) {
    return model_layers(model)[layer].heads * model->head_size;
}

/* CRC-32 (IEEE 802.3), as zlib's. */
uint32_t checksum(const uint8_t *bytes, size_t count);

/* Floats or bfloat16; the other one is NULL. */
typedef struct {
    const float *floats;
    const uint16_t *halves;
} numbers;

/* Rows of `inputs` numbers in, rows of `outputs` out. Weights lie in blocks of 16 outputs: for every four inputs the
 * four weights of each output, so that sixteen products of four are one instruction where there is one. Of int4 weights,
 * to which 8 is added, 64 bytes hold those of eight inputs, the first four in their lower halves; inputs that fill up the
 * last group have weights of 0, and may be any bytes. Sparse are int8 weights without those blocks, of 16 outputs and four
 * inputs, that are all 0. */
typedef struct {
    uint32_t inputs;
    uint32_t fours, blocks;     /* what is stored: inputs / 4 and outputs / 16, rounded up */
    uint32_t groups;            /* int4: inputs / GROUP, rounded up */
    const uint8_t *weights;     /* int8: [blocks][fours][16][4]; int4: [blocks][groups][GROUP / 8][16][4]; sparse: [kept][16][4]; else NULL */
    const uint32_t *first_kept; /* sparse: [blocks + 1] where what is kept of each block begins */
    const uint16_t *kept;       /* sparse: which fours of inputs, ascending in each block; else NULL */
    const int8_t *multipliers;  /* int4: [blocks][groups][16] of a group's sum, else NULL */
    const uint16_t *scale;      /* int8, int4, sparse: [blocks * 16], bfloat16 */
    const int32_t *sums;        /* int8, sparse: [blocks * 16] of each output's weights, for kernels that need unsigned inputs */
    numbers real;               /* float, bfloat16: [blocks][inputs][16] */
    numbers bias;               /* [blocks * 16] */
} linear;

/* What the features are made with, in the model file. The FFT of 512 real samples is one of 256 complex numbers, made
 * as 16 by 16. */
typedef struct {
    const float *window;       /* [200] its first half; the second is its mirror image */
    const float *turn;         /* [2][256] cosine and -sine of 2 pi k1 n2 / 256, at 16 k1 + n2 */
    const float *unpack;       /* [384] cosine of 2 pi k / 512; its -sine lies 128 further on */
    const uint8_t *first_bin, *bins; /* [mels] where each triangle begins, and how wide it is */
    const float *triangles;    /* their weights, one behind the other */
    uint32_t mels;
    float floor, scale;
} feature_tables;

#define WINDOW_SAMPLES 400
#define HOP_SAMPLES 160

/* Where in the file one is. Running over its end is remembered, not done. */
typedef struct {
    const uint8_t *base;
    size_t at, end;
    const uint8_t *kinds; /* of the linear layers still to come */
    int brief_taps; /* taps are bfloat16 */
    int failed;
} reader;

reader model_weights(const model_header *model);
/* Past all weights, where the model's shape puts their end. */
reader walk_weights(const model_header *model);
const float *read_floats(reader *from, size_t count);
numbers read_taps(reader *from, size_t count);
linear read_linear(reader *from, uint32_t outputs, uint32_t inputs);
reader model_tables(const model_header *model);
feature_tables read_tables(reader *from, const model_header *model);

#endif
