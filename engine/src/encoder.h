/* The streaming Conformer: feature frames in, log-probabilities out, and a state between. */
#ifndef KOULING_ENCODER_H
#define KOULING_ENCODER_H

#include "kernels.h"
#include "model.h"

/* Where a stream's memory is handed out: counted first, then given. */
typedef struct {
    uint8_t *base; /* NULL: count only */
    size_t at;
} arena;

void *arena_take(arena *from, size_t count, size_t size);

typedef struct {
    /* Floats, bfloat16 or int8, as the model says; sums are always floats, as rounding would lose what a frame adds to them. */
    void *keys, *values; /* [left_context + 1][attention width] rings, where frame n is in row n % (left_context + 1);
                          * of linear attention the sum of keys [attention width], and of keys times values
                          * [head_size][attention width] */
    void *past;          /* [kernel][channels], a ring likewise */
} block_state;

typedef struct {
    const model_header *model;
    const kernels *level;
    uint32_t most; /* frames computed at once */
    uint32_t seen; /* frames since the start, up to left_context */
    uint32_t key_row, past_row; /* rows of the next frame */
    float *tail;   /* [lookahead][mels] */
    block_state *blocks;
    /* Scratch, nothing in it outlives a call; what is not in use at the same time shares its place. */
    float *window, *positions, *convolved, *stem, *x, *h, *wide, *scores, *scale;
    int8_t *bytes;
} encoder;

/* Lay out an encoder that computes up to `most` frames at once. */
void encoder_place(encoder *e, const model_header *model, uint32_t most, arena *memory);
void encoder_reset(encoder *e);
/* features: [frames * subsampling][mels] -> log_probs [frames][units]; frames at most `most`. hidden: what the last block
 * says, [frames][width], where it is not NULL. */
void encoder_run(encoder *e, const float *features, uint32_t frames, float *log_probs, float *hidden);

#endif
